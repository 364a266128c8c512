"""Our nodes and Whereabouts' in one cluster: what each sees of the other, and what it may take or remove."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import ip_address

import pytest
from tests.stand_ins import START
from tests.stand_ins_coexisting import RANGE, Cluster, allocation, span

from homeport.ipam.allocations import released
from homeport.ipam.identities import PodOwner
from homeport.ipam.ranges import Span
from homeport.model.errors import DecodeFailure, UnsupportedField
from homeport.ports import AlreadyExists
from homeport.stores.coexisting import mark_of
from homeport.stores.whereabouts import POOLS, RESERVATIONS, SLICES


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


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
