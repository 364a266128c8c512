"""What the controller lets go of, and what it must leave alone whatever it cannot know (docs/identity.md R11-R14)."""

from __future__ import annotations

import msgspec
import pytest
from tests.unit.controller.stages import Stage

from homeport.ipam.allocations import Phase
from homeport.ipam.identities import PodOwner, Replica, Workload
from homeport.kube.resources import DEFINITIONS, NODES, PODS, STATEFUL_SETS
from homeport.ports import Resource
from homeport.stores.kubernetes.resources import IPALLOCATIONS, IPLEDGERS, IPRANGES

ALL = (PODS, NODES, STATEFUL_SETS, DEFINITIONS, IPALLOCATIONS, IPRANGES, IPLEDGERS)


def ready_to_release(stage: Stage) -> None:
    """.1 Retained of a workload that is gone, .2 Bound on a node that is gone, .3 Reserved by no map."""
    web = stage.workload("web", 2)
    for n, name in ((0, "web-0"), (1, "web-1")):
        held = stage.bind(Replica(web, n), 1 + n, node="dead")
        stage.remove(PODS, name)
        if n == 0:
            stage.keep(held)
    stage.remove(STATEFUL_SETS, "web")
    stage.keep(stage.bind(Replica(stage.workload("other", 0), 0), 3), Phase.RESERVED)


BEFORE = {1: "Retained", 2: "Bound", 3: "Reserved"}


def test_all_that_is_proven_gone_is_free() -> None:
    stage = Stage()
    ready_to_release(stage)
    stage.actor().work()
    assert stage.phases() == {}


@pytest.mark.parametrize("lacking", ALL, ids=lambda r: r.plural)
def test_where_a_resource_is_not_installed_nothing_is_freed(lacking: Resource) -> None:
    stage = Stage()
    ready_to_release(stage)
    stage.server.lacking.add(lacking)
    actor = stage.actor()
    actor.work(700.0)
    stage.server.lacking.clear()
    assert stage.phases() == BEFORE
    assert actor.term.unready()


@pytest.mark.parametrize("asked", [PODS, STATEFUL_SETS])
def test_where_nobody_answers_nothing_is_freed_and_soon_asked_again(asked: Resource) -> None:
    stage = Stage()
    web = stage.workload("web", 1)
    stage.keep(stage.bind(Replica(web, 0), 1))
    stage.remove(PODS, "web-0")
    stage.remove(STATEFUL_SETS, "web")
    actor = stage.actor()
    actor.objects.fail("get", resource=asked, times=3)
    actor.work(0.9)
    assert stage.phases() == {1: "Retained"}
    actor.work(15.0)
    assert stage.phases() == {}


def test_a_cache_that_is_behind_frees_nothing() -> None:
    """The watches have told of the end of everything, and not yet that it is there again."""
    stage = Stage()
    web = stage.workload("web", 1)
    held = stage.bind(Replica(web, 0), 1, node="n1")
    actor = stage.actor()
    actor.work()
    stage.remove(NODES, "n1")
    stage.remove(PODS, "web-0")
    actor.objects.deliver()
    stage.node("n1")
    holder = held.holder
    assert holder is not None
    stage.people.create(PODS, {"metadata": {"name": "web-0"}}, namespace="ns")
    before = len(actor.objects.calls)
    actor.term.step()
    assert "pods" in {c.resource.plural for c in actor.objects.calls[before:] if c.verb == "get"}
    assert stage.phases() == {1: "Bound"}  # the node is there, and nobody saw the container end


@pytest.mark.parametrize("spoil", [{"spec": {"address": "10.0.0.77"}}, {"status": {"phase": "Bound", "holder": None}}])
def test_an_allocation_that_cannot_be_read_is_told_and_left(spoil: dict[str, object]) -> None:
    stage = Stage()
    ready_to_release(stage)
    stage.people.patch(IPALLOCATIONS, "10.0.0.1", spoil)
    broken = stage.people.get(IPALLOCATIONS, "10.0.0.1")
    actor = stage.actor()
    actor.work(700.0)
    assert stage.people.get(IPALLOCATIONS, "10.0.0.1") == broken
    (event,) = [e for e in actor.events if e.reason == "Unreadable"]
    assert (event.kind, event.pod.name, event.warning) == ("IPAllocation", "10.0.0.1", True)
    assert [o.name for o in stage.people.list(IPALLOCATIONS)] == ["10.0.0.1"]


