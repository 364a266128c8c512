"""A node's reconciliation: what its interfaces hold against what the API server says, in memory (E26, P3, P14, P20)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.stand_ins_holding import A1, A2, WEB, Machine, allocation_of, held_by, holder_of, owner_of
from tests.stand_ins_objects import Call

from homeport.daemon.holding import recorded_addresses, recorded_netns
from homeport.ipam.allocations import Allocation, Phase, Retention
from homeport.ipam.identities import ContainerOwner, PodOwner, Replica
from homeport.ipam.objects import Pod
from homeport.model.errors import CniError, DecodeFailure
from homeport.model.names import AttachmentKey
from homeport.runtime.caching import CachedAttachment, ResultCache
from homeport.stores.claims import State
from homeport.stores.kubernetes.resources import IPALLOCATIONS


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path)
    yield made
    made.close()


# --- what an interface that is up holds --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["replica", "pod"])
def test_a_deleted_allocation_of_a_running_pod_is_made_again(machine: Machine, kind: str) -> None:
    pod = machine.world.start(WEB, 0) if kind == "replica" else machine.world.start_stranger("job")
    before = machine.attach(pod, "c1")
    machine.look()
    assert (machine.told(), machine.woken) == ([], 0)
    machine.operator.delete(IPALLOCATIONS, "10.0.0.1")
    machine.objects.deliver()
    assert machine.woken == 1
    machine.round()
    found = machine.stored()
    assert found == msgspec.structs.replace(before, version=found.version if found else 0)
    assert machine.told() == [("AllocationRestored", str(pod.ref))]
    assert machine.repairs == ["restored"]
    machine.look()
    assert (machine.told(), machine.stored()) == ([], found)
    assert machine.store.of_holder("c1", "net1") == (found,)


def test_a_conflict_is_told_once_and_nothing_is_freed(machine: Machine) -> None:
    pod = machine.world.start_stranger("job")
    machine.attach(pod, "c1")
    thief = machine.world.start_stranger("thief", node="n2")
    machine.operator.delete(IPALLOCATIONS, "10.0.0.1")
    taken = machine.elsewhere.create(allocation_of(owner_of(thief), A1, holder_of(thief, "c9", "n2")), cause="x")
    machine.look()
    machine.look()
    assert machine.stored() == taken
    (event,) = machine.events
    assert (event.reason, event.pod, event.pod_uid, event.warning) == ("AddressConflict", pod.ref, pod.uid, True)
    assert "10.0.0.1 of net1 on net is Bound in the cluster for ns/thief on node n2" in event.message
    assert (machine.holding.conflicts, machine.repairs) == (1, [])
    assert machine.store.of_holder("c1", "net1")
    machine.elsewhere.delete(taken, cause="DEL")
    machine.look()
    assert held_by(machine.stored()) == "c1"
    assert machine.holding.conflicts == 0


def test_a_conflict_ends_with_our_own_interface(machine: Machine) -> None:
    mine = machine.attach(machine.world.start_stranger("job"), "c1")
    thief = machine.world.start_stranger("thief", node="n2")
    machine.operator.delete(IPALLOCATIONS, "10.0.0.1")
    taken = machine.elsewhere.create(allocation_of(owner_of(thief), A1, holder_of(thief, "c9", "n2")), cause="x")
    machine.look()
    assert machine.holding.conflicts == 1
    machine.store.delete(mine, cause="DEL")
    machine.store.deliver()
    machine.look()
    assert (machine.holding.conflicts, machine.stored()) == (0, taken)


def test_what_was_retained_while_its_interface_is_up_is_bound_again(machine: Machine) -> None:
    machine.attach(machine.world.start(WEB, 0), "c1")
    present = machine.stored()
    assert present is not None
    machine.elsewhere.replace(msgspec.structs.replace(present, phase=Phase.RETAINED, holder=None), cause="by hand")
    machine.look()
    assert held_by(machine.stored()) == "c1"
    assert machine.told() == [("AllocationRestored", "ns/web-0")]


def test_what_is_released_by_force_stays_so_once_the_pod_is_gone(machine: Machine) -> None:
    """Its namespace lingers, and somebody answers for its being dead (R8): the next pod is not to wait for it."""
    mine = machine.attach(machine.world.start(WEB, 0), "c1")
    machine.world.start(WEB, 0, node="n2")
    forced = machine.elsewhere.replace(
        msgspec.structs.replace(mine, phase=Phase.RETAINED, holder=None), cause="released by force by me"
    )
    machine.look()
    assert (machine.stored(), machine.told(), machine.repairs) == (forced, [], [])
    machine.store.replace(msgspec.structs.replace(mine, phase=Phase.RETAINED, holder=None), cause="DEL")
    machine.store.deliver()
    assert (machine.stored(), machine.claims.all()) == (forced, ())


def test_a_claim_on_paper_gives_way_to_an_interface_that_is_up(machine: Machine) -> None:
    """As a restored backup has it: the address was another replica's then, and kept for it."""
    machine.attach(machine.world.start(WEB, 0), "c1")
    machine.operator.delete(IPALLOCATIONS, "10.0.0.1")
    machine.elsewhere.create(allocation_of(Replica(WEB, 2), A1, None), cause="of a backup")
    machine.look()
    found = machine.stored()
    assert found is not None
    assert (found.slot.owner, held_by(found)) == (Replica(WEB, 0), "c1")
    assert "was Retained for ns/web-2 while" in machine.events[0].message


