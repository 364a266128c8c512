"""Ranges in every notation, and what may be handed out of them."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from homeport.ipam.ranges import (
    Range,
    RangeKeys,
    Span,
    free_spans,
    match_ranges,
    merge_spans,
    parse_address,
    parse_interface,
    parse_network,
    parse_range,
)
from homeport.model.errors import InvalidNetConf


def range_of(text: str, *, gateway: str = "", exclude: tuple[str, ...] = (), start: str = "", end: str = "") -> Range:
    keys = RangeKeys(range=text, range_start=start, range_end=end, exclude=exclude)
    return parse_range(keys, at="ipam", gateway=ip_address(gateway) if gateway else None)


@pytest.mark.parametrize(
    ("text", "first", "last", "usable"),
    [
        ("10.1.2.0/24", "10.1.2.1", "10.1.2.254", 254),
        ("10.1.2.77/24", "10.1.2.1", "10.1.2.254", 254),  # host bits are no start
        ("10.9.0.77/29", "10.9.0.73", "10.9.0.78", 6),
        ("010.001.002.000/24", "10.1.2.1", "10.1.2.254", 254),
        ("10.1.2.0/30", "10.1.2.1", "10.1.2.2", 2),
        ("10.1.2.0/31", "10.1.2.0", "10.1.2.1", 2),
        ("10.1.2.7/32", "10.1.2.7", "10.1.2.7", 1),
        ("fd00::/64", "fd00::1", "fd00::ffff:ffff:ffff:fffe", 2**64 - 2),
        ("fd00::/126", "fd00::1", "fd00::2", 2),
        ("fd00::/127", "fd00::", "fd00::1", 2),
        ("fd00::5/128", "fd00::5", "fd00::5", 1),
        ("10.1.2.10-10.1.2.20/24", "10.1.2.10", "10.1.2.20", 11),
        ("10.1.2.10 - 10.1.2.20/24", "10.1.2.10", "10.1.2.20", 11),
        ("10.1.2.255-10.1.3.0/22", "10.1.2.255", "10.1.3.0", 2),  # no broadcast of this subnet
        ("fd00::a-fd00::14/64", "fd00::a", "fd00::14", 11),
    ],
)
def test_every_notation(text: str, first: str, last: str, usable: int) -> None:
    found = range_of(text)
    assert (str(found.first), str(found.last), found.usable) == (first, last, usable)
    assert str(found.nth(0)) == first
    assert str(found.nth(usable - 1)) == last
    assert found.nth(usable) is None
    assert found.nth(-1) is None


def test_start_and_end_narrow_the_range_and_a_dash_overrides_them() -> None:
    assert str(range_of("10.93.96.0/20", start="10.93.97.12", end="10.93.97.20").span) == "10.93.97.12-10.93.97.20"
    assert str(range_of("10.1.2.5-10.1.2.6/24", start="10.1.2.1", end="10.1.2.9").span) == "10.1.2.5-10.1.2.6"


def test_the_gateway_and_what_is_excluded_are_never_usable() -> None:
    found = range_of(
        "10.1.2.0/28", gateway="10.1.2.1", exclude=("10.1.2.4/30", "10.1.2.9", "10.1.2.010/32", "10.5.0.0/16")
    )
    numbered = [str(found.nth(n)).rpartition(".")[2] for n in range(found.usable)]
    assert numbered == ["2", "3", "8", "11", "12", "13", "14"]
    assert [a for a in map(ip_address, ("10.1.2.1", "10.1.2.4", "10.1.2.10", "10.1.2.15")) if a in found] == []
    assert ip_address("10.1.2.8") in found
    assert found.nth(7) is None


def test_a_gateway_of_the_other_family_is_none_of_the_ranges_business() -> None:
    assert range_of("fd00::/64", gateway="10.1.2.1").gateway is None
    assert range_of("10.1.2.0/24", gateway="10.1.2.1").gateway == ip_address("10.1.2.1")


def test_a_wide_range_is_counted_without_walking_it() -> None:
    found = range_of("fd00::/64", exclude=("fd00::/65",))
    assert found.usable == 2**63 - 1
    assert str(found.nth(0)) == "fd00::8000:0:0:0"
    assert str(found.nth(2**63 - 2)) == "fd00::ffff:ffff:ffff:fffe"


def test_a_range_with_nothing_left() -> None:
    found = range_of("10.1.2.0/30", exclude=("10.1.2.0/24",))
    assert (found.usable, found.nth(0)) == (0, None)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (RangeKeys(range="10.1.2.0"), 'key "ipam.range": found "10.1.2.0", expected a network with its prefix'),
        (RangeKeys(range="10.1.2.0/255.255.255.0"), 'key "ipam.range": found'),
        (RangeKeys(range="10.1.2.0/33"), 'key "ipam.range": found'),
        (RangeKeys(range="10.1.2/24"), 'key "ipam.range": found'),
        (RangeKeys(range="10..2.0/24"), 'key "ipam.range": found'),
        (RangeKeys(range="fe80::%eth0/64"), 'key "ipam.range": found'),
        (RangeKeys(range="10.1.2.9-10.1.2.3/24"), "expected an end that is not below the start 10.1.2.9"),
        (RangeKeys(range="10.1.1.9-10.1.2.3/24"), "10.1.1.9 is not in 10.1.2.0/24"),
        (RangeKeys(range="10.1.2.0-10.1.2.3/24"), "expected addresses in 10.1.2.1-10.1.2.254, not 10.1.2.0"),
        (RangeKeys(range="fd00::1-10.1.2.3/24"), "is not in 10.1.2.0/24"),
        (
            RangeKeys(range="10.1.2.0/24", range_start="10.2.0.1"),
            'key "ipam.range_start": found "10.2.0.1", expected an address of the range, 10.1.2.1-10.1.2.254',
        ),
        (RangeKeys(range="10.1.2.0/24", range_end="10.1.2.255"), 'key "ipam.range_end": found "10.1.2.255"'),
        (RangeKeys(range="10.1.2.0/24", range_end="fd00::1"), 'key "ipam.range_end": found "fd00::1"'),
        (RangeKeys(range="10.1.2.0/24", range_end="ten"), 'key "ipam.range_end": found "ten", expected an IP address'),
        (
            RangeKeys(range="10.1.2.0/24", range_start="10.1.2.9", range_end="10.1.2.3"),
            'key "ipam.range_end": found "10.1.2.3", expected an end that is not below the start 10.1.2.9',
        ),
        (
            RangeKeys(range="10.1.2.0/24", exclude=("10.1.2.1", "10.1.2.3/99")),
            'key "ipam.exclude[1]": found "10.1.2.3/99"',
        ),
    ],
)
def test_a_wrong_range_is_refused_with_key_and_value(keys: RangeKeys, message: str) -> None:
    with pytest.raises(InvalidNetConf) as refused:
        parse_range(keys, at="ipam")
    assert message in refused.value.msg


def test_single_values_have_the_same_leniency_and_the_same_errors() -> None:
    assert parse_address("010.0.0.09", "k") == ip_address("10.0.0.9")
    assert str(parse_interface("10.0.0.09/8", "k")) == "10.0.0.9/8"
    assert parse_network("10.0.0.9/8", "k") == ip_network("10.0.0.0/8")
    with pytest.raises(InvalidNetConf, match=r'key "k": found "10\.0\.0\.9", expected an address with its prefix'):
        parse_interface("10.0.0.9", "k")


def spans(*pairs: tuple[str, str]) -> list[Span]:
    return [Span(ip_address(a), ip_address(b)) for a, b in pairs]


def test_spans_merge_where_they_touch_and_families_stay_apart() -> None:
    merged = merge_spans(
        spans(
            ("::1", "::2"), ("10.0.0.5", "10.0.0.9"), ("10.0.0.1", "10.0.0.4"), ("10.0.0.6", "10.0.0.7"), ("::4", "::4")
        )
    )
    assert [str(s) for s in merged] == ["10.0.0.1-10.0.0.9", "::1-::2", "::4"]


def test_what_is_left_of_a_span() -> None:
    whole = Span(ip_address("10.0.0.1"), ip_address("10.0.0.9"))
    holes = merge_spans(spans(("10.0.0.0", "10.0.0.1"), ("10.0.0.3", "10.0.0.4"), ("10.0.0.9", "10.0.1.0")))
    assert [str(s) for s in free_spans(whole, holes)] == ["10.0.0.2", "10.0.0.5-10.0.0.8"]
    assert list(free_spans(whole, [whole])) == []


@pytest.mark.parametrize(
    ("ranges", "held", "expected"),
    [
        (["10.0.0.0/24", "fd00::/64"], ["fd00::5", "10.0.0.5"], (1, 0)),
        (["10.0.0.0/24", "10.0.0.0/25"], ["10.0.0.5", "10.0.0.200"], (1, 0)),  # .200 fits only the wider
        (["10.0.0.10-10.0.0.20/24", "10.0.0.30-10.0.0.40/24"], ["10.0.0.30", "10.0.0.10"], (1, 0)),
        (["10.0.0.10-10.0.0.20/24", "10.0.0.30-10.0.0.40/24"], ["10.0.0.33"], (None, 0)),
        (["10.0.0.10-10.0.0.20/24"], ["10.0.0.99"], (0,)),  # a narrowed range renumbers nobody
        (["10.0.0.10-10.0.0.20/24"], ["10.0.0.99", "10.0.0.11"], (0,)),
        (["10.0.0.0/24"], ["10.1.0.5"], (None,)),
        (["10.0.0.0/24"], [], (None,)),
    ],
)
def test_held_addresses_find_their_ranges(ranges: list[str], held: list[str], expected: tuple[int | None, ...]) -> None:
    assert match_ranges([range_of(r) for r in ranges], [ip_address(a) for a in held]) == expected


def test_an_address_that_became_the_gateway_stands_for_no_range() -> None:
    assert match_ranges([range_of("10.0.0.0/24", gateway="10.0.0.1")], [ip_address("10.0.0.1")]) == (None,)
