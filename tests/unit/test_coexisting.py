"""Our nodes and Whereabouts' in one cluster: what each sees of the other, and what it may take or remove."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.stand_ins import START
from tests.stand_ins_objects import MemoryObjects, MemoryServer
from tests.stand_ins_whereabouts import StorageEngineError, WhereaboutsNode, reconcile

from homeport.ipam.allocations import Allocation, Phase, released
from homeport.ipam.identities import Holder, PodOwner, Replica, Slot, Workload
from homeport.ipam.ranges import Span
from homeport.ipam.whereabouts import reservation_name
from homeport.model.errors import DecodeFailure, TryAgainLater, Unreachable, UnsupportedField
from homeport.ports import AlreadyExists, Conflict, Resource
from homeport.stores.claims import Claims
from homeport.stores.coexisting import CoexistingStore, mark_of
from homeport.stores.memory import MemoryStore
from homeport.stores.nodes import NodeStore
from homeport.stores.whereabouts import POOLS, RESERVATIONS, SLICES, HeldByWhereabouts

NAMESPACE = "kube-system"
RANGE = "10.0.0.0/29"  # six addresses
WEB = Replica(Workload("shop", "StatefulSet", "web"), 0)


class Cluster:
    """One API server; `store` is our nodes', and `whereabouts` makes a node of the others'."""

    def __init__(self) -> None:
        self.server = MemoryServer()
        self.objects = MemoryObjects(self.server)
        self.inner = MemoryStore()
        self.store = CoexistingStore(self.inner, self.objects, NAMESPACE)

    def whereabouts(self, *ranges: str, **settings: Any) -> WhereaboutsNode:
        return WhereaboutsNode(MemoryObjects(self.server), *ranges, **settings)

    def entries(self, pool: str) -> Mapping[str, Any]:
        found = self.objects.get(POOLS, pool, namespace=NAMESPACE)
        assert found is not None
        entries: Mapping[str, Any] = msgspec.json.decode(found.body)["spec"]["allocations"]
        return entries

    def reservation(self, name: str) -> Mapping[str, Any] | None:
        found = self.objects.get(RESERVATIONS, name, namespace=NAMESPACE)
        return msgspec.json.decode(found.body)["spec"] if found is not None else None

    def make(self, resource: Resource, name: str, **content: Any) -> None:
        self.objects.create(resource, {"metadata": {"name": name}, **content}, namespace=NAMESPACE)


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def allocation(address: str, *, n: int = 0, scope: str = "", phase: Phase = Phase.BOUND) -> Allocation:
    """Of replica `n`, held by container c`n`."""
    holder = Holder(container_id=f"c{n}", ifname="net1", netns_path=f"/ns/{n}", node="n1", pod_uid=f"uid-{n}")
    return Allocation(
        scope=scope,
        address=ip_address(address),
        slot=Slot(Replica(WEB.workload, n), "net", "net1"),
        phase=phase,
        holder=holder if phase is Phase.BOUND else None,
        since=START + timedelta(seconds=n),
    )


def span(text: str) -> Span:
    network = ip_network(text)
    return Span(network[1], network[-2])


# --- seen by the others ---


def test_a_claim_stands_in_the_pool_and_as_a_reservation(cluster: Cluster) -> None:
    theirs = cluster.whereabouts(RANGE)
    assert theirs.add("w1", "shop/old-1") == [ip_address("10.0.0.1")]
    ours = cluster.store.create(allocation("10.0.0.2"), cause="test")
    assert cluster.entries("10.0.0.0-29")["2"] == {"id": mark_of(ours), "podref": ""}
    assert cluster.reservation("10.0.0.2") == {"podref": "homeport", "containerid": mark_of(ours)}
    assert theirs.add("w2", "shop/old-2") == [ip_address("10.0.0.3")]


def test_without_a_pool_the_reservation_keeps_the_address(cluster: Cluster) -> None:
    cluster.store.create(allocation("10.0.0.1"), cause="test")
    assert cluster.whereabouts(RANGE).add("w1", "shop/old-1") == [ip_address("10.0.0.2")]


def test_where_ranges_may_overlap_the_pool_alone_decides(cluster: Cluster) -> None:
    cluster.store.create(allocation("10.0.0.1", scope=f"#{RANGE}"), cause="test")
    assert cluster.reservation("10.0.0.1") is None
    theirs = cluster.whereabouts(RANGE, overlapping=False)
    assert theirs.add("w1", "shop/old-1") == [ip_address("10.0.0.2")]


def test_every_pool_that_has_the_address_is_told(cluster: Cluster) -> None:
    wide, narrow = cluster.whereabouts("10.0.0.0/28"), cluster.whereabouts(RANGE)
    wide.add("w1", "shop/old-1")
    narrow.add("w2", "shop/old-2")
    cluster.store.create(allocation("10.0.0.3"), cause="test")
    assert "3" in cluster.entries("10.0.0.0-28")
    assert "3" in cluster.entries("10.0.0.0-29")


def test_another_network_name_is_another_matter(cluster: Cluster) -> None:
    other = cluster.whereabouts(RANGE, network_name="blue")
    assert other.add("w1", "shop/old-1") == [ip_address("10.0.0.1")]
    cluster.store.create(allocation("10.0.0.1"), cause="test")
    with pytest.raises(AlreadyExists):
        cluster.store.create(allocation("10.0.0.1", scope="blue"), cause="test")
    ours = cluster.store.create(allocation("10.0.0.2", n=2, scope="blue"), cause="test")
    assert cluster.entries("blue-10.0.0.0-29")["2"]["id"] == mark_of(ours)
    assert cluster.reservation("blue-10.0.0.2") is not None


def test_ipv6(cluster: Cluster) -> None:
    theirs = cluster.whereabouts("fd00:70::/64")
    assert theirs.add("w1", "shop/old-1") == [ip_address("fd00:70::1")]
    cluster.store.create(allocation("fd00:70::2"), cause="test")
    assert cluster.reservation("fd00-70--2") is not None
    assert theirs.add("w2", "shop/old-2") == [ip_address("fd00:70::3")]


def test_letting_go_keeps_a_replica_s_address_from_the_others(cluster: Cluster) -> None:
    theirs = cluster.whereabouts(RANGE)
    theirs.add("w1", "shop/old-1")
    bound = cluster.store.create(allocation("10.0.0.2"), cause="test")
    left = released(bound, at=START + timedelta(hours=1))
    assert left is not None
    retained = cluster.store.replace(left, cause="DEL")
    assert cluster.entries("10.0.0.0-29")["2"]["id"] == mark_of(retained) != mark_of(bound)
    assert theirs.add("w2", "shop/old-2") == [ip_address("10.0.0.3")]


def test_a_release_gives_the_address_back(cluster: Cluster) -> None:
    theirs = cluster.whereabouts(RANGE)
    theirs.add("w1", "shop/old-1")
    bound = cluster.store.create(allocation("10.0.0.2"), cause="test")
    cluster.store.delete(bound, cause="DEL")
    assert list(cluster.entries("10.0.0.0-29")) == ["1"]
    assert cluster.reservation("10.0.0.2") is None
    assert theirs.add("w2", "shop/old-2") == [ip_address("10.0.0.2")]


def test_what_a_claim_costs(cluster: Cluster) -> None:
    """docs/migration.md says so: beside our own store's requests."""
    cluster.whereabouts(RANGE).add("w1", "shop/old-1")
    cluster.objects.calls.clear()
    bound = cluster.store.create(allocation("10.0.0.2"), cause="test")
    assert [(c.verb, c.resource.plural[:2]) for c in cluster.objects.calls] == [
        ("list", "ip"),
        ("patch_json", "ip"),
        ("create", "ov"),
        ("list", "ip"),
        ("get", "ov"),
    ]
    left = released(bound, at=START + timedelta(hours=1))
    assert left is not None
    cluster.objects.calls.clear()
    retained = cluster.store.replace(left, cause="DEL")
    assert [c.verb for c in cluster.objects.calls] == ["list", "patch_json", "create", "get", "patch"]
    cluster.objects.calls.clear()
    cluster.store.delete(retained, cause="test")
    assert [c.verb for c in cluster.objects.calls] == ["list", "patch_json", "get", "delete"]


