"""E17 on the controller: what a slot had before is released once it uses what the map gives it now."""

from __future__ import annotations

import msgspec
from tests.unit.controller.stages import Stage

from homeport.ipam.allocations import Allocation, Phase
from homeport.ipam.identities import Replica


def taken_up(stage: Stage, number: int, by: Allocation) -> None:
    """The ADD of the slot of `by` takes what is reserved for it."""
    (reserved,) = [a for a in stage.store.all() if int(a.address) & 255 == number]
    stage.store.replace(msgspec.structs.replace(reserved, phase=Phase.BOUND, holder=by.holder), cause="as reserved")


def test_an_old_address_is_released_once_the_new_one_is_in_use_and_not_before() -> None:
    stage = Stage()
    web = stage.workload("web", 2, addresses=[1, 2])
    held = [stage.bind(Replica(web, n), 1 + n) for n in range(2)]
    actor = stage.actor()
    actor.work()
    stage.workload("web", 2, addresses=[1, 5])
    actor.work()
    stage.keep(next(a for a in stage.store.all() if a.slot == held[1].slot and a.phase is Phase.BOUND))
    actor.work()
    assert stage.phases() == {1: "Bound", 2: "Retained", 5: "Reserved"}
    taken_up(stage, 5, held[1])
    actor.work()
    assert stage.phases() == {1: "Bound", 5: "Bound"}
