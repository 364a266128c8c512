"""IPSlots without allocations go after ten minutes of watching; one that lacks a place of its slot gets it."""

from __future__ import annotations

import pytest
from tests.unit.controller.stages import Actor, Stage

from homeport.ipam.identities import Replica
from homeport.kube.resources import PODS, STATEFUL_SETS
from homeport.stores.kubernetes.resources import IPALLOCATIONS, IPSLOTS
from homeport.stores.kubernetes.slots import decode_slot, slot_body, with_place


@pytest.fixture
def stage() -> Stage:
    return Stage()


def slots(stage: Stage) -> list[str]:
    return [stored.name.rpartition("-")[0] for stored in stage.people.list(IPSLOTS)]


def used_up(stage: Stage) -> Actor:
    """A controller, and the record of a replica that is gone by then."""
    actor = stage.actor()
    held = stage.bind(Replica(stage.workload("web", 1), 0), 1)
    stage.stranger("s", 9)
    actor.work()
    stage.keep(held)
    stage.remove(PODS, "web-0")
    stage.remove(STATEFUL_SETS, "web")
    actor.work()
    assert stage.phases() == {9: "Bound"}
    return actor


def test_one_that_is_of_no_use_goes_after_two_looks_ten_minutes_apart(stage: Stage) -> None:
    actor = used_up(stage)
    actor.work(1100.0)
    assert slots(stage) == ["web-0"]
    actor.work(150.0)
    assert slots(stage) == []


def test_one_that_was_there_before_the_controller_goes_too(stage: Stage) -> None:
    used_up(stage)
    actor = stage.actor()
    actor.work(590.0)
    assert slots(stage) == ["web-0"]
    actor.work(20.0)
    assert slots(stage) == []


def test_one_that_is_written_meanwhile_stays(stage: Stage) -> None:
    """P6: whoever relies on a record writes it."""
    used_up(stage)
    actor = stage.actor()
    actor.work(590.0)
    (stored,) = stage.people.list(IPSLOTS)
    record = decode_slot(stored)
    stage.people.patch(IPSLOTS, stored.name, slot_body(with_place(record, record.places[0])), version=stored.version)
    actor.work(500.0)
    assert slots(stage) == ["web-0"]
    actor.work(300.0)
    assert slots(stage) == []


def test_one_whose_slot_has_an_address_stays(stage: Stage) -> None:
    stage.bind(Replica(stage.workload("web", 1), 0), 1)
    actor = stage.actor()
    actor.work(2000.0)
    assert slots(stage) == ["web-0"]


def test_one_that_names_an_allocation_that_cannot_be_read_stays(stage: Stage) -> None:
    stage.bind(Replica(stage.workload("web", 1), 0), 1)
    stage.people.patch(IPALLOCATIONS, "10.0.0.1", {"status": {"phase": "Bound", "holder": None}})
    stage.actor().work(2000.0)
    assert slots(stage) == ["web-0"]


def test_one_that_cannot_be_read_stays_and_is_told(stage: Stage) -> None:
    used_up(stage)
    (stored,) = stage.people.list(IPSLOTS)
    stage.people.patch(IPSLOTS, stored.name, {"spec": {"network": "another"}})
    actor = stage.actor()
    actor.work(2000.0)
    assert slots(stage) == ["web-0"]
    assert "Unreadable" in actor.reasons()


def test_one_that_lacks_a_place_of_its_slot_gets_it(stage: Stage) -> None:
    """P7."""
    stage.bind(Replica(stage.workload("web", 1), 0), 1)
    (stored,) = stage.people.list(IPSLOTS)
    stage.people.patch(IPSLOTS, stored.name, {"spec": {"addresses": [{"address": "10.0.0.200"}]}})
    stage.actor().work()
    (stored,) = stage.people.list(IPSLOTS)
    assert [str(address) for _, address in decode_slot(stored).places] == ["10.0.0.200", "10.0.0.1"]


@pytest.mark.parametrize("when", ["before", "while it watches", "while it is cut off"])
def test_one_that_was_deleted_by_hand_is_written_again(stage: Stage, when: str) -> None:
    """R2: nothing else says where the replica has its addresses."""
    stage.bind(Replica(stage.workload("web", 1), 0), 1)
    actor = stage.actor()
    if when != "before":
        actor.work()
    actor.objects.reachable = when != "while it is cut off"
    (stored,) = stage.people.list(IPSLOTS)
    stage.people.delete(IPSLOTS, stored.name)
    if not actor.objects.reachable:
        stage.server.compact()
        actor.objects.reachable = True
    actor.work()
    (again,) = stage.people.list(IPSLOTS)
    assert (again.name, decode_slot(again).places) == (stored.name, decode_slot(stored).places)