def test_a_doubt_is_told_when_it_lasts() -> None:
    """The pod is gone and its node is there: only that node can see whether the container is."""
    stage = Stage()
    stage.stranger("s", 1)
    actor = stage.actor()
    actor.work()
    stage.remove(PODS, "s")
    actor.work(290.0)
    assert "ReleaseDoubtful" not in actor.reasons()
    actor.work(700.0)
    (event,) = {e.message for e in actor.events if e.reason == "ReleaseDoubtful"}
    assert event.startswith("10.0.0.1 of ns/s (lan/net1) is not freed: its pod is gone, but nobody saw container")
    stage.node("n1", out_of_service=True)
    actor.work()
    assert stage.phases() == {}


def test_a_pod_that_came_back_under_its_name_does_not_hold_for_the_old_one() -> None:
    stage = Stage()
    stage.stranger("s", 1, node="dead")
    stage.remove(PODS, "s")
    stage.pod("s")
    stage.actor().work()
    assert stage.phases() == {}


def test_an_evicted_pod_lets_go_when_its_node_is_out_of_service() -> None:
    """R14: a finished pod is no proof that its namespace is gone."""
    stage = Stage()
    stage.bind(PodOwner("ns", "s", stage.pod("s")), 1)
    actor = stage.actor()
    actor.work()
    stage.pod("s", phase="Failed")
    actor.work()
    assert stage.phases() == {1: "Bound"}
    stage.node("n1", out_of_service=True)
    actor.work()
    assert stage.phases() == {}


def test_the_wish_of_a_workload_is_noted_and_holds_when_it_is_gone() -> None:
    """E12."""
    stage = Stage()
    web = stage.workload("web", 1, notes={"homeport.dev/retention": '{"whenDeleted": "Retain"}'})
    stage.bind(Replica(web, 0), 1)
    actor = stage.actor()
    actor.work()
    (noted,) = stage.store.all()
    assert noted.retention.when_deleted == "Retain"
    stage.keep(noted)
    stage.remove(PODS, "web-0")
    stage.remove(STATEFUL_SETS, "web")
    actor.work(700.0)
    assert stage.phases() == {1: "Retained"}


def test_e13_retain_for_passes_without_anything_happening() -> None:
    stage = Stage(whenDeleted="Retain", retainFor="1h")
    web = stage.workload("web", 1)
    stage.bind(Replica(web, 0), 1)
    actor = stage.actor()
    actor.work()
    (noted,) = stage.store.all()
    stage.keep(noted)
    stage.remove(PODS, "web-0")
    stage.remove(STATEFUL_SETS, "web")
    actor.work(3000.0)
    assert stage.phases() == {1: "Retained"}
    actor.work(1000.0)
    assert stage.phases() == {}
    assert "retained for 1:00:00" in stage.ledger()[-1].cause


def test_e13_free_when_the_time_has_passed_and_not_only_at_the_next_full_pass() -> None:
    """Also when the end comes nearer meanwhile, and while a replica that is wanted again keeps its own."""
    stage = Stage(retainFor="20s")
    web = stage.workload("web", 3)
    for n in range(3):
        stage.bind(Replica(web, n), n + 1)
    actor = stage.actor()
    actor.work()
    stage.workload("web", 1)
    for allocation in list(stage.store.all())[1:]:
        stage.keep(allocation)
        stage.remove(PODS, str(allocation.slot.owner).rpartition("/")[2])
    actor.work(10.0)
    assert stage.phases() == {1: "Bound", 2: "Retained", 3: "Retained"}
    stage.workload("web", 2)
    actor.work(15.0)
    assert stage.phases() == {1: "Bound", 2: "Retained"}


