"""host-local's configuration, the order of its addresses, and resolv.conf; pure parts only."""

from __future__ import annotations

from ipaddress import ip_address
from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeport.cni import netconfs
from homeport.cni.invocations import Attachment
from homeport.cni.netconfs import NetConf
from homeport.model.errors import InvalidNetConf
from homeport.model.results import DNS
from homeport.plugins import host_local, host_ranges
from homeport.plugins.host_ranges import Range, WireRange


def conf(ipam: dict[str, Any] | None = None, version: str = "1.1.0", **keys: Any) -> NetConf:
    whole = {"type": "host-local", **(ipam if ipam is not None else {"subnet": "10.1.0.0/24"})}
    return netconfs.parse({"cniVersion": version, "name": "n", "type": "macvlan", "ipam": whole, **keys})


def attachment(**args: str) -> Attachment:
    return Attachment(container_id="c1", ifname="net1", netns_path="/run/netns/x", args=args)


def parsed(ipam: dict[str, Any] | None = None, args: dict[str, str] | None = None, **keys: Any) -> list[list[str]]:
    found = host_local.parse(conf(ipam, **keys), attachment(**(args or {})))
    return [[f"{r} of {r.subnet} by {r.gateway}" for r in ranges] for ranges in found.range_sets]


RANGES: list[tuple[dict[str, Any], list[list[str]]]] = [
    ({"subnet": "10.1.0.0/24"}, [["10.1.0.1-10.1.0.254 of 10.1.0.0/24 by 10.1.0.1"]]),
    ({"subnet": "10.1.0.0/30"}, [["10.1.0.1-10.1.0.2 of 10.1.0.0/30 by 10.1.0.1"]]),
    ({"subnet": "fd00::/64"}, [["fd00::1-fd00::ffff:ffff:ffff:ffff of fd00::/64 by fd00::1"]]),
    (
        {"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.9", "rangeEnd": "10.1.0.20", "gateway": "10.1.0.254"},
        [["10.1.0.9-10.1.0.20 of 10.1.0.0/24 by 10.1.0.254"]],
    ),
    (
        {"ranges": [[{"subnet": "10.1.0.0/24"}, {"subnet": "10.2.0.0/24"}], [{"subnet": "fd00::/64"}]]},
        [
            ["10.1.0.1-10.1.0.254 of 10.1.0.0/24 by 10.1.0.1", "10.2.0.1-10.2.0.254 of 10.2.0.0/24 by 10.2.0.1"],
            ["fd00::1-fd00::ffff:ffff:ffff:ffff of fd00::/64 by fd00::1"],
        ],
    ),
    (
        {"subnet": "10.1.0.0/24", "ranges": [[{"subnet": "10.2.0.0/24"}]]},
        [["10.1.0.1-10.1.0.254 of 10.1.0.0/24 by 10.1.0.1"], ["10.2.0.1-10.2.0.254 of 10.2.0.0/24 by 10.2.0.1"]],
    ),
    (
        {
            "ranges": [
                [
                    {"subnet": "10.1.0.0/24", "rangeEnd": "10.1.0.9"},
                    {"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.10"},
                ]
            ]
        },
        [["10.1.0.1-10.1.0.9 of 10.1.0.0/24 by 10.1.0.1", "10.1.0.10-10.1.0.254 of 10.1.0.0/24 by 10.1.0.1"]],
    ),
]


@pytest.mark.parametrize(("ipam", "expected"), RANGES)
def test_ranges(ipam: dict[str, Any], expected: list[list[str]]) -> None:
    assert parsed(ipam) == expected


def test_the_runtimes_ranges_come_first() -> None:
    ranges = {"ipRanges": [[{"subnet": "10.9.0.0/24"}]]}
    assert [r[0][:8] for r in parsed({"subnet": "10.1.0.0/24"}, runtimeConfig=ranges)] == ["10.9.0.1", "10.1.0.1"]


