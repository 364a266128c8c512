"""The static plugin: where addresses come from, as a table."""

from __future__ import annotations

from typing import Any, cast

import pytest

from homeport.cni import netconfs
from homeport.cni.invocations import Attachment
from homeport.cni.netconfs import NetConf
from homeport.cni.versions import encode_result
from homeport.model.errors import Drift, IncompatibleVersion, InvalidNetConf
from homeport.model.results import Result
from homeport.plugins import static
from homeport.ports import Shells

NO_SHELLS = cast(Shells, None)  # it acts on nothing

CONFIGURED = [{"address": "10.1.2.3/24", "gateway": "10.1.2.1"}, {"address": "fd00:1::3/64"}]


def conf(ipam: dict[str, Any] | None = None, version: str = "1.1.0", **keys: Any) -> NetConf:
    whole = {"cniVersion": version, "name": "n", "type": "macvlan", "ipam": {"type": "static", **(ipam or {})}, **keys}
    return netconfs.parse(whole)


def attachment(**args: str) -> Attachment:
    return Attachment(container_id="c1", ifname="net1", netns_path="/run/netns/x", args=args)


def pairs(result: Result) -> list[tuple[str, str | None]]:
    return [(str(ip.address), str(ip.gateway) if ip.gateway else None) for ip in result.ips]


SOURCES: list[tuple[str, dict[str, Any], dict[str, str], list[tuple[str, str | None]]]] = [
    ("configured", {"ipam": {"addresses": CONFIGURED}}, {}, [("10.1.2.3/24", "10.1.2.1"), ("fd00:1::3/64", None)]),
    (
        "CNI_ARGS add to the configured",
        {"ipam": {"addresses": CONFIGURED}},
        {"IP": "10.1.3.4/24, 10.1.4.4/24"},
        [("10.1.2.3/24", "10.1.2.1"), ("fd00:1::3/64", None), ("10.1.3.4/24", None), ("10.1.4.4/24", None)],
    ),
    (
        "GATEWAY goes to every subnet it is in",
        {"ipam": {"addresses": CONFIGURED}},
        {"IP": "10.1.2.9/24", "GATEWAY": "10.1.2.254,fd00:1::1,192.0.2.1"},
        [("10.1.2.3/24", "10.1.2.254"), ("fd00:1::3/64", "fd00:1::1"), ("10.1.2.9/24", "10.1.2.254")],
    ),
    (
        "args.cni.ips replace those",
        {"ipam": {"addresses": CONFIGURED}, "args": {"cni": {"ips": ["10.5.0.1/24"]}}},
        {"IP": "10.1.3.4/24", "GATEWAY": "10.5.0.254"},
        [("10.5.0.1/24", None)],
    ),
    (
        "the runtime's ips replace all",
        {
            "ipam": {"addresses": CONFIGURED},
            "args": {"cni": {"ips": ["10.5.0.1/24"]}},
            "runtimeConfig": {"ips": ["10.6.0.1/24", "fd00:6::1/64"]},
        },
        {"IP": "10.1.3.4/24"},
        [("10.6.0.1/24", None), ("fd00:6::1/64", None)],
    ),
    (
        "an empty list asks for nothing",
        {"ipam": {"addresses": CONFIGURED[:1]}, "runtimeConfig": {"ips": []}},
        {},
        [("10.1.2.3/24", "10.1.2.1")],
    ),
    ("nothing", {}, {}, []),
]


@pytest.mark.parametrize(("keys", "args", "expected"), [s[1:] for s in SOURCES], ids=[s[0] for s in SOURCES])
def test_where_addresses_come_from(
    keys: dict[str, Any], args: dict[str, str], expected: list[tuple[str, str | None]]
) -> None:
    assert pairs(static.add(conf(**keys), attachment(**args), NO_SHELLS)) == expected


def test_routes_and_dns_are_passed_on() -> None:
    ipam = {
        "addresses": CONFIGURED,
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.0.0.0/8", "gw": "10.1.2.7", "mtu": 1400}],
        "dns": {"nameservers": ["10.1.2.53"], "domain": "example.net"},
    }
    result = static.add(conf(ipam), attachment(), NO_SHELLS)
    assert encode_result(result, "1.1.0") == {
        "cniVersion": "1.1.0",
        "dns": {"domain": "example.net", "nameservers": ["10.1.2.53"]},
        "ips": [{"address": "10.1.2.3/24", "gateway": "10.1.2.1"}, {"address": "fd00:1::3/64"}],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.0.0.0/8", "gw": "10.1.2.7", "mtu": 1400}],
    }


