"""Where in a range a node looks first (`node_slice_size`)."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from homeport.ipam.ranges import Range, RangeKeys, parse_range
from homeport.ipam.slices import parse_slice_size, slice_start
from homeport.model.errors import InvalidNetConf

NODES = [f"node-{n}" for n in range(200)]


def range_of(range: str, range_start: str = "", range_end: str = "") -> Range:
    return parse_range(RangeKeys(range=range, range_start=range_start, range_end=range_end), at="ipam")


@pytest.mark.parametrize(("text", "expected"), [("", None), ("/26", 26), ("26", 26), ("/128", 128)])
def test_the_size_is_a_prefix_length(text: str, expected: int | None) -> None:
    assert parse_slice_size(text, "ipam.node_slice_size") == expected


@pytest.mark.parametrize("text", ["/", "x", "-1", "129", "/26/", "٣", "1000"])
def test_anything_else_is_refused_with_its_key(text: str) -> None:
    with pytest.raises(InvalidNetConf, match=r"ipam\.node_slice_size"):
        parse_slice_size(text, "ipam.node_slice_size")


def test_nodes_begin_at_the_slices_of_the_range_and_spread_over_all() -> None:
    found = {slice_start(range_of(range="10.0.0.0/24"), 26, node) for node in NODES}
    assert found == {ip_address(a) for a in ("10.0.0.1", "10.0.0.64", "10.0.0.128", "10.0.0.192")}


def test_a_part_of_a_subnet_has_the_slices_it_touches() -> None:
    part = range_of(range="10.0.0.0/24", range_start="10.0.0.70", range_end="10.0.0.130")
    assert {slice_start(part, 26, node) for node in NODES} == {ip_address("10.0.0.70"), ip_address("10.0.0.128")}


def test_a_node_begins_at_the_same_place_each_time() -> None:
    six = range_of(range="fd00::/64")
    starts = [slice_start(six, 80, "node-a") for _ in range(3)]
    assert len(set(starts)) == 1
    assert starts[0] in ip_network("fd00::/64")


@pytest.mark.parametrize("size", [None, 8, 24, 33])
def test_a_size_that_does_not_divide_the_range_means_nothing(size: int | None) -> None:
    assert slice_start(range_of(range="10.0.0.0/24"), size, "node-a") is None
