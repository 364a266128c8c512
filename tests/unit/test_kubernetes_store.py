"""The store on an API server in memory: how many requests each operation takes, and what lost replies come to."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from ipaddress import ip_address

import msgspec
import pytest
from tests.contract.test_allocation_store import allocation as plain_allocation
from tests.stand_ins_objects import Call, Fate, MemoryObjects, MemoryServer

from homeport.ipam.allocations import Allocation, Phase, released
from homeport.ipam.identities import Holder, Owner, PodOwner, Replica, Slot, Workload
from homeport.ipam.ranges import Span
from homeport.model.errors import DecodeFailure, TryAgainLater, Unreachable
from homeport.ports import AlreadyExists, Conflict, Resource
from homeport.stores.kubernetes import names
from homeport.stores.kubernetes.resources import IPALLOCATIONS, IPSLOTS
from homeport.stores.kubernetes.store import KubernetesStore

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
WEB = Replica(Workload("shop", "StatefulSet", "web"), 0)
SLOT = Slot(WEB, "lan", "net1")
HOME = ("", ip_address("10.9.0.1"))


def pod(name: str = "p") -> PodOwner:
    return PodOwner("shop", name, f"uid-{name}")


def holder(container_id: str = "c1", node: str = "n1", mac: str | None = None) -> Holder:
    found = Holder(container_id=container_id, ifname="net1", netns_path="/run/netns/x", node=node, pod_uid="u1")
    return msgspec.structs.replace(found, mac=mac)


def allocation(text: str = "10.9.0.1", owner: Owner = WEB, **fields: object) -> Allocation:
    return msgspec.structs.replace(plain_allocation(text, owner, network="lan"), **fields)


def retained(bound: Allocation) -> Allocation:
    left = released(bound, at=NOW)
    assert left is not None
    return left


class Node:
    """A store with a client of its own, and the requests it sent since they were last asked for."""

    def __init__(self, server: MemoryServer | None = None) -> None:
        self.objects = MemoryObjects(server)
        self.store = KubernetesStore(self.objects)

    def sent(self) -> list[str]:
        calls, self.objects.calls = self.objects.calls, []
        return [f"{c.verb} {c.resource.plural}" for c in calls]


# --- what each operation costs ---


def test_a_replica_that_returns_takes_two_requests() -> None:
    first = Node()
    kept = first.store.replace(retained(first.store.create(allocation(), cause="allocated")), cause="DEL")
    node = Node(first.objects.server)
    assert node.store.of_slot(SLOT, likely=[HOME]) == (kept,)
    taken = msgspec.structs.replace(kept, phase=Phase.BOUND, holder=holder("c2"))
    assert node.store.replace(taken, cause="returned").is_held_by("c2", "net1")
    assert node.sent() == ["get ipallocations", "patch ipallocations"]


def test_the_first_address_of_a_replica_is_noted_before_it_is_claimed() -> None:
    node = Node()
    assert node.store.of_slot(SLOT, likely=[HOME]) == ()
    node.store.create(allocation(), cause="allocated")
    assert node.sent() == ["get ipallocations", "get ipslots", "create ipslots", "create ipallocations"]
    node.store.create(allocation("fd00::1"), cause="allocated")
    assert node.sent() == ["patch ipslots", "create ipallocations"], "the record is remembered"


def test_any_other_pod_takes_one_request() -> None:
    node = Node()
    node.store.lowest_free("", Span(ip_address("10.9.0.1"), ip_address("10.9.0.9")), [], count=8)
    assert node.sent() == ["names ipallocations"], "there is no hint: once"
    for number in range(1, 6):
        found = node.store.lowest_free("", Span(ip_address("10.9.0.1"), ip_address("10.9.0.9")), [], count=8)
        assert found[0] == ip_address(f"10.9.0.{number}")
        made = node.store.create(allocation(str(found[0]), pod(f"p{number}")), cause="allocated")
        assert node.sent() == ["create ipallocations"]
    node.store.delete(made, cause="DEL")
    assert node.sent() == ["delete ipallocations"]
    assert node.store.lowest_free("", Span(ip_address("10.9.0.1"), ip_address("10.9.0.9")), []) == (made.address,)
    assert node.sent() == []


def test_a_deletion_says_why_before_it_is_done(wait_until: Callable[..., None]) -> None:
    node = Node()
    made = node.store.create(allocation(), cause="allocated")
    told: list[bytes] = []
    watch = node.objects.watch(IPALLOCATIONS, on_change=lambda _: None, on_gone=lambda o: told.append(o.body))
    assert watch.wait_listed(5.0)
    node.sent()
    node.store.delete(made, cause="scaled")
    assert node.sent() == ["patch ipallocations", "delete ipallocations"]
    wait_until(lambda: told)
    watch.stop()
    assert [msgspec.json.decode(body)["status"]["cause"] for body in told] == ["scaled"]


def test_the_addresses_of_a_slot_are_found_wherever_they_are() -> None:
    node = Node()
    unlikely = node.store.create(allocation("10.9.0.7"), cause="allocated")
    assert Node(node.objects.server).store.of_slot(SLOT) == (unlikely,)
    stranger = node.store.create(allocation(owner=pod()), cause="allocated")
    asking = Node(node.objects.server)
    assert asking.store.of_slot(SLOT, likely=[(stranger.scope, stranger.address)]) == (unlikely,)
    assert asking.sent() == ["get ipallocations", "get ipslots", "get ipallocations"]


def test_the_node_of_the_last_holder_stays_known() -> None:
    node = Node()
    kept = node.store.replace(retained(node.store.create(allocation(), cause="allocated")), cause="DEL")
    assert node.store.of_node("n1") == ()
    stored = node.objects.get(IPALLOCATIONS, "10.9.0.1")
    assert stored is not None
    body = msgspec.json.decode(stored.body)
    assert body["status"]["node"] == "n1"
    assert body["metadata"]["labels"][names.NODE] == "n1"
    assert names.HOLDER not in body["metadata"]["labels"]
    moved = msgspec.structs.replace(kept, phase=Phase.BOUND, holder=holder("c2", "n2"))
    returned = node.store.replace(moved, cause="returned")
    assert node.store.of_node("n2") == (returned,)


def test_nothing_of_a_former_holder_or_owner_is_left_in_an_object() -> None:
    """A merge patch keeps what it does not mention."""
    node = Node()
    full = allocation(holder=holder(mac="02:00:00:00:00:01"), mac="02:00:00:00:00:01", workload_uid="w1")
    made = node.store.create(full, cause="allocated")
    other = allocation(owner=pod(), holder=holder("c2"), version=made.version)
    changed = node.store.replace(other, cause="mapped")
    assert changed == msgspec.structs.replace(other, version=changed.version)
    assert node.store.get(*HOME) == changed
    assert node.store.of_workload(WEB.workload) == ()


# --- lost replies, and requests that may have been done ---


def repeated(objects: MemoryObjects, verb: str) -> Callable[[Call], None]:
    """The client's own repetition of a request whose reply was lost: done twice, and the second answer is told."""
    done: Counter[str] = Counter()

    def on_done(call: Call) -> None:
        done[call.verb] += 1
        if call.verb == verb and call.resource == IPALLOCATIONS and done[verb] == 1:
            if verb == "create":
                objects.create(call.resource, call.body)
            else:
                objects.patch(call.resource, call.name, call.body, version=call.version)

    return on_done


