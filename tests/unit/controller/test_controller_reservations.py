"""A reservation that is told of late: the map that asked for it may be gone by then."""

from __future__ import annotations

from tests.unit.controller.stages import Stage

from homeport.ipam.allocations import Phase
from homeport.ipam.identities import Replica


def test_a_reservation_told_of_after_its_map_was_withdrawn_goes_too() -> None:
    stage = Stage()
    web = stage.workload("web", 0)
    actor = stage.actor()
    actor.work()
    stage.keep(stage.bind(Replica(web, 0), 20, uid="none"), Phase.RESERVED)
    actor.work()
    assert stage.phases() == {}
