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
        ('[{"name":"a","ipam-claim-reference":"x.y","ips":null}]', (select("a", ipam_claim="x.y"),)),
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


def test_wishes_are_written_as_plugins_know_them() -> None:
    """Both ports and all four rates are always there; a limit of nothing is no wish."""
    asked = '[{"name":"a","portMappings":[{"hostPort":80}],"bandwidth":{"egressRate":1}},{"name":"a","bandwidth":{}}]'
    first, second = selections.parse(asked, "pods")
    assert selections.capability_args(first) == {
        "portMappings": [{"hostPort": 80, "containerPort": 0}],
        "bandwidth": {"ingressRate": 0, "ingressBurst": 0, "egressRate": 1, "egressBurst": 0},
    }
    assert selections.capability_args(second) == {}


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


# --- {ordinal} ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "ordinal", "wanted"),
    [
        ("vlan{ordinal}", 0, (select("vlan0"),)),
        ("vlan{ordinal}", 12, (select("vlan12"),)),
        ("vlan{ordinal+100}", 12, (select("vlan112"),)),
        ("vlan{ordinal-2}", 12, (select("vlan10"),)),
        ("{ordinal}", 3, (select("3"),)),  # no JSON, though it starts with a brace
        (" {ordinal+1}a , x/b{ordinal}@net{ordinal} ", 3, (select("4a"), select("b3", "x", ifname="net3"))),
        ("a{ordinal}-{ordinal+1}", 3, (select("a3-4"),)),
        ("a", 3, (select("a"),)),
        ('[{"name":"vlan{ordinal}","interface":"lan{ordinal+1}"}]', 4, (select("vlan4", ifname="lan5"),)),
        ('[{"name":"a","interfaceRequest":"lan{ordinal}"}]', 4, (select("a", ifname="lan4"),)),
        (
            '[{"name":"a","ips":["10.13.19.{ordinal+10}/24","fd00::{ordinal}","10.{ordinal}.0.9"]}]',
            10,
            (select("a", ips=(ip_interface("10.13.19.20/24"), ip_address("fd00::10"), ip_address("10.10.0.9"))),),
        ),
        ('[{"name":"a","mac":"02:00:00:00:00:{ordinal}"}]', 10, (select("a", mac="02:00:00:00:00:0a"),)),
        ('[{"name":"a","mac":"02-00-00-00-00-{ordinal+245}"}]', 10, (select("a", mac="02:00:00:00:00:ff"),)),
        ('[{"name":"a","mac":"0200.0000.00{ordinal}"}]', 171, (select("a", mac="02:00:00:00:00:ab"),)),
        # elsewhere it is text like any other
        ('[{"name":"a","cni-args":{"x":"{ordinal}"}}]', 4, (select("a", cni_args={"x": "{ordinal}"}),)),
    ],
)
def test_a_replica_reads_its_own_number(annotation: str, ordinal: int, wanted: tuple[NetworkSelection, ...]) -> None:
    assert selections.parse(annotation, "pods", ordinal=ordinal) == wanted


