"""The bridge plugin's decisions: its keys, its gateways, the tags of its rules."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeport.cni import netconfs
from homeport.cni.invocations import Attachment
from homeport.model.errors import CniError, InvalidNetConf
from homeport.model.names import AttachmentKey
from homeport.model.results import DNS, IPConfig, Result, Route
from homeport.plugins import rulesets
from homeport.plugins.bridge import bridging, gateways
from homeport.plugins.bridge.netconfs import BridgeConf, parse
from homeport.ports import BridgeVlan

STATIC = {"type": "static"}


def read(keys: Mapping[str, Any], *, args: Mapping[str, str] | None = None) -> BridgeConf:
    conf = netconfs.parse({"cniVersion": "1.1.0", "name": "net", "type": "bridge", **keys})
    return parse(conf, Attachment(container_id="c", ifname="eth0", args=args or {}))


def test_defaults() -> None:
    conf = read({})
    assert conf.bridge == "cni0"
    assert not conf.has_ipam
    assert not conf.vlan_filtering
    assert not conf.preserve_default_vlan
    assert conf.container_up
    assert conf.mtu_bytes is None
    assert conf.mac is None
    assert bridging.port_vlans(conf) == ()


def test_default_gateway_implies_gateway() -> None:
    assert read({"isDefaultGateway": True, "ipam": STATIC}).is_gateway


def test_null_counts_as_absent() -> None:
    assert read({"vlanTrunk": None, "vlan": None, "ipam": {}}) == read({})


@pytest.mark.parametrize(
    ("trunk", "runs"),
    [
        ([{"id": 7}], [(7, 7)]),
        ([{"minID": 10, "maxID": 12}, {"id": 13}, {"id": 1}], [(1, 1), (10, 13)]),
        ([{"minID": 10, "maxID": 20}, {"minID": 12, "maxID": 14}, {"minID": 20, "maxID": 22}], [(10, 22)]),
        ([{"minID": 1, "maxID": 4094, "id": 5}], [(1, 4094)]),
        ([{"minID": 100, "maxID": 100, "id": 300}], [(100, 100), (300, 300)]),
        ([{}], []),
    ],
)
def test_trunk(trunk: list[dict[str, int]], runs: list[tuple[int, int]]) -> None:
    assert bridging.port_vlans(read({"vlanTrunk": trunk})) == tuple(BridgeVlan(first=a, last=b) for a, b in runs)


def test_access_port() -> None:
    conf = read({"vlan": 100})
    assert bridging.port_vlans(conf) == (BridgeVlan(first=100, last=100, pvid=True, untagged=True),)
    assert conf.vlan_ifname == "cni0.100"


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        ({"bridge": ""}, "bridge"),
        ({"bridge": "a/b"}, "bridge"),
        ({"bridge": "sixteen-chars-xx"}, "bridge"),
        ({"bridge": 7}, "bridge"),
        ({"vlan": -1}, "vlan"),
        ({"vlan": 4095}, "vlan"),
        ({"vlan": "100"}, "vlan"),
        ({"vlan": 5, "vlanTrunk": [{"id": 6}]}, "vlanTrunk"),
        ({"vlanTrunk": [{"id": 0}]}, "vlanTrunk[0].id"),
        ({"vlanTrunk": [{"id": 1}, {"minID": 2}]}, "vlanTrunk[1].maxID"),
        ({"vlanTrunk": [{"maxID": 2}]}, "vlanTrunk[0].minID"),
        ({"vlanTrunk": [{"minID": 9, "maxID": 2}]}, "vlanTrunk[0].maxID"),
        ({"vlanTrunk": [{"minID": 9, "maxID": 5000}]}, "vlanTrunk[0].maxID"),
        ({"hairpinMode": True, "promiscMode": True}, "hairpinMode"),
        ({"disableContainerInterface": True, "ipam": STATIC}, "disableContainerInterface"),
        ({"mtu": -1}, "mtu"),
        ({"mtu": 70000}, "mtu"),
        ({"ipMasqBackend": "ebtables"}, "ipMasqBackend"),
        ({"mac": "02:00"}, "mac"),
        ({"runtimeConfig": {"mac": 7}}, "runtimeConfig.mac"),
        ({"args": {"cni": {"mac": "x"}}}, "args.cni.mac"),
        ({"bridge": "br-twelve-ch", "vlan": 1000, "isGateway": True, "ipam": STATIC}, "bridge"),
    ],
)
def test_bad_key_is_named(keys: Mapping[str, Any], names: str) -> None:
    with pytest.raises(InvalidNetConf) as caught:
        read(keys)
    assert f'"{names}"' in caught.value.msg


def test_mac_sources_strongest_first() -> None:
    keys: dict[str, Any] = {
        "mac": "02-00-00-00-00-01",
        "args": {"cni": {"mac": "02:00:00:00:00:03"}},
        "runtimeConfig": {"mac": "02:00:00:00:00:04"},
    }
    args = {"MAC": "02:00:00:00:00:02"}
    assert read(keys, args=args).mac == "02:00:00:00:00:04"
    del keys["runtimeConfig"]
    assert read(keys, args=args).mac == "02:00:00:00:00:03"
    del keys["args"]
    assert read(keys, args=args).mac == "02:00:00:00:00:02"
    assert read(keys).mac == "02:00:00:00:00:01"


def allocated(*addresses: str, gateway: str | None = None, routes: tuple[Route, ...] = ()) -> Result:
    gw = None if gateway is None else ip_address(gateway)
    ips = tuple(IPConfig(address=ip_interface(a), gateway=gw) for a in addresses)
    return Result(ips=ips, routes=routes, dns=DNS(domain="example.org"))


def test_plain_bridge_only_places_the_addresses() -> None:
    done = gateways.complete(read({"ipam": STATIC}), allocated("10.1.2.3/24"))
    assert done.ips == (IPConfig(address=ip_interface("10.1.2.3/24"), interface=2),)
    assert done.routes == ()
    assert done.dns.domain == "example.org"


def test_gateway_is_the_subnets_first_address() -> None:
    done = gateways.complete(read({"isGateway": True, "ipam": STATIC}), allocated("10.1.2.3/24", "fd00::9/64"))
    assert [ip.gateway for ip in done.ips] == [ip_address("10.1.2.1"), ip_address("fd00::1")]
    assert done.routes == ()


@pytest.mark.parametrize("address", ["10.1.2.3/32", "10.1.2.3/31", "fd00::5/128", "fd00::5/127", "10.1.2.1/24"])
def test_no_room_for_a_gateway(address: str) -> None:
    with pytest.raises(InvalidNetConf, match="isGateway"):
        gateways.complete(read({"isGateway": True, "ipam": STATIC}), allocated(address))


def test_ipams_gateway_stands_whatever_the_prefix() -> None:
    done = gateways.complete(read({"isGateway": True, "ipam": STATIC}), allocated("10.1.2.3/32", gateway="10.1.2.3"))
    assert gateways.gateway_addresses(done.ips) == (ip_interface("10.1.2.3/32"),)


def test_default_routes_once_a_family() -> None:
    conf = read({"isDefaultGateway": True, "ipam": STATIC})
    done = gateways.complete(conf, allocated("10.1.2.3/24", "10.1.3.3/24", "fd00::9/64"))
    assert done.routes == (
        Route(dst=ip_network("0.0.0.0/0"), gw=ip_address("10.1.2.1")),
        Route(dst=ip_network("::/0"), gw=ip_address("fd00::1")),
    )


def test_ipams_default_route_with_a_gateway_is_kept() -> None:
    conf = read({"isDefaultGateway": True, "ipam": STATIC})
    own = Route(dst=ip_network("0.0.0.0/0"), gw=ip_address("10.1.2.9"))
    assert gateways.complete(conf, allocated("10.1.2.3/24", routes=(own,))).routes == (own,)


def test_ipams_default_route_without_a_gateway_takes_the_bridges() -> None:
    conf = read({"isDefaultGateway": True, "ipam": STATIC})
    bare = Route(dst=ip_network("0.0.0.0/0"), priority=50)
    done = gateways.complete(conf, allocated("10.1.2.3/24", "10.1.3.3/24", routes=(bare,)))
    assert done.routes == (Route(dst=ip_network("0.0.0.0/0"), gw=ip_address("10.1.2.1"), priority=50),)


def test_gateway_addresses_have_the_containers_prefix_ipv4_first() -> None:
    conf = read({"isGateway": True, "ipam": STATIC})
    done = gateways.complete(conf, allocated("fd00::9/64", "10.1.2.4/25", "10.1.2.3/25"))
    assert gateways.gateway_addresses(done.ips) == (ip_interface("10.1.2.1/25"), ip_interface("fd00::1/64"))


@pytest.mark.parametrize(
    ("present", "wanted", "expected"),
    [
        ([], "10.1.2.1/24", []),
        (["10.1.2.1/24"], "10.1.2.1/24", []),
        (["10.9.9.1/24", "10.1.2.1/24"], "10.1.2.1/24", []),
        (["10.9.9.1/24"], "10.1.2.1/24", ["10.9.9.1/24"]),
        (["10.1.2.1/25"], "10.1.2.1/24", ["10.1.2.1/25"]),
        (["fe80::1/64", "10.1.2.1/24"], "fd00::1/64", []),
        (["fd00::2/64", "fd01::1/64"], "fd00::1/64", ["fd00::2/64"]),
        (["fd00::2/48"], "fd00::1/64", ["fd00::2/48"]),
    ],
)
def test_in_the_way(present: list[str], wanted: str, expected: list[str]) -> None:
    found = gateways.in_the_way([ip_interface(a) for a in present], ip_interface(wanted))
    assert found == tuple(ip_interface(a) for a in expected)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5000, 5000) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["id", "minID", "maxID"]), inner),
    max_leaves=8,
)
KEYS = (
    "bridge isGateway isDefaultGateway forceAddress ipMasq ipMasqBackend mtu hairpinMode promiscMode vlan vlanTrunk "
    "preserveDefaultVlan macspoofchk enabledad disableContainerInterface portIsolation mac"
)


@given(st.dictionaries(st.sampled_from(KEYS.split()), JSON), st.dictionaries(st.just("MAC"), st.text(max_size=20)))
def test_whatever_comes_is_a_configuration_or_an_error_of_ours(keys: dict[str, Any], args: dict[str, str]) -> None:
    try:
        conf = read(keys, args=args)
    except CniError:
        return
    runs = [(vlan.first, vlan.last) for vlan in conf.trunk]
    assert all(1 <= first <= last <= 4094 for first, last in runs)
    assert all(before[1] + 1 < after[0] for before, after in itertools.pairwise(runs))


LONG = "a" * 200


@pytest.mark.parametrize(
    "key",
    [
        AttachmentKey("net", "c1", "eth0"),
        AttachmentKey(LONG, "c1", "eth0"),
        AttachmentKey("net", LONG, "eth0"),
        AttachmentKey(LONG, LONG, "fifteen-chars-x"),
    ],
)
def test_tag_fits_the_kernels_comment(key: AttachmentKey) -> None:
    assert len(rulesets.tag(key)) < 128
    assert rulesets.tag(key).count(" ") == 2


def test_tags_of_long_names_differ() -> None:
    assert rulesets.tag(AttachmentKey("n", LONG + "1", "e")) != rulesets.tag(AttachmentKey("n", LONG + "2", "e"))


def test_host_ifname_is_the_attachments_own() -> None:
    names = {
        bridging.host_ifname(AttachmentKey(*key))
        for key in (("n", "c", "eth0"), ("n", "c", "eth1"), ("n", "d", "eth0"), ("m", "c", "eth0"))
    }
    assert len(names) == 4
    assert all(len(name) == 15 and name.startswith("veth") for name in names)