def test_an_older_copy_of_the_same_is_taken_as_it_is(machine: Machine) -> None:
    """The same holder at another version: nothing is written, and the next release names the version there is."""
    machine.attach(machine.world.start_stranger("job"), "c1")
    stored = machine.operator.get(IPALLOCATIONS, "10.0.0.1")
    assert stored is not None
    body = msgspec.json.decode(stored.body)
    machine.operator.delete(IPALLOCATIONS, "10.0.0.1")
    del body["metadata"]["resourceVersion"], body["metadata"]["uid"]
    restored = machine.operator.create(IPALLOCATIONS, body)
    machine.look()
    assert machine.told() == []
    (mine,) = machine.store.of_holder("c1", "net1")
    assert mine.version == int(restored.version)
    machine.store.delete(mine, cause="DEL")
    machine.store.deliver()
    assert machine.stored() is None


def test_what_others_noted_of_it_is_taken_over(machine: Machine) -> None:
    machine.attach(machine.world.start(WEB, 0), "c1")
    present = machine.stored()
    assert present is not None
    noted = msgspec.structs.replace(present, retention=Retention(when_deleted="Retain"))
    machine.elsewhere.replace(noted, cause="retention changed")
    machine.look()
    (mine,) = machine.store.of_holder("c1", "net1")
    assert mine.retention == Retention(when_deleted="Retain")
    assert mine == machine.stored()


def test_a_fresh_claim_is_not_looked_at_yet(machine: Machine) -> None:
    """The watch may not have told of it: that is no reason to ask."""
    pod = machine.world.start_stranger("job")
    machine.namespaces.add("/ns/c1")
    machine.objects.deliver()
    machine.store.create(allocation_of(owner_of(pod), A1, holder_of(pod, "c1", "n1")), cause="allocated")
    asked = len(machine.objects.calls)
    machine.holding.go_through()
    assert len(machine.objects.calls) == asked
    machine.clock.advance(hours=-3)  # a clock that was put right does not keep it from ever being looked at
    machine.operator.delete(IPALLOCATIONS, "10.0.0.1")
    machine.look()
    assert held_by(machine.stored()) == "c1"


def test_nothing_is_done_before_the_watch_has_listed(machine: Machine) -> None:
    pod = machine.world.start_stranger("job")
    machine.store.create(allocation_of(owner_of(pod), A1, holder_of(pod, "c1", "n1")), cause="allocated")
    machine.clock.advance(minutes=1)
    del machine.world.pods[pod.ref]
    machine.holding.go_through()
    assert machine.store.of_holder("c1", "net1")


def test_an_api_server_that_is_away_changes_nothing(machine: Machine) -> None:
    machine.attach(machine.world.start_stranger("job"), "c1")
    machine.operator.delete(IPALLOCATIONS, "10.0.0.1")
    machine.objects.deliver()
    machine.objects.reachable = False
    machine.holding.go_through()
    assert (machine.told(), held_by(machine.store.get("", A1))) == ([], "c1")
    machine.objects.reachable = True
    machine.round()
    assert machine.told() == [("AllocationRestored", "ns/job")]


