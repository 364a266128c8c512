"""E15, E16, E17: what maps keep is reserved before there are pods, and withdrawn on proof."""

from __future__ import annotations

import json

import pytest
from tests.unit.controller.stages import Actor, Stage

from homeport.kube.resources import DEFINITIONS, STATEFUL_SETS


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
def actor(stage: Stage) -> Actor:
    made = stage.actor()
    made.work()
    return made


def test_reserved_with_the_workload_and_with_the_network(stage: Stage, actor: Actor) -> None:
    stage.workload("web", 0, addresses=[5, 6])
    actor.work()
    assert stage.phases() == {5: "Reserved", 6: "Reserved"}
    stage.workload("db", 0, networks="late")
    stage.define("late", range_="10.0.1.0/24", sticky={"replicas": {"ns/db": ["10.0.1.9"]}})
    actor.work()
    assert stage.phases() == {5: "Reserved", 6: "Reserved", 9: "Reserved"}


def test_a_network_for_each_replica(stage: Stage, actor: Actor) -> None:
    for n in range(2):
        replicas = {"ns/web": [f"10.1.{n}.7", f"10.1.{n}.8"]}
        stage.define(f"vlan{n}", range_=f"10.1.{n}.0/24", network_name=f"v{n}", sticky={"replicas": replicas})
    stage.workload("web", 2, networks="vlan{ordinal}")
    actor.work()
    assert [(a.scope, str(a.address), str(a.slot.owner)) for a in stage.store.all()] == [
        ("v0", "10.1.0.7", "ns/web-0"),
        ("v1", "10.1.1.8", "ns/web-1"),
    ]


def test_withdrawn_with_the_map_and_with_the_workload(stage: Stage, actor: Actor) -> None:
    stage.workload("web", 0, addresses=[5, 6])
    stage.workload("db", 0, addresses=[7])
    actor.work()
    stage.workload("web", 0, addresses=[6])
    stage.remove(STATEFUL_SETS, "db")
    actor.work()
    # The first entry is the first replica's, whatever the map was: the address is withdrawn, then given anew.
    assert {int(a.address) & 255: str(a.slot.owner) for a in stage.store.all()} == {6: "ns/web-0"}
    assert actor.reasons().count("ReservationWithdrawn") == 3


def test_withdrawn_on_proof_alone(stage: Stage, actor: Actor) -> None:
    """The watch has told of the old map; the API server, asked, has a newer one."""
    stage.workload("web", 0, addresses=[5])
    actor.work()
    stage.workload("web", 0, addresses=[])
    actor.objects.deliver()
    stage.workload("web", 0, addresses=[5])
    actor.term.step()
    assert stage.phases() == {5: "Reserved"}
    actor.work()
    assert stage.phases() == {5: "Reserved"}
    assert "ReservationWithdrawn" not in actor.reasons()


def test_a_question_without_an_answer_withdraws_nothing_and_is_asked_again(stage: Stage, actor: Actor) -> None:
    stage.workload("web", 0, addresses=[5])
    actor.work()
    stage.workload("web", 0, addresses=[])
    actor.objects.fail("get", resource=STATEFUL_SETS, times=2)
    actor.work(0.2)
    assert stage.phases() == {5: "Reserved"}
    actor.work(10.0)
    assert stage.phases() == {}


@pytest.mark.parametrize("broken", ['{"lan": ["10.0.0.5", "10.0.0.5"]}', '{"lan": ["10.9.9.9"]}', "{"])
def test_e16_a_map_that_cannot_be_right_is_told_once_and_withdraws_nothing(
    stage: Stage, actor: Actor, broken: str
) -> None:
    stage.workload("web", 0, addresses=[5])
    actor.work()
    template = {"k8s.v1.cni.cncf.io/networks": "lan", "homeport.dev/addresses": broken}
    stage.put(STATEFUL_SETS, "web", {"spec": {"template": {"metadata": {"annotations": template}}}})
    actor.work(700.0)
    assert stage.phases() == {5: "Reserved"}
    assert actor.reasons().count("InvalidAddressMap") == 1
    stage.workload("db", 0, addresses=[8])  # one workload's mistake is no other's
    actor.work()
    assert stage.phases() == {5: "Reserved", 8: "Reserved"}


def test_a_network_that_cannot_be_read_withdraws_nothing(stage: Stage, actor: Actor) -> None:
    stage.workload("web", 0, addresses=[5])
    actor.work()
    stage.people.patch(DEFINITIONS, "lan", {"spec": {"config": json.dumps({"name": "lan"})}}, namespace="ns")
    actor.work(700.0)
    assert stage.phases() == {5: "Reserved"}


def test_an_address_that_is_taken_is_told_and_reserved_once_it_is_free(stage: Stage, actor: Actor) -> None:
    stranger = stage.stranger("s", 5)
    stage.workload("web", 0, addresses=[5])
    actor.work()
    (event,) = [e for e in actor.events if e.reason == "AddressTaken"]
    assert (event.kind, event.pod.name) == ("StatefulSet", "web")
    assert event.message == "10.0.0.5 is mapped for ns/web-0, but Bound for ns/s (lan/net1)"
    stage.store.delete(stranger, cause="DEL")
    actor.work(0.5)
    assert stage.phases() == {5: "Reserved"}


def test_an_operators_reservation_is_left_alone(stage: Stage, actor: Actor) -> None:
    """`homeport reserve`: Retained for a replica that never was."""
    from ipaddress import ip_address

    from homeport.ipam.allocations import Allocation, Phase, Retention
    from homeport.ipam.identities import Replica, Slot, Workload

    stage.store.create(
        Allocation(
            scope="",
            address=ip_address("10.0.0.40"),
            slot=Slot(Replica(Workload("ns", "StatefulSet", "later"), 0), "lan", "net1"),
            phase=Phase.RETAINED,
            since=stage.clock.now(),
            retention=Retention(when_scaled="Retain", when_deleted="Retain"),
        ),
        cause="reserved by somebody",
    )
    actor.work(700.0)
    assert stage.phases() == {40: "Retained"}
