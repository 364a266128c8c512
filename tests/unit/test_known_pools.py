"""Whose pool an allocation is of, where networks of several namespaces have one name."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any

from homeport.ipam.allocations import Allocation, Phase
from homeport.ipam.identities import Replica, Slot, Workload
from homeport.ipam.pools import KnownPools, Pool, parse_pool

NET = "vlan10"


def pool(range_: str, **keys: Any) -> Pool:
    return parse_pool({"range": range_, **keys}, network=NET)


def allocation(address: str, *, scope: str = "", network: str = NET) -> Allocation:
    return Allocation(
        scope=scope,
        address=ip_address(address),
        slot=Slot(Replica(Workload("shop", "StatefulSet", "web"), 0), network, "net1"),
        phase=Phase.RETAINED,
        since=datetime(2026, 1, 1, tzinfo=UTC),
    )


ONE, TWO = pool("10.1.0.0/24"), pool("10.2.0.0/24")


def test_the_only_pool_of_a_network_is_meant_wherever_the_address_lies() -> None:
    known = KnownPools([ONE, pool("10.1.0.0/24")])  # in two namespaces, and the same
    assert known.of(allocation("10.1.0.5")) == ONE
    assert known.of(allocation("10.9.0.5")) == ONE, "its range was another once"
    assert known.of(allocation("10.1.0.5", network="other")) is None


def test_of_pools_of_one_network_name_it_is_the_one_with_the_address() -> None:
    known = KnownPools([ONE, TWO])
    assert known.of(allocation("10.1.0.5")) == ONE
    assert known.of(allocation("10.2.0.5")) == TWO


def test_where_several_or_none_may_be_meant_nobody_can_say() -> None:
    known = KnownPools([ONE, pool("10.1.0.0/24", gateway="10.1.0.1")])
    assert known.of(allocation("10.1.0.5")) is None
    assert known.of(allocation("10.9.0.5")) is None


def test_an_address_is_of_a_pool_in_its_scope_alone() -> None:
    scoped = pool("10.1.0.0/24", network_name="blue")
    known = KnownPools([ONE, scoped])
    assert known.of(allocation("10.1.0.5")) == ONE
    assert known.of(allocation("10.1.0.5", scope="blue")) == scoped