@pytest.mark.parametrize("then", ["nothing", "a stranger's"])
def test_a_release_that_comes_in_the_middle_of_a_round_is_no_loss(machine: Machine, then: str) -> None:
    """The claim is looked at, its DEL is done and told, and only then the live answer comes."""
    pod, other = machine.world.start_stranger("job"), machine.world.start_stranger("other", node="n2")
    mine = machine.attach(pod, "c1")
    machine.operator.patch(IPALLOCATIONS, "10.0.0.1", {"status": {"cause": "noted by hand"}})
    machine.objects.deliver()

    def release(call: Call) -> None:
        machine.objects.on_call = lambda _call: None
        assert call.verb == "get"
        machine.store.delete(mine, cause="DEL")
        machine.store.deliver()
        if then != "nothing":
            machine.elsewhere.create(allocation_of(owner_of(other), A1, holder_of(other, "c9", "n2")), cause="x")

    machine.objects.on_call = release
    machine.round()
    machine.look()
    assert held_by(machine.stored()) == (None if then == "nothing" else "c9")
    assert (machine.told(), machine.repairs, machine.holding.conflicts) == ([], [], 0)


def test_one_that_cannot_be_judged_keeps_no_other_waiting(machine: Machine) -> None:
    machine.attach(machine.world.start_stranger("one"), "c1", A1)
    machine.attach(machine.world.start_stranger("two"), "c2", A2)
    machine.operator.patch(IPALLOCATIONS, "10.0.0.1", {"spec": {"address": "nonsense"}})
    machine.operator.delete(IPALLOCATIONS, "10.0.0.2")
    nonsense = machine.operator.get(IPALLOCATIONS, "10.0.0.1")
    machine.look()
    assert machine.told() == [("AllocationRestored", "ns/two")]
    assert machine.operator.get(IPALLOCATIONS, "10.0.0.1") == nonsense
    assert machine.holding.seen.unreadable == 1
    assert held_by(machine.store.get("", A1)) == "c1"


def test_a_watch_that_tells_nothing_any_more_is_begun_anew(tmp_path: Path) -> None:
    """A database that was set back has lower versions than the watch waits for."""
    machine = Machine(tmp_path)
    silent = list(machine.objects.watches)
    machine.attach(machine.world.start_stranger("job"), "c1")
    machine.operator.delete(IPALLOCATIONS, "10.0.0.1")
    machine.holding.go_through()
    assert machine.told() == []
    for watch in silent:
        watch.stop()
    machine.objects.threaded = True  # the next watch tells by itself
    machine.clock.advance(minutes=6)
    machine.holding.go_through()
    assert machine.told() == [("AllocationRestored", "ns/job")]
    machine.close()


# --- holders that are gone ---------------------------------------------------------------------------------------


def test_a_database_that_was_set_back_and_is_as_far_again_is_looked_at_anew(machine: Machine) -> None:
    """The watch goes on from a version that was given twice, and hears nothing of what was before it."""
    machine.attach(machine.world.start_stranger("job"), "c1")
    machine.objects.reachable = False
    machine.objects.deliver()
    del machine.server.objects[IPALLOCATIONS, "", "10.0.0.1"]  # nobody is told
    machine.objects.reachable = True
    machine.look()
    assert machine.told() == [("AllocationRestored", "ns/job")]
    assert held_by(machine.stored()) == "c1"


def test_a_holder_is_gone_when_its_namespace_and_its_pod_are(machine: Machine) -> None:
    pod = machine.world.start(WEB, 0)
    machine.attach(pod, "c1")
    machine.namespaces.clear()
    machine.look()
    assert held_by(machine.store.get("", A1)) == "c1", "its pod may get another sandbox"
    machine.world.unreachable = True
    machine.look()
    assert held_by(machine.store.get("", A1)) == "c1", "nobody says that the pod is gone"
    machine.world.unreachable = False
    machine.world.start(WEB, 0, node="n2")
    machine.look()
    machine.store.deliver()
    found = machine.stored()
    assert found is not None
    assert (found.phase, found.slot.owner) == (Phase.RETAINED, Replica(WEB, 0))
    assert machine.repairs == ["released"]


