"""An address that changes hands beside Whereabouts: what is taken over or removed, and what nobody answered for."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.stand_ins import START
from tests.stand_ins_coexisting import NAMESPACE, RANGE, Cluster, allocation
from tests.stand_ins_whereabouts import StorageEngineError, reconcile

from homeport.ipam.allocations import Allocation, Phase, released
from homeport.ipam.identities import Holder
from homeport.ipam.whereabouts import reservation_name
from homeport.model.errors import TryAgainLater, Unreachable
from homeport.ports import AlreadyExists, Conflict, Resource
from homeport.stores.claims import Claims
from homeport.stores.coexisting import CoexistingStore, mark_of
from homeport.stores.memory import MemoryStore
from homeport.stores.nodes import NodeStore
from homeport.stores.whereabouts import POOLS, RESERVATIONS, HeldByWhereabouts


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


# --- an address that changes hands ---


def test_the_entry_of_a_holder_that_is_proven_gone_becomes_ours(cluster: Cluster) -> None:
    """A pod's that ran on a node of Whereabouts and was imported: whoever replaces the holder has the proof."""
    cluster.whereabouts(RANGE).add("c0", "shop/web-0")
    imported = cluster.inner.create(allocation("10.0.0.1"), cause="imported")
    holder = Holder(container_id="new", ifname="net1", netns_path="/ns/new", node="n2", pod_uid="uid-new")
    moved = msgspec.structs.replace(imported, holder=holder, since=START + timedelta(hours=1))
    stored = cluster.store.replace(moved, cause="moved")
    assert cluster.entries("10.0.0.0-29")["1"] == {"id": mark_of(stored), "podref": ""}
    assert cluster.reservation("10.0.0.1") == {"podref": "homeport", "containerid": mark_of(stored)}


def test_a_later_container_of_the_same_pod_on_their_node_keeps_it(cluster: Cluster) -> None:
    cluster.whereabouts(RANGE).add("another", "shop/web-0")
    imported = cluster.inner.create(allocation("10.0.0.1"), cause="imported")
    moved = msgspec.structs.replace(imported, since=START + timedelta(hours=1))
    with pytest.raises(TryAgainLater, match="shop/web-0, container another"):
        cluster.store.replace(moved, cause="moved")
    assert cluster.inner.get("", ip_address("10.0.0.1")) == imported
    assert cluster.entries("10.0.0.0-29")["1"]["id"] == "another"


def test_letting_go_is_not_held_up_by_what_they_have(cluster: Cluster) -> None:
    bound = cluster.inner.create(allocation("10.0.0.1"), cause="before coexistence")
    cluster.whereabouts(RANGE).add("w1", "shop/old-1")
    left = released(bound, at=START + timedelta(hours=1))
    assert left is not None
    assert cluster.store.replace(left, cause="DEL").phase is Phase.RETAINED
    with pytest.raises(HeldByWhereabouts):
        cluster.store.protect(left)


def test_their_del_and_add_and_reconciler_never_touch_our_entry(cluster: Cluster) -> None:
    theirs = cluster.whereabouts(RANGE)
    ours = cluster.store.create(allocation("10.0.0.1"), cause="test")
    cluster.store.protect(ours)
    assert theirs.add("c0", "shop/web-0") != [ours.address], "the same pod's name on one of their nodes"
    cluster.store.protect(ours)  # as the keeper does, for a pool that is made later
    theirs.delete("c0")
    theirs.delete("c0")
    reconcile(cluster.objects, {})
    assert cluster.entries("10.0.0.0-29")["1"]["id"] == mark_of(ours)
    assert cluster.reservation("10.0.0.1") is None, "the reconciler removes every reservation that no live pod has"
    assert theirs.add("w2", "shop/old-2") == [ip_address("10.0.0.2")]
    cluster.store.protect(ours)
    assert cluster.reservation("10.0.0.1") is not None


def test_with_a_network_name_the_reconciler_removes_reservations_of_live_pods_too(cluster: Cluster) -> None:
    theirs = cluster.whereabouts(RANGE, network_name="blue")
    theirs.add("w1", "shop/old-1")
    ours = cluster.store.create(allocation("10.0.0.2", scope="blue"), cause="test")
    reconcile(cluster.objects, {"shop/old-1": ["10.0.0.1"], "shop/web-0": ["10.0.0.2"]})
    assert cluster.reservation("blue-10.0.0.1") is None
    assert cluster.reservation("blue-10.0.0.2") is None
    assert set(cluster.entries("blue-10.0.0.0-29")) == {"1", "2"}
    assert theirs.add("w2", "shop/old-2") == [ip_address("10.0.0.3")]
    cluster.store.delete(ours, cause="test")
    assert set(cluster.entries("blue-10.0.0.0-29")) == {"1", "3"}


