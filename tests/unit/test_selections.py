"""Pod annotations: what a pod asks for, and what it is told."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest

from homeport.model.errors import CniError, InvalidNetConf
from homeport.model.results import DNS, Interface, IPConfig, Result, Route
from homeport.multinet import selections, statuses
from homeport.multinet.selections import Bandwidth, NetworkSelection, PortMapping
from homeport.multinet.statuses import NetworkStatus


def select(name: str, namespace: str = "pods", **rest: Any) -> NetworkSelection:
    return NetworkSelection(namespace=namespace, name=name, **rest)


@pytest.mark.parametrize(
    ("annotation", "wanted"),
    [
        ("", ()),
        (" \n", ()),
        ("a", (select("a"),)),
        ("a,b", (select("a"), select("b"))),
        (" a , x/b@net7 ", (select("a"), select("b", "x", ifname="net7"))),
        ("a,a@lan0", (select("a"), select("a", ifname="lan0"))),
        ("a@Up.1", (select("a", ifname="Up.1"),)),
        ("[]", ()),
        ('[{"name":"a"}]', (select("a"),)),
        (
            '[{"name":"a.b","namespace":"x","interface":"n1","interfaceRequest":"n2"}]',
            (select("a.b", "x", ifname="n1"),),
        ),
        ('[{"name":"a","interfaceRequest":"n2"}]', (select("a", ifname="n2"),)),
        ('[{"name":"a","ipam-claim-reference":"x","ips":null}]', (select("a"),)),
    ],
)
def test_both_forms(annotation: str, wanted: tuple[NetworkSelection, ...]) -> None:
    assert selections.parse(annotation, "pods") == wanted


EVERYTHING = {
    "name": "a",
    "ips": ["10.0.0.9", "10.0.0.10/24", "fd00::9/64"],
    "mac": "0A-58-0A-00-00-01",
    "infiniband-guid": "c2:11:22:33:44:55:66:77",
    "portMappings": [{"hostPort": 80, "containerPort": 8080, "protocol": "tcp", "hostIP": "10.0.0.1"}],
    "bandwidth": {"ingressRate": 1, "ingressBurst": 2, "egressRate": 3, "egressBurst": 4},
    "deviceID": "0000:00:1f.6",
    "cni-args": {"labels": {"x": 1}},
    "default-route": ["10.0.0.254", "fd00::fe"],
}


def test_every_field() -> None:
    assert selections.parse(json.dumps([EVERYTHING]), "pods") == (
        select(
            "a",
            ips=(ip_address("10.0.0.9"), ip_interface("10.0.0.10/24"), ip_interface("fd00::9/64")),
            mac="0a:58:0a:00:00:01",
            infiniband_guid="c2:11:22:33:44:55:66:77",
            port_mappings=(PortMapping(host_port=80, container_port=8080, protocol="tcp", host_ip="10.0.0.1"),),
            bandwidth=Bandwidth(ingress_rate=1, ingress_burst=2, egress_rate=3, egress_burst=4),
            device_id="0000:00:1f.6",
            cni_args={"labels": {"x": 1}},
            default_route=(ip_address("10.0.0.254"), ip_address("fd00::fe")),
        ),
    )


def test_an_empty_default_route_is_not_an_absent_one() -> None:
    assert selections.parse('[{"name":"a","default-route":[]}]', "p")[0].default_route == ()


def test_wishes_under_the_names_of_capabilities() -> None:
    selection = selections.parse(json.dumps([EVERYTHING]), "pods")[0]
    assert selections.capability_args(selection) == {
        "portMappings": EVERYTHING["portMappings"],
        "bandwidth": EVERYTHING["bandwidth"],
        "ips": EVERYTHING["ips"],
        "mac": "0a:58:0a:00:00:01",
        "infinibandGUID": "c2:11:22:33:44:55:66:77",
        "deviceID": "0000:00:1f.6",
    }
    assert selections.args(selection) == {"MAC": "0a:58:0a:00:00:01", "IP": "10.0.0.9,10.0.0.10/24,fd00::9/64"}
    assert selections.capability_args(select("a")) == selections.args(select("a")) == {}


@pytest.mark.parametrize("mac", ["0a:58:0a:00:00:01", "0A-58-0A-00-00-01", "0a58.0a00.0001"])
def test_hardware_addresses_as_go_reads_them(mac: str) -> None:
    assert selections.parse(json.dumps([{"name": "a", "mac": mac}]), "p")[0].mac == "0a:58:0a:00:00:01"


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        ("a,", 'networks[1]: found "", expected'),
        ("a/b/c", 'networks[0]: found "a/b/c", expected [NAMESPACE/]NAME[@IFNAME]'),
        ("a@b@c", "networks[0]"),
        ("/a", "networks[0]"),
        ("a@", "networks[0]"),
        ("a@b/c", "networks[0]"),
        ("UPPER", "names of lower-case letters"),
        ("a.b", "names of lower-case letters"),
        ("a@" + "x" * 16, "an interface name"),
        ('{"name":"a"}', "expected a JSON list"),
        ('"a"', "expected a JSON list"),
        ("[", "not JSON"),
        ('["a"]', 'networks[0]": found "a", expected object'),
        ("[{}]", 'networks[0].name": missing'),
        ('[{"name":"../a"}]', 'networks[0].name: found "../a"'),
        ('[{"name":"a","namespace":"a/b"}]', "networks[0].namespace"),
        ('[{"name":"a","interface":"a/b"}]', "networks[0].interface"),
        ('[{"name":"a"},{"name":"b","ips":["10.0.0.1","x"]}]', 'networks[1].ips[1]: found "x", expected an IP address'),
        ('[{"name":"a","ips":["10.0.0.1/40"]}]', "networks[0].ips[0]"),
        ('[{"name":"a","ips":"10.0.0.1"}]', 'networks[0].ips": found "10.0.0.1", expected array'),
        ('[{"name":"a","mac":"0a:58"}]', "networks[0].mac"),
        ('[{"name":"a","mac":"0a:58:0a:00:00:0g"}]', "networks[0].mac"),
        ('[{"name":"a","infiniband-guid":"x"}]', "networks[0].infiniband-guid"),
        ('[{"name":"a","portMappings":[{"hostPort":"80"}]}]', "networks[0].portMappings[0].hostPort"),
        ('[{"name":"a","default-route":["gw"]}]', "networks[0].default-route[0]"),
        ('[{"name":"a","default-route":"10.0.0.1"}]', "networks[0].default-route"),
        ('[{"name":"a","cni-args":[]}]', "networks[0].cni-args"),
    ],
)
def test_each_mistake_names_its_entry(annotation: str, text: str) -> None:
    with pytest.raises(CniError) as caught:
        selections.parse(annotation, "pods")
    assert text in caught.value.msg


def test_a_lone_surrogate_is_an_error_like_another() -> None:
    with pytest.raises(CniError):
        selections.parse('[{"name":"\udc80"}]', "pods")
    with pytest.raises(InvalidNetConf):
        selections.parse("\udc80", "pods")


BRIDGE = Interface(name="br0", mac="02:00:00:00:00:01")
ETH0 = Interface(name="eth0", mac="02:00:00:00:00:02", sandbox="/run/netns/a", mtu_bytes=1400)
ETH1 = Interface(name="eth1", mac="02:00:00:00:00:03", sandbox="/run/netns/a")
DEFAULT = Route(dst=ip_network("0.0.0.0/0"), gw=ip_address("10.0.0.1"))
DNS53 = DNS(nameservers=("10.0.0.53",))


def ip(text: str, interface: int | None = None, gateway: str | None = None) -> IPConfig:
    return IPConfig(address=ip_interface(text), interface=interface, gateway=ip_address(gateway) if gateway else None)


def test_the_status_text_is_the_field_s_to_the_byte() -> None:
    result = Result(interfaces=(ETH0,), ips=(ip("10.0.0.9/24", 0),), routes=(DEFAULT,), dns=DNS53)
    entries = statuses.of_result("pods/a", result, default=True, device_info={"type": "pci", "version": "1.1.0"})
    assert statuses.text([*entries, NetworkStatus(name="b")]) == (
        """[{
    "name": "pods/a",
    "interface": "eth0",
    "ips": [
        "10.0.0.9"
    ],
    "mac": "02:00:00:00:00:02",
    "mtu": 1400,
    "default": true,
    "dns": {
        "nameservers": [
            "10.0.0.53"
        ]
    },
    "device-info": {
        "type": "pci",
        "version": "1.1.0"
    },
    "gateway": [
        "10.0.0.1"
    ]
},{
    "name": "b",
    "dns": {}
}]"""
    )
    assert statuses.text([]) == "[]"


def test_one_interface_has_all_addresses() -> None:
    result = Result(interfaces=(ETH0,), ips=(ip("10.0.0.9/24"), ip("10.0.1.9/24", 5)))
    (entry,) = statuses.of_result("a", result)
    assert entry.ips == (ip_address("10.0.0.9"), ip_address("10.0.1.9"))


def test_one_interface_on_the_host_is_not_told_of() -> None:
    (entry,) = statuses.of_result("a", Result(interfaces=(BRIDGE,), ips=(ip("10.0.0.9/24"),)))
    assert entry == NetworkStatus(name="a", ips=(ip_address("10.0.0.9"),))


def test_no_interface_no_entry() -> None:
    assert statuses.of_result("a", Result(ips=(ip("10.0.0.9/24"),)), default=True) == ()


def test_several_interfaces_have_an_entry_each_and_one_is_default() -> None:
    result = Result(
        interfaces=(BRIDGE, ETH0, ETH1),
        ips=(ip("10.0.0.8/24", 1), ip("10.0.0.9/24", 2, "10.0.0.1"), ip("10.0.0.10/24")),
    )
    entries = statuses.of_result("a", result, default=True)
    assert [(e.interface, e.default, [str(i) for i in e.ips]) for e in entries] == [
        ("eth0", False, ["10.0.0.8"]),
        ("eth1", True, ["10.0.0.9", "10.0.0.10"]),
    ]


def test_without_a_gateway_the_first_interface_inside_is_default() -> None:
    result = Result(interfaces=(BRIDGE, ETH0, ETH1), ips=(ip("10.0.0.9/24", 2),))
    assert [e.default for e in statuses.of_result("a", result, default=True)] == [True, False]
    assert [e.default for e in statuses.of_result("a", result)] == [False, False]


def test_gateways_are_those_of_default_routes() -> None:
    result = Result(
        interfaces=(ETH0,),
        routes=(
            DEFAULT,
            Route(dst=ip_network("10.5.0.0/16"), gw=ip_address("10.0.0.2")),
            Route(dst=ip_network("0.0.0.0/1"), gw=ip_address("10.0.0.3")),
            Route(dst=ip_network("::/0")),
        ),
    )
    assert statuses.of_result("a", result)[0].gateways == (ip_address("10.0.0.1"), ip_address("10.0.0.3"))