def test_a_static_pod_is_known_by_its_hash(machine: Machine) -> None:
    """The API server's copy of it has a UID of its own."""
    pod = machine.world.start_stranger("static")
    machine.attach(msgspec.structs.replace(pod, uid="hash"), "c1", owner=PodOwner("ns", "static", "hash"))
    machine.world.pods[pod.ref] = msgspec.structs.replace(pod, annotations={"kubernetes.io/config.hash": "hash"})
    machine.namespaces.clear()
    machine.look()
    assert held_by(machine.store.get("", A1)) == "c1"
    del machine.world.pods[pod.ref]
    machine.look()
    assert machine.stored() is None


def test_a_pod_that_finished_lets_go_with_its_namespace(machine: Machine) -> None:
    pod = machine.world.start_stranger("job")
    machine.attach(pod, "c1")
    machine.namespaces.clear()
    machine.world.pods[pod.ref] = msgspec.structs.replace(pod, phase="Succeeded")
    machine.look()
    machine.store.deliver()
    assert machine.stored() is None


def test_a_container_outside_kubernetes_is_gone_with_its_namespace(machine: Machine) -> None:
    pod = machine.world.start_stranger("job")
    machine.attach(pod, "c1", owner=ContainerOwner("c1"))
    machine.look()
    assert machine.stored() is not None
    machine.namespaces.clear()
    machine.look()
    machine.store.deliver()
    assert machine.stored() is None


def test_an_answer_that_was_lost_is_found_out_after_all(machine: Machine) -> None:
    """The ADD failed, its pod went away; then the request came through (P3)."""
    pod = machine.world.start_stranger("job")
    machine.objects.fail("create", "later", resource=IPALLOCATIONS)
    with pytest.raises(CniError):
        machine.store.create(allocation_of(owner_of(pod), A1, holder_of(pod, "c1", "n1")), cause="allocated")
    claim = machine.claims.find("", A1)
    assert claim is not None
    assert claim.state is State.CLAIMING
    machine.claims.swap(claim, None)  # as when the claims are lost as well
    del machine.world.pods[pod.ref]
    machine.clock.advance(minutes=1)
    machine.look()
    machine.objects.land()
    assert held_by(machine.stored()) == "c1"
    machine.look()
    assert machine.stored() is None
    assert machine.repairs == ["released"]


def test_a_claim_that_was_never_answered_goes_with_its_pod(machine: Machine) -> None:
    pod = machine.world.start_stranger("job")
    machine.objects.fail("create", "after", resource=IPALLOCATIONS)
    with pytest.raises(CniError):
        machine.store.create(allocation_of(owner_of(pod), A1, holder_of(pod, "c1", "n1")), cause="allocated")
    del machine.world.pods[pod.ref]
    machine.clock.advance(minutes=1)
    machine.look()
    machine.store.deliver()
    assert (machine.stored(), machine.claims.all()) == (None, ())


# --- what we know nothing of -------------------------------------------------------------------------------------


def bound_unknown(machine: Machine, pod: Pod, node: str = "n1") -> Allocation:
    """As if the node's claims had been lost."""
    return machine.elsewhere.create(allocation_of(owner_of(pod), A1, holder_of(pod, "c1", node)), cause="allocated")


def test_lost_claims_are_made_again(machine: Machine) -> None:
    found = bound_unknown(machine, machine.world.start(WEB, 0))
    machine.namespaces.add("/ns/c1")
    machine.look()
    assert machine.store.of_holder("c1", "net1") == (found,)
    assert machine.repairs == ["adopted"]
    machine.store.replace(msgspec.structs.replace(found, phase=Phase.RETAINED, holder=None), cause="DEL")
    machine.store.deliver()
    assert held_by(machine.stored()) is None


def test_a_watch_that_lags_brings_nothing_back(machine: Machine) -> None:
    """A DEL is told before its namespace goes; the watch has the allocation yet."""
    mine = machine.attach(machine.world.start_stranger("job"), "c1")
    machine.store.delete(mine, cause="DEL")
    machine.store.deliver()
    machine.round()
    assert (machine.claims.all(), machine.stored(), machine.repairs) == ((), None, [])