# --- what they have ---


def test_an_address_of_theirs_is_taken(cluster: Cluster) -> None:
    cluster.whereabouts(RANGE).add("w1", "shop/old-1")
    with pytest.raises(AlreadyExists) as caught:
        cluster.store.create(allocation("10.0.0.1"), cause="test")
    present = caught.value.present
    assert present.slot.owner == PodOwner("shop", "old-1", "")
    assert present.holder is not None
    assert present.holder.container_id == "w1"
    assert cluster.inner.get("", ip_address("10.0.0.1")) is None
    assert cluster.entries("10.0.0.0-29")["1"] == {"id": "w1", "podref": "shop/old-1", "ifname": "net1"}


def test_a_reservation_alone_keeps_an_address_from_us(cluster: Cluster) -> None:
    cluster.whereabouts(RANGE).add("w1", "shop/old-1")
    cluster.make(RESERVATIONS, "10.0.0.2", spec={"podref": "shop/elsewhere"})
    with pytest.raises(AlreadyExists):
        cluster.store.create(allocation("10.0.0.2"), cause="test")
    assert list(cluster.entries("10.0.0.0-29")) == ["1"], "what was written before is taken back"


def test_a_search_passes_over_what_they_have(cluster: Cluster) -> None:
    theirs = cluster.whereabouts(RANGE)
    theirs.add("w1", "shop/old-1")
    theirs.add("w2", "shop/old-2")
    assert cluster.store.lowest_free("", span(RANGE), (), count=2) == (ip_address("10.0.0.3"), ip_address("10.0.0.4"))


