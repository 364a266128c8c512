"""Histories of docs/protocol.md that are no question of order: each is told once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.protocol.running import cluster
from tests.protocol.scheduling import Following
from tests.protocol.scripts import Director
from tests.stand_ins_objects import MemoryObjects

from homeport.ipam.allocations import Allocation, Phase
from homeport.model.addresses import IPAddress
from homeport.stores.kubernetes.resources import IPALLOCATIONS, IPSLOTS


@pytest.fixture
def director() -> Iterator[Director]:
    """Of a cluster in which nothing goes wrong by itself."""
    with cluster(Following([], {"order": 0, "fate": 0}), "history") as simulation:
        yield Director(simulation)


def delete_by_hand(director: Director, plural: str) -> None:
    """What an operator can do to all objects of a kind."""
    simulation = director.simulation
    for key in [key for key in simulation.server.objects if key[0].plural == plural]:
        if key[0] == IPALLOCATIONS:
            simulation.delete_by_hand(key[2])
        else:
            MemoryObjects(simulation.server, threaded=False).delete(key[0], key[2])


def users(director: Director) -> dict[str, set[IPAddress]]:
    """By pod, the addresses on its interfaces."""
    found: dict[str, set[IPAddress]] = {}
    for address, container in director.simulation.users():
        found.setdefault(container.pod.ref.name, set()).add(address)
    return found


def of_pods(director: Director) -> dict[str, list[Allocation]]:
    found: dict[str, list[Allocation]] = {}
    for allocation in director.simulation.laws.stored().values():
        found.setdefault(str(allocation.slot.owner), []).append(allocation)
    return found


def test_an_allocation_deleted_under_a_running_pod_is_made_again(director: Director) -> None:
    """P20."""
    pod = director.world.start_stranger("x", node="n1")
    director.calmly(director.attach(pod))
    had = users(director)
    delete_by_hand(director, "ipallocations")
    director.calmly(director.pass_time(seconds=60), director.rounds("n1"))
    assert {a.address for a in of_pods(director)["ns/x"]} == had["x"]
    assert {a.phase for a in of_pods(director)["ns/x"]} == {Phase.BOUND}


def test_a_stranger_who_was_faster_keeps_what_he_took_and_nobody_is_freed(director: Director) -> None:
    """P20, E26: two use the address, which the operator's deletion made possible; both are left alone."""
    x, y = director.world.start_stranger("x", node="n1"), director.world.start_stranger("y", node="n2")
    director.calmly(director.attach(x))
    delete_by_hand(director, "ipallocations")
    director.calmly(director.attach(y), director.pass_time(seconds=60), director.rounds("n1"), director.rounds("n2"))
    director.calmly(director.reconcile(0), director.end(x), director.rounds("n1"))
    assert {a.address for a in of_pods(director)["ns/y"]} == users(director)["y"]


def test_a_node_that_lost_its_claims_finds_them_again(director: Director) -> None:
    """P14: and the DEL of a container from before releases its addresses."""
    pod = director.world.start_stranger("x", node="n1")
    director.calmly(director.attach(pod))
    director.node("n1").crash()
    director.simulation.nodes["n1"].lose_claims()
    director.calmly(director.rounds("n1"), director.pass_time(seconds=60), director.rounds("n1"))
    director.calmly(director.end(pod), director.rounds("n1"))
    assert of_pods(director) == {}


def test_a_replica_whose_record_was_deleted_keeps_its_address(director: Director) -> None:
    """P7: the controller writes it again, from the allocation that it lacks; then the node is another one."""
    stranger = director.world.start_stranger("x", node="n2")
    web = director.world.scale("a", 1)
    pod = director.world.start(web, 0, node="n1")
    director.calmly(director.attach(stranger), director.attach(pod))
    had = users(director)["a-0"]
    delete_by_hand(director, "ipslots")
    director.calmly(director.reconcile(0), director.pass_time(minutes=61), director.reconcile(0))
    director.calmly(director.end(pod), director.rounds("n1"), director.end(stranger), director.rounds("n2"))
    director.calmly(director.attach(director.world.start(web, 0, node="n2")))
    assert users(director)["a-0"] == had


def test_a_record_that_is_just_relied_on_is_not_removed(director: Director) -> None:
    """P6: it was of no use for long; its version is another one when the controller comes to remove it."""
    stranger = director.world.start_stranger("x", node="n2")
    web = director.world.scale("a", 1)
    pod = director.world.start(web, 0, node="n1")
    director.calmly(director.attach(stranger), director.attach(pod), director.end(pod), director.rounds("n1"))
    director.world.workloads.clear()
    director.calmly(director.force_delete(pod), director.reconcile(0), director.reconcile(0))
    assert of_pods(director).keys() == {"ns/x"}
    director.calmly(director.pass_time(minutes=9), director.reconcile(0))
    director.world.scale("a", 1)
    director.calmly(director.attach(director.world.start(web, 0, node="n1")))
    director.calmly(director.pass_time(minutes=2), director.reconcile(0), director.pass_time(minutes=12))
    director.calmly(director.reconcile(0))
    assert [key[2] for key in director.simulation.server.objects if key[0] == IPSLOTS] != []


def test_a_pod_that_a_late_claim_left_an_address_takes_it_up_or_it_goes_with_the_pod(director: Director) -> None:
    """P3: the create comes when the ADD has long failed; nobody knows of it but the API server."""
    pod = director.world.start_stranger("x", node="n1")
    client = director.simulation.nodes["n1"].daemon.client  # type: ignore[union-attr]  # it was just started
    client.fate = lambda call: "later" if call.verb == "create" else "done"
    director.calmly(director.attach(pod))
    assert users(director) == {}
    client.fate = lambda call: "done"
    director.calmly(director.pass_time(seconds=60), director.rounds("n1"), director.rounds("n1"), director.land)
    assert of_pods(director).keys() == {"ns/x"}
    director.calmly(director.end(pod), director.force_delete(pod), director.rounds("n1"), director.rounds("n1"))
    director.calmly(director.rounds("n1"))
    assert of_pods(director) == {}
