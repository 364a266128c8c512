"""Whereabouts' objects are brought in line with our allocations, pass by pass; what is not ours is never touched."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import ip_address
from typing import Any

import msgspec
import pytest
from tests.stand_ins import START
from tests.stand_ins_objects import MemoryObjects
from tests.stand_ins_whereabouts import WhereaboutsNode, reconcile

from homeport.ipam.allocations import Allocation, Phase
from homeport.ipam.identities import Replica, Slot, Workload
from homeport.model.errors import DecodeFailure
from homeport.stores.coexisting import CoexistingStore, mark_of
from homeport.stores.keeping_coexistence import ORPHAN_SECONDS, CoexistenceKeeper
from homeport.stores.memory import MemoryStore
from homeport.stores.whereabouts import POOLS, RESERVATIONS, SLICES

RANGE = "10.0.0.0/29"
POOL = "10.0.0.0-29"
WEB = Workload("shop", "StatefulSet", "web")


class Cluster:
    def __init__(self) -> None:
        self.objects = MemoryObjects()
        self.inner = MemoryStore()
        self.store = CoexistingStore(self.inner, self.objects)
        self.seconds = 0.0
        self.keeper = CoexistenceKeeper(self.store, monotonic=lambda: self.seconds)

    def theirs(self, range_: str = RANGE, **settings: Any) -> WhereaboutsNode:
        return WhereaboutsNode(self.objects, range_, **settings)

    def entries(self, name: str = POOL) -> dict[str, Any]:
        found = self.objects.get(POOLS, name, namespace="kube-system")
        assert found is not None
        entries: dict[str, Any] = msgspec.json.decode(found.body)["spec"]["allocations"]
        return entries

    def reservations(self) -> list[str]:
        return [o.name for o in self.objects.list(RESERVATIONS)]

    def later(self, seconds: float = ORPHAN_SECONDS) -> None:
        self.seconds += seconds


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def retained(address: str, ordinal: int = 0, scope: str = "") -> Allocation:
    slot = Slot(Replica(WEB, ordinal), "net", "net1")
    since = START + timedelta(seconds=ordinal)
    return Allocation(scope=scope, address=ip_address(address), slot=slot, phase=Phase.RETAINED, since=since)


def test_what_was_there_before_coexistence_is_seen_from_the_first_pass_on(cluster: Cluster) -> None:
    cluster.theirs().add("w1", "shop/old-1")
    made = cluster.inner.create(retained("10.0.0.2"), cause="before")
    kept = cluster.keeper.keep()
    assert (kept.protected, kept.removed, kept.contested) == (1, 0, ())
    assert cluster.entries()["2"] == {"id": mark_of(made), "podref": ""}
    assert cluster.reservations() == ["10.0.0.1", "10.0.0.2"]
    assert cluster.keeper.keep().protected == 0, "what is right is left alone"
    assert cluster.theirs().add("w2", "shop/old-2") == [ip_address("10.0.0.3")]


def test_a_pass_over_what_is_right_writes_nothing(cluster: Cluster) -> None:
    cluster.theirs().add("w1", "shop/old-1")
    cluster.store.create(retained("10.0.0.2"), cause="test")
    before = cluster.objects.server.version
    cluster.keeper.keep()
    assert cluster.objects.server.version == before


def test_a_pool_that_is_made_later_gets_the_entries(cluster: Cluster) -> None:
    made = cluster.store.create(retained("10.0.0.1"), cause="test")
    assert cluster.theirs().add("w1", "shop/old-1") == [ip_address("10.0.0.2")]
    assert set(cluster.entries()) == {"2"}
    cluster.keeper.keep()
    assert cluster.entries()["1"]["id"] == mark_of(made)
    reconcile(cluster.objects, {"shop/old-1": ["10.0.0.2"]})
    assert cluster.reservations() == ["10.0.0.2"]
    assert cluster.theirs().add("w2", "shop/old-2") == [ip_address("10.0.0.3")]


def test_the_pool_that_alone_decides_is_made_again(cluster: Cluster) -> None:
    made = cluster.store.create(retained("10.0.0.1", scope=f"#{RANGE}"), cause="test")
    cluster.objects.delete(POOLS, POOL, namespace="kube-system")
    assert cluster.keeper.keep().protected == 1
    assert cluster.entries()["1"]["id"] == mark_of(made)


def test_a_node_slice_s_pool_gets_the_entries(cluster: Cluster) -> None:
    status = {"allocations": [{"nodeName": "n7", "sliceRange": RANGE}]}
    spec = {"range": "10.0.0.0/28", "sliceSize": "/29"}
    body = {"metadata": {"name": "net"}, "spec": spec, "status": status}
    cluster.objects.create(SLICES, body, namespace="kube-system")
    cluster.inner.create(retained("10.0.0.1"), cause="before")
    theirs = cluster.theirs(slice_of="n7")
    theirs.add("w1", "shop/old-1", "net9")  # makes the pool; the address itself is contested from the start
    theirs.delete("w1", "net9")
    cluster.keeper.keep()
    assert set(cluster.entries("n7-10.0.0.0-29")) == {"1"}


def test_a_mark_of_nothing_goes_after_ten_minutes_and_not_before(cluster: Cluster) -> None:
    cluster.theirs().add("w1", "shop/old-1")
    made = cluster.store.create(retained("10.0.0.2"), cause="test")
    cluster.inner.delete(made, cause="and died before it told Whereabouts")
    assert cluster.keeper.keep().removed == 0
    cluster.later(ORPHAN_SECONDS - 1)
    assert cluster.keeper.keep().removed == 0
    cluster.later(1)
    assert cluster.keeper.keep().removed == 2
    assert set(cluster.entries()) == {"1"}
    assert cluster.reservations() == ["10.0.0.1"]


def test_a_mark_that_changes_hands_counts_anew(cluster: Cluster) -> None:
    """A claim that is under way has written its own."""
    cluster.theirs().add("w1", "shop/old-1")
    for ordinal in (1, 2):
        made = cluster.store.create(retained("10.0.0.2", ordinal), cause="test")
        cluster.inner.delete(made, cause="died")
        cluster.keeper.keep()
        cluster.later(ORPHAN_SECONDS - 1)
    assert cluster.keeper.keep().removed == 0
    assert "2" in cluster.entries()


def test_an_orphan_that_finds_an_owner_stays(cluster: Cluster) -> None:
    cluster.theirs().add("w1", "shop/old-1")
    made = cluster.store.create(retained("10.0.0.2"), cause="test")
    cluster.inner.delete(made, cause="died")
    cluster.keeper.keep()
    cluster.later()
    again = cluster.inner.create(retained("10.0.0.2", 5), cause="by a late request")
    kept = cluster.keeper.keep()
    assert (kept.protected, kept.removed) == (1, 0)
    assert cluster.entries()["2"]["id"] == mark_of(again)


def test_what_both_gave_away_is_told_and_left_as_it_is(cluster: Cluster) -> None:
    made = cluster.inner.create(retained("10.0.0.1"), cause="before")
    cluster.theirs().add("w1", "shop/old-1")
    for _ in range(2):
        (contested,) = cluster.keeper.keep().contested
        assert contested.allocation == made
        assert "shop/old-1" in contested.reason
    assert cluster.entries()["1"]["id"] == "w1"
    assert cluster.inner.get("", made.address) == made


def test_an_address_that_their_pools_cannot_hold_is_told(cluster: Cluster) -> None:
    cluster.theirs("fd00:70::/64").add("w1", "shop/old-1")
    cluster.inner.create(retained("fd00:70::8000:0:0:1"), cause="before")
    (contested,) = cluster.keeper.keep().contested
    assert "fd00-70---64" in contested.reason


def test_entries_that_are_not_ours_are_never_removed(cluster: Cluster) -> None:
    entries = {"1": {"id": "", "podref": ""}, "2": {"id": "c", "podref": "shop/gone"}, "x": {"id": "c", "podref": ""}}
    body = {"metadata": {"name": POOL}, "spec": {"range": RANGE, "allocations": entries}}
    cluster.objects.create(POOLS, body, namespace="kube-system")
    body = {"metadata": {"name": "10.0.0.3"}, "spec": {"podref": "shop/gone"}}
    cluster.objects.create(RESERVATIONS, body, namespace="kube-system")
    for _ in range(3):
        cluster.keeper.keep()
        cluster.later()
    assert cluster.entries() == entries
    assert cluster.reservations() == ["10.0.0.3"]


def test_a_pool_that_cannot_be_read_ends_a_pass_before_it_does_anything(cluster: Cluster) -> None:
    cluster.inner.create(retained("10.0.0.1"), cause="before")
    body = {"metadata": {"name": POOL}, "spec": {"range": "10.9.0.0/29", "allocations": {}}}
    cluster.objects.create(POOLS, body, namespace="kube-system")
    with pytest.raises(DecodeFailure, match=POOL):
        cluster.keeper.keep()
    assert cluster.reservations() == []


def test_a_pass_lists_the_pools_once_however_much_there_is_to_do(cluster: Cluster) -> None:
    cluster.theirs("10.0.0.0/24").add("w1", "shop/old-1")
    for n in range(2, 42):
        cluster.inner.create(retained(f"10.0.0.{n}", n), cause="before")
    cluster.objects.calls.clear()
    assert cluster.keeper.keep().protected == 40
    assert sum(call.verb == "list" and call.resource == POOLS for call in cluster.objects.calls) == 1