def test_a_claim_whose_reply_was_lost_is_found_to_be_done() -> None:
    node = Node()
    node.objects.on_done = repeated(node.objects, "create")
    made = node.store.create(allocation(), cause="allocated")
    assert node.store.get(*HOME) == made


def test_a_change_whose_reply_was_lost_is_found_to_be_done() -> None:
    node = Node()
    made = node.store.create(allocation(), cause="allocated")
    node.objects.on_done = repeated(node.objects, "patch")
    kept = node.store.replace(retained(made), cause="DEL")
    assert node.store.get(*HOME) == kept
    node.objects.on_done = repeated(node.objects, "patch")
    node.store.delete(kept, cause="scaled")
    assert node.store.get(*HOME) is None


def test_the_same_claim_made_twice_is_no_lost_reply() -> None:
    node = Node()
    made = node.store.create(allocation(), cause="allocated")
    with pytest.raises(AlreadyExists) as refused:
        node.store.create(allocation(), cause="allocated")
    assert refused.value.present == made


@pytest.mark.parametrize("fate", ["before", "after", "later"])
@pytest.mark.parametrize("resource", [IPSLOTS, IPALLOCATIONS], ids=lambda r: r.plural)
def test_a_claim_of_unknown_outcome_is_neither(resource: Resource, fate: Fate) -> None:
    """Tried again, whatever became of it, the slot has one address and knows it."""
    node = Node()
    node.objects.fail("create", fate, resource=resource)
    with pytest.raises(TryAgainLater):
        node.store.create(allocation(), cause="allocated")
    node.objects.land()
    again = Node(node.objects.server)
    if not again.store.of_slot(SLOT, likely=[HOME]):
        again.store.create(allocation(), cause="allocated")
    assert [a.address for a in again.store.of_slot(SLOT)] == [HOME[1]]
    assert len(tuple(again.store.all())) == 1


