"""Results between every two versions, to the byte where that matters."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest

from homeport.cni import documents, versions
from homeport.model.errors import CniError, DecodeFailure, IncompatibleVersion, PluginError, TryAgainLater
from homeport.model.results import DNS, Interface, IPConfig, Result, Route

FULL = Result(
    interfaces=(
        Interface(name="br0", mac="02:00:00:00:00:01"),
        Interface(
            name="eth0",
            mac="02:00:00:00:00:02",
            mtu_bytes=1400,
            sandbox="/run/netns/a",
            socket_path="/s",
            pci_id="0000:00:1f.6",
        ),
    ),
    ips=(
        IPConfig(address=ip_interface("10.1.2.3/24"), gateway=ip_address("10.1.2.1"), interface=1),
        IPConfig(address=ip_interface("10.9.9.9/16")),
        IPConfig(address=ip_interface("fd00::3/64"), gateway=ip_address("fd00::1"), interface=0),
    ),
    routes=(
        Route(dst=ip_network("::/0")),
        Route(dst=ip_network("0.0.0.0/0"), gw=ip_address("10.1.2.1")),
        Route(dst=ip_network("10.5.0.0/16"), mtu_bytes=1300, advmss=1200, priority=7, table=0, scope=0),
    ),
    dns=DNS(nameservers=("10.1.2.53",), domain="lab", search=("lab", "net"), options=("ndots:2",)),
)

DNS_WIRE = {"nameservers": ["10.1.2.53"], "domain": "lab", "search": ["lab", "net"], "options": ["ndots:2"]}
ROUTES_WIRE: list[dict[str, Any]] = [
    {"dst": "::/0"},
    {"dst": "0.0.0.0/0", "gw": "10.1.2.1"},
    {"dst": "10.5.0.0/16", "mtu": 1300, "advmss": 1200, "priority": 7, "table": 0, "scope": 0},
]
OLD = {
    "ip4": {
        "ip": "10.1.2.3/24",
        "gateway": "10.1.2.1",
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.2.1"}, {"dst": "10.5.0.0/16"}],
    },
    "ip6": {"ip": "fd00::3/64", "gateway": "fd00::1", "routes": [{"dst": "::/0"}]},
    "dns": DNS_WIRE,
}
MIDDLE = {
    "interfaces": [
        {"name": "br0", "mac": "02:00:00:00:00:01"},
        {"name": "eth0", "mac": "02:00:00:00:00:02", "sandbox": "/run/netns/a"},
    ],
    "ips": [
        {"version": "4", "interface": 1, "address": "10.1.2.3/24", "gateway": "10.1.2.1"},
        {"version": "4", "address": "10.9.9.9/16"},
        {"version": "6", "interface": 0, "address": "fd00::3/64", "gateway": "fd00::1"},
    ],
    "routes": ROUTES_WIRE,
    "dns": DNS_WIRE,
}
MODERN = {
    "dns": dict(sorted(DNS_WIRE.items())),
    "interfaces": [
        {"mac": "02:00:00:00:00:01", "name": "br0"},
        {
            "mac": "02:00:00:00:00:02",
            "mtu": 1400,
            "name": "eth0",
            "pciID": "0000:00:1f.6",
            "sandbox": "/run/netns/a",
            "socketPath": "/s",
        },
    ],
    "ips": [
        {"address": "10.1.2.3/24", "gateway": "10.1.2.1", "interface": 1},
        {"address": "10.9.9.9/16"},
        {"address": "fd00::3/64", "gateway": "fd00::1", "interface": 0},
    ],
    "routes": [dict(sorted(route.items())) for route in ROUTES_WIRE],
}
WIRE: dict[str, dict[str, Any]] = {
    "0.1.0": {"cniVersion": "0.1.0", **OLD},
    "0.2.0": {"cniVersion": "0.2.0", **OLD},
    "0.3.0": {"cniVersion": "0.3.0", **MIDDLE},
    "0.3.1": {"cniVersion": "0.3.1", **MIDDLE},
    "0.4.0": {"cniVersion": "0.4.0", **MIDDLE},
    "1.0.0": {"cniVersion": "1.0.0", **MODERN},
    "1.1.0": {"cniVersion": "1.1.0", **MODERN},
}


def without_modern_fields(result: Result) -> Result:
    return Result(
        interfaces=tuple(Interface(name=i.name, mac=i.mac, sandbox=i.sandbox) for i in result.interfaces),
        ips=result.ips,
        routes=result.routes,
        dns=result.dns,
    )


def as_old(result: Result) -> Result:
    """What 0.1 and 0.2 can carry of FULL, in the order they come back."""
    v4, _, v6 = result.ips
    default6, default4, other = result.routes
    return Result(
        ips=tuple(IPConfig(address=ip.address, gateway=ip.gateway) for ip in (v4, v6)),
        routes=(default4, Route(dst=other.dst), default6),
        dns=result.dns,
    )


CARRIED = {
    version: as_old(FULL) if version < "0.3" else without_modern_fields(FULL) if version < "1" else FULL
    for version in WIRE
}


def test_the_table_has_every_version() -> None:
    assert tuple(WIRE) == versions.SUPPORTED_VERSIONS


@pytest.mark.parametrize("version", WIRE)
def test_encoding_gives_the_very_bytes(version: str) -> None:
    expected = json.dumps(WIRE[version], indent=4)
    assert documents.write(versions.encode_result(FULL, version)).decode() == expected


@pytest.mark.parametrize("version", WIRE)
def test_decoding(version: str) -> None:
    assert versions.decode_result(WIRE[version], "1.1.0") == CARRIED[version]


@pytest.mark.parametrize("target", WIRE)
@pytest.mark.parametrize("source", WIRE)
def test_from_every_version_to_every_other(source: str, target: str) -> None:
    converted = versions.encode_result(versions.decode_result(WIRE[source], source), target)
    assert converted["cniVersion"] == target
    twice = versions.decode_result(converted, target)
    both = CARRIED[source]
    if target < "0.3" <= source:
        both = as_old(both)
    elif target < "1":
        both = without_modern_fields(both)
    assert twice == both


@pytest.mark.parametrize(
    ("version", "wire"),
    [
        ("0.4.0", {"cniVersion": "0.4.0", "dns": {}}),
        ("1.0.0", {"cniVersion": "1.0.0"}),
        ("1.1.0", {"cniVersion": "1.1.0"}),
    ],
)
def test_an_empty_result_leaves_out_what_the_go_library_does(version: str, wire: dict[str, Any]) -> None:
    assert versions.encode_result(Result(), version) == wire
    assert versions.decode_result(wire, version) == Result()


def test_old_versions_cannot_say_no_address() -> None:
    with pytest.raises(IncompatibleVersion, match=r"cniVersion 0\.2\.0: found no address"):
        versions.encode_result(Result(), "0.2.0")


def test_routes_of_a_family_without_address_are_dropped_in_old_versions() -> None:
    result = Result(ips=FULL.ips[:1], routes=FULL.routes)
    wire = versions.encode_result(result, "0.2.0")
    assert "ip6" not in wire
    assert [r["dst"] for r in wire["ip4"]["routes"]] == ["0.0.0.0/0", "10.5.0.0/16"]


def test_a_result_without_version_is_of_the_configuration() -> None:
    wire = {k: v for k, v in WIRE["0.2.0"].items() if k != "cniVersion"}
    assert versions.decode_result(wire, "0.2.0") == CARRIED["0.2.0"]


def test_null_is_an_empty_result() -> None:
    assert versions.decode_result(None, "1.0.0") == Result()


def test_null_fields_are_absent() -> None:
    wire = {"cniVersion": "1.0.0", "interfaces": None, "ips": [{"address": "10.0.0.1/8", "gateway": None}], "dns": None}
    assert versions.decode_result(wire, "1.0.0") == Result(ips=(IPConfig(address=ip_interface("10.0.0.1/8")),))


@pytest.mark.parametrize(
    ("wire", "text"),
    [
        ({"ips": [{"address": "10.0.0.1"}]}, 'key "ips[0].address": found "10.0.0.1", expected an address with its'),
        ({"ips": [{"address": "10.0.0.1/255.0.0.0"}]}, 'key "ips[0].address"'),
        ({"ips": [{"address": "fe80::1%eth0/64"}]}, 'key "ips[0].address"'),
        ({"ips": [{"address": "10.0.0.1/33"}]}, 'key "ips[0].address"'),
        ({"ips": [{}]}, 'key "ips[0].address": missing'),
        ({"ips": [{"address": "10.0.0.1/8", "gateway": "x"}]}, 'key "ips[0].gateway": found "x"'),
        ({"ips": [{"address": "10.0.0.1/8", "interface": -1}]}, 'key "ips[0].interface": found -1, expected int >= 0'),
        ({"ips": "10.0.0.1/8"}, 'key "ips": found "10.0.0.1/8", expected array'),
        ({"routes": [{"dst": "0/0"}]}, 'key "routes[0].dst"'),
        ({"routes": [{"dst": "10.0.0.0/8", "gw": 5}]}, 'key "routes[0].gw": found 5, expected str'),
        ({"interfaces": [{"name": 5}]}, 'key "interfaces[0].name": found 5'),
        ({"cniVersion": 1}, 'key "cniVersion": found 1, expected str'),
        ([], "found [], expected object"),
        ("x", 'found "x", expected object'),
    ],
)
def test_a_bad_result_names_the_key(wire: object, text: str) -> None:
    with pytest.raises(DecodeFailure) as caught:
        versions.decode_result(wire, "1.0.0")
    assert text in caught.value.msg


def test_a_bad_old_result_names_the_key() -> None:
    with pytest.raises(DecodeFailure, match=r'key "ip4.ip": found "fd00::1/64", expected an IPv4 address'):
        versions.decode_result({"ip4": {"ip": "fd00::1/64"}}, "0.2.0")


def test_a_result_of_a_version_to_come() -> None:
    with pytest.raises(IncompatibleVersion, match=r'found "2\.0\.0", expected one of 0\.1\.0'):
        versions.decode_result({"cniVersion": "2.0.0"}, "1.0.0")


def test_host_bits_of_a_route_are_masked() -> None:
    result = versions.decode_result({"routes": [{"dst": "10.1.2.3/8"}]}, "1.0.0")
    assert result.routes == (Route(dst=ip_network("10.0.0.0/8")),)


@pytest.mark.parametrize("version", ["", "1", "1.1", "1.1.0.0", "v1.1.0", "1.1.x", "١.١.٠", "9" * 5000])
def test_versions_that_are_none(version: str) -> None:
    with pytest.raises(DecodeFailure, match="cniVersion"):
        versions.ordinal(version)


def test_order_is_by_number() -> None:
    assert versions.at_least("0.10.0", "0.4.0")
    assert not versions.at_least("0.3.1", "0.4.0")


def test_an_empty_version_is_the_first() -> None:
    assert versions.require_supported("") == "0.1.0"


def test_an_incompatible_version_lists_both_sides() -> None:
    with pytest.raises(IncompatibleVersion) as caught:
        versions.require_supported("9.9.9")
    assert caught.value.code == 1
    assert caught.value.details.startswith('config is "9.9.9", plugin supports ["0.1.0","0.2.0",')


@pytest.mark.parametrize(
    ("error", "wire"),
    [
        (TryAgainLater("busy"), {"cniVersion": "1.1.0", "code": 11, "msg": "busy"}),
        (PluginError("no", "why", code=150), {"cniVersion": "1.1.0", "code": 150, "msg": "no", "details": "why"}),
    ],
)
def test_errors(error: CniError, wire: dict[str, Any]) -> None:
    assert versions.encode_error(error, "1.1.0") == wire
    assert "cniVersion" not in versions.encode_error(error)


def test_version_info_round_trips() -> None:
    assert versions.decode_version_info(versions.version_info()) == versions.SUPPORTED_VERSIONS