@pytest.mark.parametrize(
    ("annotation", "ordinal", "text"),
    [
        ("a,vlan{ordinal}", None, 'networks[1]: found "vlan{ordinal}" on a pod that is no replica'),
        ('[{"name":"a","ips":["10.0.0.{ordinal}"]}]', None, "networks[0].ips[0]: found"),
        ("vlan{ordinal-3}", 2, "no number below 0, and it is -1 for replica 2"),
        ("vlan{ordnal}", 2, 'found "vlan{ordnal}", expected braces only in "{ordinal}"'),
        ("vlan{ordinal*2}", 2, "expected braces only in"),
        ("vlan{ ordinal }", 2, "expected braces only in"),
        ("vlan{ordinal", 2, "expected braces only in"),
        ("vlan{{ordinal}}", 2, "expected braces only in"),
        ("vlan{ordinal+9999999999}", 2, "expected braces only in"),
        ("x{ordinal}/a", 2, '"{ordinal}" works in name, interface, ips and mac only'),
        ('[{"name":"a","namespace":"x{ordinal}"}]', 2, '"{ordinal}" works in name, interface, ips and mac only'),
        ('[{"name":"a","default-route":["10.0.0.{ordinal}"]}]', 2, '"{ordinal}" works in name, interface'),
        ('[{"name":"a","infiniband-guid":"{ordinal}"}]', 2, '"{ordinal}" works in name, interface'),
        ('[{"name":"a","deviceID":"{ordinal}"}]', 2, "expected the same device for all replicas"),
        (
            '[{"name":"a","ips":["10.0.0.{ordinal+250}/24"]}]',
            6,
            'ips[0]: found "10.0.0.256/24", made of "10.0.0.{ordinal+250}/24" for replica 6, expected an IP address',
        ),
        ("a@sixteen-letters{ordinal}", 6, 'made of "sixteen-letters{ordinal}" for replica 6'),
        ('[{"name":"a","mac":"02:00:00:00:00:{ordinal}"}]', 256, "at most 255 in a byte, and it is 256 for"),
        ("{name}", 2, "not JSON"),
        ('[{"name":"a","ips":["fe80::1%eth0"]}]', 2, "networks[0].ips[0]"),
    ],
)  # fmt: skip
def test_each_mistake_in_a_template_says_what_is_right(annotation: str, ordinal: int | None, text: str) -> None:
    with pytest.raises(CniError) as caught:
        selections.parse(annotation, "pods", ordinal=ordinal)
    assert text in caught.value.msg


# --- the default network ------------------------------------------------------------------------------------------


def test_the_default_network_is_one_selection_in_either_form() -> None:
    assert selections.parse_default("a", "kube-system") == select("a", "kube-system")
    assert selections.parse_default("x/a@up0", "kube-system") == select("a", "x", ifname="up0")
    assert selections.parse_default('[{"name":"a{ordinal}"}]', "kube-system", ordinal=2) == select("a2", "kube-system")


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        ("", "v1.multus-cni.io/default-network: found 0 networks, expected exactly one"),
        ("[]", "found 0 networks"),
        ("a,b", "found 2 networks"),
        ("A", "annotation v1.multus-cni.io/default-network[0]"),
        ('{"name":"a"}', "annotation v1.multus-cni.io/default-network: found"),
    ],
)
def test_a_wrong_default_network(annotation: str, text: str) -> None:
    with pytest.raises(InvalidNetConf) as caught:
        selections.parse_default(annotation, "kube-system")
    assert text in caught.value.msg


def test_a_selection_is_written_as_it_is_read() -> None:
    (selection,) = selections.parse(json.dumps([EVERYTHING]), "pods")
    written = {**EVERYTHING, "namespace": "pods", "mac": "0a:58:0a:00:00:01"}
    assert selections.encode(selection) == written
    assert selections.decode(written, "entry") == selection
    with pytest.raises(InvalidNetConf, match=r'annotation entry\.name: found "A"'):
        selections.decode({"name": "A", "namespace": "pods"}, "entry")


# --- status ----------------------------------------------------------------------------------------------------

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


def test_an_address_on_a_host_interface_leaves_nobody_the_default() -> None:
    """The first address with a gateway decides, wherever it is: so does the field's client library."""
    result = Result(interfaces=(BRIDGE, ETH0, ETH1), ips=(ip("10.0.0.8/24", 0, "10.0.0.1"), ip("10.0.0.9/24", 2)))
    assert [e.default for e in statuses.of_result("a", result, default=True)] == [False, False]


def test_letters_are_escaped_as_go_does() -> None:
    info = {"type": "<&>", "version": "\u2028"}
    text = statuses.text([NetworkStatus(name="a", device_info=info)])
    assert '"type": "\\u003c\\u0026\\u003e"' in text
    assert '"version": "\\u2028"' in text
    assert json.loads(text)[0]["device-info"] == info


def test_a_default_route_without_a_gateway_is_not_told() -> None:
    """Multus writes the text "<nil>", which no reader can take for an address."""
    result = Result(interfaces=(ETH0,), routes=(Route(dst=ip_network("0.0.0.0/0")),))
    assert "gateway" not in json.loads(statuses.text(statuses.of_result("a", result)))[0]