WRONG: list[tuple[str, dict[str, Any], dict[str, str], str]] = [
    ("no prefix", {"ipam": {"addresses": [{"address": "10.1.2.3"}]}}, {}, 'key "ipam.addresses[0].address": found "10'),
    (
        "netmask",
        {"ipam": {"addresses": [{"address": "10.1.2.3/255.0.0.0"}]}},
        {},
        "expected an address with its prefix",
    ),
    ("no address", {"ipam": {"addresses": [{"gateway": "10.1.2.1"}]}}, {}, 'key "ipam.addresses[0].address": missing'),
    (
        "gateway",
        {"ipam": {"addresses": [{"address": "10.1.2.3/24", "gateway": "x"}]}},
        {},
        'key "ipam.addresses[0].gateway": found "x"',
    ),
    ("IP", {}, {"IP": "10.1.2.3"}, 'key "CNI_ARGS IP": found "10.1.2.3"'),
    ("IP, though replaced", {"runtimeConfig": {"ips": ["10.6.0.1/24"]}}, {"IP": "10.6.0.1"}, 'key "CNI_ARGS IP"'),
    ("GATEWAY", {}, {"GATEWAY": "10.1.2.1/24"}, 'key "CNI_ARGS GATEWAY": found "10.1.2.1/24"'),
    ("args", {"args": {"cni": {"ips": ["10.5.0.1"]}}}, {}, 'key "args.cni.ips[0]": found "10.5.0.1"'),
    ("runtime", {"runtimeConfig": {"ips": ["10.6.0.1"]}}, {}, 'key "runtimeConfig.ips[0]": found "10.6.0.1"'),
    ("route", {"ipam": {"addresses": CONFIGURED, "routes": [{"dst": "x"}]}}, {}, 'key "ipam.routes[0].dst": found "x"'),
    ("dns", {"ipam": {"dns": {"nameservers": "x"}}}, {}, "ipam.dns.nameservers"),
    (
        "old version",
        {"version": "0.2.0", "ipam": {"addresses": [{"address": "10.1.2.3/24"}, {"address": "10.1.2.4/24"}]}},
        {},
        'key "cniVersion": found "0.2.0" with 2 IPv4 addresses',
    ),
]


@pytest.mark.parametrize(("keys", "args", "text"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG])
def test_what_cannot_be_right_is_named(keys: dict[str, Any], args: dict[str, str], text: str) -> None:
    for verb in (static.add, static.status):
        with pytest.raises(InvalidNetConf) as raised:
            verb(conf(**keys), attachment(**args), NO_SHELLS)
        assert text in raised.value.msg
    static.delete(conf(**keys), attachment(**args), NO_SHELLS)  # nothing was taken, so nothing is in the way


def test_one_address_a_family_will_do_for_old_versions() -> None:
    assert len(static.add(conf({"addresses": CONFIGURED}, version="0.2.0"), attachment(), NO_SHELLS).ips) == 2


def checked(previous: list[dict[str, str]], *, version: str = "1.1.0") -> None:
    prev_result = {"cniVersion": version, "ips": previous}
    static.check(conf({"addresses": CONFIGURED}, prevResult=prev_result), attachment(), NO_SHELLS)


def test_check() -> None:
    checked([{"address": "192.0.2.1/24"}, *CONFIGURED])
    with pytest.raises(Drift, match=r"expected fd00:1::3/64 among them"):
        checked(CONFIGURED[:1])
    with pytest.raises(Drift, match=r"found gateway 10\.1\.2\.9, expected 10\.1\.2\.1"):
        checked([{"address": "10.1.2.3/24", "gateway": "10.1.2.9"}, CONFIGURED[1]])
    with pytest.raises(InvalidNetConf, match='key "prevResult": missing'):
        static.check(conf({"addresses": CONFIGURED}), attachment(), NO_SHELLS)
    with pytest.raises(IncompatibleVersion):
        netconfs.parse(conf(version="0.3.1").raw, command="CHECK")


def test_gc_has_nothing_to_collect() -> None:
    static.gc(conf({"addresses": [{"address": "nonsense"}]}), attachment(), NO_SHELLS)