def one(**keys: str) -> dict[str, Any]:
    return {"ranges": [[{"subnet": "10.1.0.0/24", **keys}]]}


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("none", {}, 'key "ipam.ranges": missing'),
    ("empty set", {"ranges": [[]]}, 'key "ipam.ranges[0]": found no range'),
    ("no subnet", {"ranges": [[{"rangeStart": "10.1.0.1"}]]}, 'key "ipam.ranges[0][0].subnet": missing'),
    ("nonsense", one(subnet="x"), 'key "ipam.ranges[0][0].subnet": found "x", expected a subnet'),
    (
        "old form",
        {"subnet": "10.1.0.5/24"},
        'key "ipam.subnet": found host bits in "10.1.0.5/24", expected 10.1',
    ),
    ("/31", one(subnet="10.1.0.0/31"), 'found "10.1.0.0/31", too small to allocate from'),
    ("/32", one(subnet="10.1.0.0/32"), "too small to allocate from"),
    ("/127", one(subnet="fd00::/127"), "too small to allocate from"),
    ("no prefix", one(subnet="10.1.0.0"), "too small to allocate from"),
    (
        "start outside",
        one(rangeStart="10.2.0.1"),
        '[0][0].rangeStart": found 10.2.0.1, expected an address of 10',
    ),
    ("end outside", one(rangeEnd="10.2.0.1"), '[0][0].rangeEnd": found 10.2.0.1, expected an address of 10.1.0.0/24'),
    ("end nonsense", one(rangeEnd="x"), '[0][0].rangeEnd": found "x", expected an IP address'),
    ("gateway outside", one(gateway="fd00::1"), '[0][0].gateway": found fd00::1, expected an address of 10.1.0.0/24'),
    (
        "reversed",
        one(rangeStart="10.1.0.9", rangeEnd="10.1.0.5"),
        '[0][0].rangeEnd": found 10.1.0.5, expected 10.1.',
    ),
    (
        "two families in a set",
        {"ranges": [[{"subnet": "10.1.0.0/24"}, {"subnet": "fd00::/64"}]]},
        "expected ranges of one family",
    ),
    (
        "overlap in a set",
        {"ranges": [[{"subnet": "10.1.0.0/24"}, {"subnet": "10.1.0.0/16"}]]},
        'key "ipam.ranges[0]": found 10.1.0.1-10.1.0.254 and 10.1.0.1-10.1.255.254, expected ranges that do not',
    ),
    (
        "overlap of sets",
        {"ranges": [[{"subnet": "10.1.0.0/16"}], [{"subnet": "10.1.5.0/24"}]]},
        'key "ipam.ranges": found 10.1.0.1-10.1.255.254 and 10.1.5.1-10.1.5.254',
    ),
    ("type", {"subnet": 5}, 'key "ipam.subnet": found 5, expected str'),
    ("route", {"subnet": "10.1.0.0/24", "routes": [{"dst": "x"}]}, 'key "ipam.routes[0].dst": found "x"'),
]


@pytest.mark.parametrize(("ipam", "text"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG])
def test_what_cannot_be_right_is_named(ipam: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidNetConf) as raised:
        parsed(ipam)
    assert text in raised.value.msg


def test_old_versions_hold_one_address_a_family() -> None:
    two = {"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.2.0.0/24"}]]}
    with pytest.raises(InvalidNetConf, match=r'found "0\.2\.0" with 2 range sets'):
        parsed(two, version="0.2.0")
    parsed({"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00::/64"}]]}, version="0.2.0")


# --- addresses asked for -----------------------------------------------------------------------------------------

TWO = {"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00::/64"}]]}


def wanted(cni_args: str = "", **keys: Any) -> dict[int, str]:
    found = host_local.parse(conf(TWO, **keys), attachment(**({"IP": cni_args} if cni_args else {}))).wanted
    return {number: str(address) for number, address in found.items()}