def test_a_search_passes_over_what_a_reservation_alone_kept_from_us(cluster: Cluster) -> None:
    cluster.make(RESERVATIONS, "10.0.0.1", spec={"podref": "shop/elsewhere"})
    with pytest.raises(AlreadyExists):
        cluster.store.create(allocation("10.0.0.1"), cause="test")
    assert cluster.store.lowest_free("", span(RANGE), ()) == (ip_address("10.0.0.2"),)


def test_an_entry_without_pod_is_somebody_s(cluster: Cluster) -> None:
    cluster.make(
        POOLS, "10.0.0.0-29", spec={"range": RANGE, "allocations": {"1": {"id": "", "podref": ""}, "2": {"id": "x"}}}
    )
    for address in ("10.0.0.1", "10.0.0.2"):
        with pytest.raises(AlreadyExists):
            cluster.store.create(allocation(address), cause="test")


@pytest.mark.parametrize("key", ["x", "1.5", "", "-1", str(1 << 63), "0x2"])
def test_a_key_that_is_no_number_is_nobody_s_and_stays(cluster: Cluster, key: str) -> None:
    entry = {"id": "w1", "podref": "shop/old-1"}
    cluster.make(POOLS, "10.0.0.0-29", spec={"range": RANGE, "allocations": {key: entry}})
    cluster.store.create(allocation("10.0.0.1"), cause="test")
    assert cluster.entries("10.0.0.0-29")[key] == entry


def test_a_key_with_leading_zeros_is_the_number_that_go_reads(cluster: Cluster) -> None:
    entry = {"id": "w1", "podref": "shop/old-1"}
    cluster.make(POOLS, "10.0.0.0-29", spec={"range": RANGE, "allocations": {"+03": entry}})
    with pytest.raises(AlreadyExists):
        cluster.store.create(allocation("10.0.0.3"), cause="test")


@pytest.mark.parametrize("range_", ["", "10.0.0.0", "10.0.1.0/29", "nonsense/29"])
def test_a_pool_that_cannot_be_read_stops_every_claim(cluster: Cluster, range_: str) -> None:
    cluster.make(POOLS, "10.0.0.0-29", spec={"range": range_, "allocations": {}})
    with pytest.raises(DecodeFailure, match=r'"10\.0\.0\.0-29"'):
        cluster.store.create(allocation("10.0.0.1"), cause="test")
    assert cluster.reservation("10.0.0.1") is None


def test_the_upper_half_of_ipv6_is_not_given_out(cluster: Cluster) -> None:
    theirs = cluster.whereabouts("fd00:70::/64")
    theirs.add("w1", "shop/old-1")
    upper = "fd00:70::8000:0:0:0"
    with pytest.raises(UnsupportedField, match="fd00-70---64"):
        cluster.store.create(allocation(upper), cause="test")
    assert cluster.store.lowest_free("", Span(ip_address(upper), ip_address(upper) + 5), ()) == ()


def test_node_slices_are_honoured_and_told(cluster: Cluster) -> None:
    cluster.make(
        SLICES,
        "net",
        spec={"range": "10.0.0.0/28", "sliceSize": "/29"},
        status={
            "allocations": [{"nodeName": "n7", "sliceRange": RANGE}, {"nodeName": "", "sliceRange": "10.0.0.8/29"}]
        },
    )
    theirs = cluster.whereabouts(RANGE, slice_of="n7")
    theirs.add("w1", "shop/old-1")
    assert [p.name for p in cluster.store.records.pools("")] == ["n7-10.0.0.0-29"]
    with pytest.raises(AlreadyExists):
        cluster.store.create(allocation("10.0.0.1"), cause="test")
    cluster.store.create(allocation("10.0.0.2"), cause="test")
    assert theirs.add("w2", "shop/old-2") == [ip_address("10.0.0.3")]


def test_a_pool_of_no_slice_is_another_network_s(cluster: Cluster) -> None:
    theirs = cluster.whereabouts(RANGE, network_name="n7")
    theirs.add("w1", "shop/old-1")
    assert cluster.store.create(allocation("10.0.0.1"), cause="test").version


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