# --- removing only what is ours ---


def test_a_late_release_leaves_the_next_claim_alone(cluster: Cluster) -> None:
    cluster.whereabouts(RANGE).add("w1", "shop/old-1")
    first = cluster.store.create(allocation("10.0.0.2"), cause="test")
    cluster.inner.delete(first, cause="released; telling Whereabouts is late")
    second = cluster.store.create(allocation("10.0.0.2", n=2), cause="test")
    with pytest.raises(Conflict):
        cluster.store.delete(first, cause="repeated")
    cluster.store.records.hand_over(("", first.address), mark_of(first), None)
    assert cluster.entries("10.0.0.0-29")["2"]["id"] == mark_of(second)
    assert cluster.reservation("10.0.0.2") == {"podref": "homeport", "containerid": mark_of(second)}


def test_a_late_release_leaves_the_same_container_s_next_claim_alone(cluster: Cluster) -> None:
    """An ADD that failed and is tried again has the same slot and holder, and another time."""
    cluster.whereabouts(RANGE).add("w1", "shop/old-1")
    first = cluster.store.create(allocation("10.0.0.2"), cause="test")
    cluster.inner.delete(first, cause="undone; telling Whereabouts is late")
    again = msgspec.structs.replace(first, since=START + timedelta(microseconds=1), version=0)
    second = cluster.store.create(again, cause="test")
    cluster.store.records.hand_over(("", first.address), mark_of(first), None)
    assert cluster.entries("10.0.0.0-29")["2"]["id"] == mark_of(second)


def test_a_write_that_nobody_answered_for_keeps_its_mark(cluster: Cluster) -> None:
    """It may yet be done (R12); one that certainly was not leaves nothing."""
    cluster.whereabouts(RANGE).add("w1", "shop/old-1")

    class Silent(MemoryStore):
        error: TryAgainLater = TryAgainLater("no answer")

        def create(self, allocation: Allocation, *, cause: str) -> Allocation:
            raise self.error

    inner = Silent()
    store = CoexistingStore(inner, cluster.objects, NAMESPACE)
    with pytest.raises(TryAgainLater):
        store.create(allocation("10.0.0.2"), cause="test")
    assert cluster.entries("10.0.0.0-29")["2"]["id"] == mark_of(allocation("10.0.0.2"))
    inner.error = Unreachable("connection refused")
    with pytest.raises(Unreachable):
        store.create(allocation("10.0.0.3"), cause="test")
    assert list(cluster.entries("10.0.0.0-29")) == ["1", "2"]


def test_a_release_that_could_not_tell_whereabouts_is_completed_by_its_repetition(cluster: Cluster) -> None:
    cluster.whereabouts(RANGE).add("w1", "shop/old-1")
    bound = cluster.store.create(allocation("10.0.0.2"), cause="test")
    cluster.objects.fail("list", "unreached")
    with pytest.raises(TryAgainLater, match="done, but") as caught:
        cluster.store.delete(bound, cause="DEL")
    assert not isinstance(caught.value, Unreachable)
    assert cluster.inner.get("", bound.address) is None
    with pytest.raises(Conflict):
        cluster.store.delete(bound, cause="DEL")
    assert list(cluster.entries("10.0.0.0-29")) == ["1"]
    assert cluster.reservation("10.0.0.2") is None


def test_a_lost_claim_hands_the_entry_to_who_was_first(cluster: Cluster) -> None:
    """Both found nothing, both wrote; the other's allocation came first."""
    cluster.whereabouts(RANGE).add("w1", "shop/old-1")
    winner = allocation("10.0.0.2", n=2)

    class Late(MemoryStore):
        def create(self, allocation: Allocation, *, cause: str) -> Allocation:
            if self.get(winner.scope, winner.address) is None:
                super().create(winner, cause="first")
            return super().create(allocation, cause=cause)

    inner = Late()
    with pytest.raises(AlreadyExists):
        CoexistingStore(inner, cluster.objects, NAMESPACE).create(allocation("10.0.0.2", n=3), cause="second")
    assert cluster.entries("10.0.0.0-29")["2"]["id"] == mark_of(winner)
    assert cluster.reservation("10.0.0.2") == {"podref": "homeport", "containerid": mark_of(winner)}


def test_a_claim_that_got_no_further_is_seen_before_it_is_told(cluster: Cluster) -> None:
    theirs = cluster.whereabouts(RANGE)
    theirs.add("w1", "shop/old-1")
    first = cluster.inner.create(allocation("10.0.0.2"), cause="test")
    again = msgspec.structs.replace(first, since=START + timedelta(hours=1), version=0)
    with pytest.raises(AlreadyExists) as caught:
        cluster.store.create(again, cause="again")
    assert caught.value.present == first
    assert cluster.entries("10.0.0.0-29")["2"]["id"] == mark_of(first)