def test_a_slots_second_address_that_nobody_uses_goes() -> None:
    """E17, and what a lost race leaves."""
    stage = Stage()
    web = stage.workload("web", 1)
    stage.bind(Replica(web, 0), 1)
    extra = stage.bind(Replica(web, 0), 2)
    stage.keep(extra)
    stage.actor().work()
    assert stage.phases() == {1: "Bound"}


def test_a_network_that_cannot_be_read_frees_nothing_and_is_told() -> None:
    stage = Stage(whenScaled="Release")
    web = stage.workload("web", 1)
    held = stage.bind(Replica(web, 0), 1)
    stage.people.patch(DEFINITIONS, "lan", {"spec": {"config": "{"}}, namespace="ns")
    stage.keep(held)
    stage.remove(PODS, "web-0")
    stage.workload("web", 0)
    actor = stage.actor()
    actor.work(700.0)
    assert stage.phases() == {1: "Retained"}  # noted was the default: Retain
    assert "Unreadable" in actor.reasons()


def test_quarantined_stays() -> None:
    stage = Stage()
    web = stage.workload("web", 1)
    held = stage.bind(Replica(web, 0), 1)
    stage.store.replace(
        msgspec.structs.replace(held, phase=Phase.QUARANTINED, holder=None), cause="0a:58:0a:00:00:09 answers"
    )
    stage.remove(PODS, "web-0")
    stage.remove(STATEFUL_SETS, "web")
    stage.actor().work(700.0)
    assert stage.phases() == {1: "Quarantined"}


def test_a_kind_that_nobody_can_ask_for_keeps_its_addresses_and_holds_nothing_up() -> None:
    stage = Stage()
    stage.keep(stage.bind(Replica(Workload("ns", "Kafka.kafka.example", "k"), 0), 1))
    web = stage.workload("web", 1)
    stage.keep(stage.bind(Replica(web, 0), 2))
    stage.remove(PODS, "web-0")
    actor = stage.actor()
    actor.work(200.0)
    asked = len(actor.objects.calls)
    stage.remove(STATEFUL_SETS, "web")
    actor.work(0.1)
    assert stage.phases() == {1: "Retained"}
    assert len(actor.objects.calls) - asked < 20


def test_a_doubt_ends_with_its_allocation() -> None:
    stage = Stage()
    held = stage.stranger("s", 1)
    actor = stage.actor()
    actor.work()
    stage.remove(PODS, "s")
    actor.work(700.0)
    assert actor.doubtful() == 1
    stage.store.delete(held, cause="DEL")
    actor.work(400.0)
    assert actor.doubtful() == 0


def test_much_to_do_leaves_room_for_the_rest() -> None:
    """While hundreds of addresses are let go, the ledger and the ranges are written as ever."""
    stage = Stage()
    for number in range(1, 201):
        stage.stranger(f"s{number}", number, node="dead")
        stage.remove(PODS, f"s{number}")
    actor = stage.actor()
    actor.objects.on_done = lambda _call: stage.clock.sleep(0.01)
    actor.work(0.1)
    assert stage.phases() == {}
    order = [c.resource.plural for c in actor.objects.calls if c.verb != "get"]
    last = len(order) - order[::-1].index("ipallocations")
    assert "ipranges" in order[: last - 50]
    assert "ipledgers" in order[: last - 50]


def test_a_static_pod_is_no_doubt() -> None:
    """Runtimes know it by a hash, the API server by a UID of its own."""
    stage = Stage()
    uid = stage.put(PODS, "s", {"metadata": {"annotations": {"kubernetes.io/config.hash": "hash-1"}}}).uid
    stage.bind(PodOwner("ns", "s", uid), 1, uid="hash-1")
    actor = stage.actor()
    actor.work(700.0)
    assert (stage.phases(), actor.doubtful()) == ({1: "Bound"}, 0)
    assert [c for c in actor.objects.calls if c.verb == "get" and c.resource == PODS] == []