def test_what_was_never_sent_says_so() -> None:
    node = Node()
    node.objects.reachable = False
    with pytest.raises(Unreachable):
        node.store.create(allocation(owner=pod()), cause="allocated")


def test_a_failed_question_is_no_absence() -> None:
    """R12."""
    node = Node()
    made = node.store.create(allocation("10.9.0.7"), cause="allocated")
    for verb, question in (
        ("get", lambda: node.store.get(*HOME)),
        ("get", lambda: node.store.of_slot(SLOT)),
        ("list", lambda: node.store.of_owner(WEB)),
        ("list", lambda: node.store.of_slot(Slot(pod(), "lan", "net1"))),
        ("names", lambda: node.store.lowest_free("", Span(*[made.address] * 2), [])),
        ("list", lambda: tuple(node.store.ledger())),
    ):
        node.objects.fail(verb)
        with pytest.raises(TryAgainLater):
            question()


def test_what_was_never_stored_cannot_be_changed() -> None:
    node = Node()
    node.store.create(allocation(), cause="allocated")
    node.sent()
    for act in (
        lambda: node.store.replace(allocation(), cause="x"),
        lambda: node.store.delete(allocation(), cause="x"),
        lambda: node.store.delete(allocation(), cause="DEL"),
    ):
        with pytest.raises(Conflict):
            act()
    assert node.sent() == [], "the API server takes no version for any version"


def test_an_address_that_comes_and_goes_is_given_up_in_the_end() -> None:
    seconds = iter(range(100))
    objects = MemoryObjects()
    store = KubernetesStore(objects, monotonic=lambda: float(next(seconds)))
    other = KubernetesStore(MemoryObjects(objects.server))

    def come(call: Call) -> None:
        if call.verb == "create":
            other.create(allocation(owner=pod("other")), cause="comes")

    def go(call: Call) -> None:
        if call.verb == "create":
            present = other.get(*HOME)
            assert present is not None
            other.delete(present, cause="goes")

    objects.on_call, objects.on_done = come, go
    with pytest.raises(TryAgainLater, match=r"claim 10\.9\.0\.1"):
        store.create(allocation(owner=pod()), cause="allocated")


# --- records of slots ---


def places(node: Node, slot: Slot = SLOT) -> list[str]:
    stored = node.objects.get(IPSLOTS, names.slot_name(slot))
    assert stored is not None
    return [place["address"] for place in msgspec.json.decode(stored.body)["spec"]["addresses"]]


def test_a_record_names_all_places_whoever_writes_it() -> None:
    one = Node()
    two = Node(one.objects.server)
    one.store.create(allocation("10.9.0.1"), cause="allocated")
    two.store.create(allocation("10.9.0.2"), cause="allocated")
    one.store.create(allocation("10.9.0.3"), cause="allocated")
    assert places(one) == ["10.9.0.1", "10.9.0.2", "10.9.0.3"]