def test_a_claim_that_got_no_further_and_was_overtaken_is_not_told(cluster: Cluster) -> None:
    first = cluster.inner.create(allocation("10.0.0.1"), cause="test")
    cluster.whereabouts(RANGE).add("w1", "shop/old-1")
    with pytest.raises(TryAgainLater, match="shop/old-1"):
        cluster.store.create(first, cause="again")


class LosingReplies(MemoryStore):
    """Does what it is told, and does not say so."""

    def create(self, allocation: Allocation, *, cause: str) -> Allocation:
        super().create(allocation, cause=cause)
        raise TryAgainLater("no answer")


@pytest.mark.parametrize("overtaken", [False, True])
def test_a_node_uses_what_it_got_no_answer_for_only_once_both_see_it(
    cluster: Cluster, tmp_path: Path, overtaken: bool
) -> None:
    """Between the allocation and the last look at its mark anything may end a claim."""
    theirs = cluster.whereabouts(RANGE)
    theirs.add("w1", "shop/old-1")
    remote = CoexistingStore(LosingReplies(), cluster.objects, NAMESPACE)
    claims = Claims(tmp_path / "claims.db")
    node = NodeStore(remote, claims, node="n1", confirm=remote.confirm)
    wanted = allocation("10.0.0.2")
    with pytest.raises(TryAgainLater):
        node.create(wanted, cause="test")
    remote.records.hand_over(("", wanted.address), mark_of(wanted), None)  # by another claim's release
    if overtaken:
        assert theirs.add("w2", "shop/old-2") == [wanted.address]
        with pytest.raises(TryAgainLater, match="shop/old-2"):
            node.of_slot(wanted.slot)
    else:
        (held,) = node.of_slot(wanted.slot)
        assert held.holder == wanted.holder
        assert cluster.entries("10.0.0.0-29")["2"]["id"] == mark_of(wanted)
    claims.close()


@pytest.mark.parametrize("resource", [POOLS, RESERVATIONS])
def test_what_was_done_is_never_told_as_not_sent(cluster: Cluster, resource: Resource) -> None:
    """Whoever hears `Unreachable` takes it that the allocation is as it was."""
    cluster.whereabouts(RANGE).add("w1", "shop/old-1")
    verb = "list" if resource is POOLS else "get"

    class Inner(MemoryStore):
        def create(self, allocation: Allocation, *, cause: str) -> Allocation:
            cluster.objects.fail(verb, "unreached", resource=resource)
            return super().create(allocation, cause=cause)

    inner = Inner()
    with pytest.raises(TryAgainLater) as caught:
        CoexistingStore(inner, cluster.objects, NAMESPACE).create(allocation("10.0.0.2"), cause="test")
    assert not isinstance(caught.value, Unreachable)
    assert inner.get("", ip_address("10.0.0.2")) is not None


def test_what_we_wrote_is_found_after_a_lost_reply(cluster: Cluster) -> None:
    """The API server did the patch, the client sent it twice: the second one is refused by its own test."""
    cluster.whereabouts(RANGE).add("w1", "shop/old-1")
    cluster.make(RESERVATIONS, "10.0.0.2", spec={"podref": "shop/elsewhere"})
    twice = cluster.objects.patch_json

    def patch_json(resource: Resource, name: str, operations: Any, *, namespace: str = "") -> Any:
        twice(resource, name, operations, namespace=namespace)
        return twice(resource, name, operations, namespace=namespace)

    cluster.objects.patch_json = patch_json  # type: ignore[method-assign]
    with pytest.raises(AlreadyExists):
        cluster.store.create(allocation("10.0.0.2"), cause="test")
    cluster.objects.patch_json = twice  # type: ignore[method-assign]
    assert list(cluster.entries("10.0.0.0-29")) == ["1"]


def test_their_pod_that_chose_at_the_same_moment_fails_and_does_not_share(cluster: Cluster) -> None:
    """Their pool was made after we looked: the reservation is ours, and theirs never comes to be."""
    ours = cluster.store.create(allocation("10.0.0.1"), cause="test")
    theirs = cluster.whereabouts(RANGE)
    cluster.objects.delete(RESERVATIONS, reservation_name("", ours.address), namespace=NAMESPACE)
    pool: dict[str, Any] = {
        "range": RANGE,
        "allocations": {"1": {"id": "w1", "podref": "shop/old-1", "ifname": "net1"}},
    }
    cluster.make(POOLS, "10.0.0.0-29", spec=pool)
    cluster.make(RESERVATIONS, "10.0.0.1", spec={"podref": "homeport", "containerid": mark_of(ours)})
    with pytest.raises(StorageEngineError):
        theirs.add("w2", "shop/old-1")