def test_the_unknown_are_let_go_on_proof_alone(machine: Machine) -> None:
    pod = machine.world.start_stranger("job")
    found = bound_unknown(machine, pod)
    machine.look()
    assert machine.stored() == found, "its pod is there"
    machine.world.unreachable = True
    machine.look()
    machine.world.unreachable = False
    assert machine.stored() == found, "nobody can say"
    del machine.world.pods[pod.ref]
    machine.look()
    assert machine.stored() is None


def test_another_nodes_holders_are_not_ours_to_judge(machine: Machine) -> None:
    pod = machine.world.start_stranger("job")
    found = bound_unknown(machine, pod, node="n2")
    machine.operator.patch(IPALLOCATIONS, "10.0.0.1", {"metadata": {"labels": {"homeport.dev/node": "n1"}}})
    del machine.world.pods[pod.ref]
    machine.look()
    assert held_by(machine.stored()) == held_by(found)


def test_an_address_that_a_namespace_has_by_its_result_stays(machine: Machine) -> None:
    """The claims were lost after a local binding under a newer container (P15)."""
    pod = machine.world.start_stranger("job")
    bound_unknown(machine, pod)
    del machine.world.pods[pod.ref]
    machine.namespaces.add("/ns/c2")
    key = AttachmentKey("net", "c2", "net1")
    result = {"cniVersion": "1.1.0", "ips": [{"address": "10.0.0.1/24"}]}
    machine.results.save(CachedAttachment(key=key, netns_path="/ns/c2", result=result))
    machine.look()
    assert held_by(machine.stored()) == "c1"
    machine.namespaces.clear()
    machine.look()
    assert machine.stored() is None


def test_a_result_that_cannot_be_read_may_be_of_any_address(machine: Machine) -> None:
    pod = machine.world.start_stranger("job")
    bound_unknown(machine, pod)
    del machine.world.pods[pod.ref]
    path = machine.results.path(AttachmentKey("net", "c2", "net1"))
    path.parent.mkdir(parents=True)
    path.write_text("{")
    machine.look()
    assert held_by(machine.stored()) == "c1"
    with pytest.raises(DecodeFailure):
        recorded_addresses(machine.results, machine.namespaces.__contains__)


# --- what another program attached, and a migration took over ---


def imported(machine: Machine, pod: Pod) -> Allocation:
    """As a migration makes it: the API server does not know the namespace."""
    holder = msgspec.structs.replace(holder_of(pod, "c1", "n1"), netns_path="")
    return machine.elsewhere.create(allocation_of(owner_of(pod), A1, holder), cause="imported")


def test_an_interface_that_was_taken_over_gets_its_namespace_from_the_result_of_its_add(machine: Machine) -> None:
    pod = machine.world.start_stranger("other")
    imported(machine, pod)
    machine.results.save(
        CachedAttachment(key=AttachmentKey("net", "c1", "net1"), result={"cniVersion": "1.0.0"}, netns_path="/ns/c1")
    )
    machine.namespaces.add("/ns/c1")
    machine.look()
    (held,) = machine.store.of_holder("c1", "net1")
    assert held.holder is not None
    assert held.holder.netns_path == "/ns/c1"
    assert machine.repairs == ["adopted"]
    machine.store.delete(held, cause="DEL")
    machine.store.deliver()
    assert machine.stored() is None


def test_an_interface_that_was_taken_over_and_has_no_result_is_left_alone(machine: Machine) -> None:
    pod = machine.world.start_stranger("other")
    made = imported(machine, pod)
    del machine.world.pods[pod.ref]
    machine.look()
    machine.look()
    assert machine.stored() == made


def test_a_result_of_another_interface_says_nothing(machine: Machine, tmp_path: Path) -> None:
    results = ResultCache(tmp_path / "other")
    results.save(
        CachedAttachment(key=AttachmentKey("net", "c1", "net2"), result={"cniVersion": "1.0.0"}, netns_path="/ns/c1")
    )
    assert recorded_netns(results, "c1", "net1") is None
    assert recorded_netns(results, "c1", "net2") == "/ns/c1"
    (results.directory / "net-c1-net1").write_bytes(b"broken")
    with pytest.raises(CniError):
        recorded_netns(results, "c1", "net1")
    assert recorded_netns(results, "c1", "net2") == "/ns/c1"
