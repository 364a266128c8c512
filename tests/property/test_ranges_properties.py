"""Ranges against a plain set, and parsers against anything at all."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import IPv4Address, ip_address
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from homeport.ipam.policies import parse_policy
from homeport.ipam.pools import parse_pool
from homeport.ipam.ranges import RangeKeys, Span, free_spans, match_ranges, merge_spans, parse_range, usable_span
from homeport.model.errors import CniError

BASE = int(IPv4Address("10.0.0.0"))
offsets = st.integers(0, 63)


@st.composite
def small_ranges(draw: st.DrawFn) -> tuple[RangeKeys, str]:
    """A range in 10.0.0.0/26, and a gateway or ""."""
    prefix = draw(st.integers(26, 32))
    size = 2 ** (32 - prefix)
    base = BASE + draw(st.integers(0, 64 // size - 1)) * size
    subnet = parse_range(RangeKeys(range=f"{IPv4Address(base)}/{prefix}"), at="x")
    first = draw(st.integers(int(subnet.first), int(subnet.last)))
    last = draw(st.integers(first, int(subnet.last)))
    exclude = draw(st.lists(st.tuples(offsets, st.integers(26, 32)), max_size=5))
    return (
        RangeKeys(
            range=f"{IPv4Address(base)}/{prefix}",
            range_start=str(IPv4Address(first)) if draw(st.booleans()) else "",
            range_end=str(IPv4Address(last)),
            exclude=tuple(f"{IPv4Address(BASE + offset)}/{p}" for offset, p in exclude),
        ),
        draw(st.one_of(st.just(""), offsets.map(lambda n: str(IPv4Address(BASE + n))))),
    )


@given(small_ranges())
def test_numbering_is_that_of_the_usable_addresses_one_by_one(example: tuple[RangeKeys, str]) -> None:
    keys, gateway = example
    range_ = parse_range(keys, at="ipam", gateway=ip_address(gateway) if gateway else None)
    excluded = [parse_range(RangeKeys(range=text), at="x").subnet for text in keys.exclude]
    usable = [
        address
        for address in (IPv4Address(n) for n in range(int(range_.first), int(range_.last) + 1))
        if not any(address in network for network in excluded) and str(address) != gateway
    ]
    assert range_.usable == len(usable)
    assert [range_.nth(n) for n in range(len(usable))] == usable
    assert range_.nth(len(usable)) is None
    assert all((address in range_) == (address in usable) for address in map(IPv4Address, range(BASE, BASE + 64)))
    spans = free_spans(range_.span, range_.withheld)
    assert [IPv4Address(n) for s in spans for n in range(int(s.first), int(s.last) + 1)] == usable


spans = st.tuples(offsets, offsets).map(lambda p: Span(IPv4Address(BASE + min(p)), IPv4Address(BASE + max(p))))


@given(st.lists(spans))
def test_merging_changes_no_address(given_spans: list[Span]) -> None:
    merged = merge_spans(given_spans)
    for number in range(BASE, BASE + 64):
        address = IPv4Address(number)
        assert any(address in s for s in merged) == any(address in s for s in given_spans)
    assert all(int(a.last) + 1 < int(b.first) for a, b in pairwise(merged))


@given(st.lists(small_ranges(), min_size=1, max_size=4), st.lists(offsets, max_size=5, unique=True))
def test_matching_gives_an_address_to_one_range_and_as_many_ranges_as_can_be(
    examples: list[tuple[RangeKeys, str]], numbers: list[int]
) -> None:
    ranges = [parse_range(keys, at="ipam") for keys, _ in examples]
    held = [IPv4Address(BASE + n) for n in numbers]
    matched = match_ranges(ranges, held)
    used = [n for n in matched if n is not None]
    assert len(used) == len(set(used))
    fits = [[n for n, a in enumerate(held) if a in usable_span(r.subnet)] for r in ranges]
    assert all(n is None or n in fits[r] for r, n in enumerate(matched))

    def most(r: int, left: frozenset[int]) -> int:
        """The largest matching there is, by trying all."""
        if r == len(ranges):
            return 0
        return max([most(r + 1, left), *(1 + most(r + 1, left - {n}) for n in fits[r] if n in left)])

    assert len(used) == most(0, frozenset(range(len(held))))


words = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["10.0.0.0/24", "10.0.0.1-10.0.0.9/24", "fd00::/64", "10.0.0.7", "-", "/", "::", "300.1.1.1/8"]),
)
anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), words),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "range": words | anything,
            "range_start": words | anything,
            "range_end": words | anything,
            "exclude": st.lists(words) | anything,
            "ipRanges": st.lists(st.fixed_dictionaries({"range": words})) | anything,
            "gateway": words | anything,
            "network_name": anything,
            "enable_overlapping_ranges": anything,
            "sticky": anything,
        },
    )
)
def test_a_pool_is_parsed_or_refused_as_ours(ipam: dict[str, Any]) -> None:
    with suppress(CniError):
        parse_pool(ipam, network="net")


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "order": st.sampled_from(["ordinal", "lowest"]) | anything,
            "retainFor": st.from_regex(r"[0-9]{0,9}[dhmsx]") | anything,
            "replicas": st.dictionaries(words, st.lists(words | st.lists(words))) | anything,
            "kinds": anything,
        },
    )
)
def test_a_policy_is_parsed_or_refused_as_ours(sticky: dict[str, Any]) -> None:
    ranges = [parse_range(RangeKeys(range="10.0.0.0/24"), at="ipam")]
    with suppress(CniError):
        parse_policy(sticky, ranges)