def test_an_address_that_a_map_gives_to_another_replica_is_noted_for_that_one() -> None:
    node = Node()
    kept = node.store.replace(retained(node.store.create(allocation(), cause="allocated")), cause="DEL")
    other = Slot(Replica(WEB.workload, 1), "lan", "net1")
    node.sent()
    moved = node.store.replace(msgspec.structs.replace(kept, slot=other), cause="mapped")
    assert node.sent() == ["create ipslots", "patch ipallocations"]
    assert Node(node.objects.server).store.of_slot(other) == (moved,)
    assert Node(node.objects.server).store.of_slot(SLOT) == ()


def test_what_this_process_has_not_seen_is_looked_at_before_it_is_changed() -> None:
    """It may be another slot's."""
    kept = Node()
    made = kept.store.create(allocation(), cause="allocated")
    restarted = Node(kept.objects.server)
    left = restarted.store.replace(retained(made), cause="DEL")
    assert restarted.sent() == ["get ipallocations", "patch ipallocations"]
    restarted.store.replace(msgspec.structs.replace(left, phase=Phase.BOUND, holder=holder("c2")), cause="returned")
    assert restarted.sent() == ["patch ipallocations"]


def test_every_claim_makes_a_new_version_of_the_record() -> None:
    """Else the controller, which removes records of no use, could remove it between the note and the claim."""
    node = Node()
    made = node.store.create(allocation(), cause="allocated")
    node.store.delete(made, cause="DEL")
    before = node.objects.get(IPSLOTS, names.slot_name(SLOT))
    node.store.create(allocation(), cause="allocated")
    after = node.objects.get(IPSLOTS, names.slot_name(SLOT))
    assert before is not None
    assert after is not None
    assert before.version != after.version
    assert places(node) == ["10.9.0.1"]


def test_a_record_that_was_removed_is_written_again() -> None:
    node = Node()
    made = node.store.create(allocation(), cause="allocated")
    node.store.delete(made, cause="DEL")
    node.objects.delete(IPSLOTS, names.slot_name(SLOT))
    node.store.create(allocation(), cause="allocated")
    assert places(node) == ["10.9.0.1"]


def test_a_record_strikes_places_only_when_there_are_many_and_on_proof() -> None:
    node = Node()
    node.store.create(allocation("10.9.0.200"), cause="allocated")
    for number in range(1, 32):
        node.store.create(allocation(f"10.9.1.{number}", pod(f"p{number}")), cause="allocated")
        with pytest.raises(AlreadyExists):
            node.store.create(allocation(f"10.9.1.{number}"), cause="allocated")
    assert len(places(node)) == 32
    node.objects.fail("get", name="10.9.1.5")
    with pytest.raises(TryAgainLater):
        node.store.create(allocation("10.9.0.201"), cause="allocated")
    assert len(places(node)) == 32
    node.store.create(allocation("10.9.0.201"), cause="allocated")
    # The newer half stays: another attempt at the slot may be about to claim one of them.
    assert places(node) == ["10.9.0.200", *(f"10.9.1.{n}" for n in range(16, 32)), "10.9.0.201"]


def test_a_record_of_another_slot_under_the_name_is_an_error() -> None:
    node = Node()
    node.store.create(allocation(), cause="allocated")
    node.objects.patch(IPSLOTS, names.slot_name(SLOT), {"spec": {"network": "other"}})
    with pytest.raises(DecodeFailure, match="ipslots web-0-"):
        Node(node.objects.server).store.of_slot(SLOT)


def test_threads_share_a_store() -> None:
    node = Node()
    addresses = [f"10.9.0.{n}" for n in range(1, 9)]

    def claim(text: str) -> None:
        node.store.create(allocation(text), cause="allocated")

    threads = [threading.Thread(target=claim, args=(text,)) for text in addresses]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(places(node)) == addresses
    assert [str(a.address) for a in node.store.of_slot(SLOT)] == addresses