def test_addresses_are_asked_for_in_three_places_together() -> None:
    assert wanted() == {}
    assert wanted("10.1.0.7") == {0: "10.1.0.7"}
    assert wanted("10.1.0.7,fd00::7") == {0: "10.1.0.7", 1: "fd00::7"}
    assert wanted(args={"cni": {"ips": ["fd00::7"]}}) == {1: "fd00::7"}
    by_runtime = {"ips": ["10.1.0.7/24", "fd00::7"]}
    assert wanted("10.1.0.7", runtimeConfig=by_runtime) == {0: "10.1.0.7", 1: "fd00::7"}


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ("10.9.0.1", 'key "CNI_ARGS IP": found 10.9.0.1, expected an address of a configured range'),
        ("10.1.0.0", "found 10.1.0.0, expected an address of a configured range"),
        ("10.1.0.1", "found 10.1.0.1, expected another address than the gateway"),
        ("10.1.0.7,10.1.0.8", "found 10.1.0.8 beside 10.1.0.7, expected one address of a range set"),
        ("x", 'found "x", expected an IP address'),
    ],
)
def test_what_is_asked_for_must_be_there(asked: str, text: str) -> None:
    with pytest.raises(InvalidNetConf) as raised:
        wanted(asked)
    assert text in raised.value.msg


# --- the order of addresses --------------------------------------------------------------------------------------


def ranges(*texts: str, gateway: str = "10.1.0.1") -> tuple[Range, ...]:
    """Each `START-END` within 10.1.0.0/24."""
    pairs = [text.split("-") for text in texts]
    return tuple(
        host_ranges.parse(
            WireRange(subnet="10.1.0.0/24", range_start=f"10.1.0.{start}", range_end=f"10.1.0.{end}", gateway=gateway),
            "r",
        )
        for start, end in pairs
    )


@pytest.mark.parametrize(
    ("given", "last", "expected"),
    [
        (("1-4",), None, [2, 3, 4]),
        (("1-4",), 2, [3, 4, 2]),
        (("1-4",), 4, [2, 3, 4]),
        (("1-4",), 1, [2, 3, 4]),
        (("1-4",), 200, [2, 3, 4]),
        (("5-6", "9-11"), None, [5, 6, 9, 10, 11]),
        (("5-6", "9-11"), 6, [9, 10, 11, 5, 6]),
        (("5-6", "9-11"), 10, [11, 5, 6, 9, 10]),
        (("1-1",), None, []),
    ],
)
def test_in_turn(given: tuple[str, ...], last: int | None, expected: list[int]) -> None:
    start = ip_address(f"10.1.0.{last}") if last else None
    found = [int(address) - int(ip_address("10.1.0.0")) for address, _ in host_ranges.in_turn(ranges(*given), start)]
    assert found == expected


def test_a_wide_range_is_walked_lazily() -> None:
    (wide,) = (host_ranges.parse(WireRange(subnet="fd00::/64"), "r"),)
    assert [str(a) for a, _ in islice(host_ranges.in_turn((wide,), None), 2)] == ["fd00::2", "fd00::3"]
    last = ip_address("fd00::ffff:ffff:ffff:ffff")
    assert [str(a) for a, _ in islice(host_ranges.in_turn((wide,), last), 1)] == ["fd00::2"]


@given(st.lists(st.integers(1, 20), min_size=1, max_size=8, unique=True), st.integers(0, 30))
def test_every_address_comes_once_wherever_the_turn_begins(starts: list[int], last: int) -> None:
    given_ranges = ranges(*(f"{n * 10}-{n * 10 + 5}" for n in starts), gateway="10.1.0.254")
    found = [a for a, _ in host_ranges.in_turn(given_ranges, ip_address("10.1.0.0") + last * 7)]
    assert len(found) == len(set(found)) == 6 * len(starts)


# --- resolv.conf -------------------------------------------------------------------------------------------------


def test_resolv_conf() -> None:
    text = """
# nameserver 192.0.2.1
; nameserver 192.0.2.2
nameserver 10.0.0.1
nameserver\t10.0.0.2 # the second
domain a.example
search b.example c.example
search d.example
options ndots:5 rotate
nameserver
unknown word
"""
    assert host_local.parse_resolv_conf(text) == DNS(
        nameservers=("10.0.0.1", "10.0.0.2"),
        domain="a.example",
        search=("b.example", "c.example", "d.example"),
        options=("ndots:5", "rotate"),
    )
