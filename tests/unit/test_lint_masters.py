"""The rules about the links that networks stand on, and their MTU."""

from __future__ import annotations

import pytest
from tests.lint_manifests import (
    host_local,
    listed,
    nad,
    plugin,
    require_firing,
    require_silent,
    static,
    whereabouts,
    workload,
)

V4, V6 = whereabouts('"range":"10.1.0.0/24"'), whereabouts('"range":"fd00::/64"')
OTHER = whereabouts('"range":"10.2.0.0/24"')


def on(kind: str, master: str, keys: str = "", *, name: str = "net", ipam: str = V4) -> str:
    """A network whose interface stands on `master`, which is JSON."""
    return listed(plugin(kind, ipam, ",".join(part for part in (f'"master":{master}', keys) if part)), name=name)


def bridge(keys: str = "", *, name: str = "net", ipam: str = V4) -> str:
    return listed(plugin("bridge", ipam, keys), name=name)


def device(name: str) -> str:
    return listed(plugin("host-device", "", '"device":"eth1"'), name=name)


MACVLAN, IPVLAN = on("macvlan", '"eth1"', name="a"), on("ipvlan", '"eth1"', name="b", ipam=OTHER)
JUMBO = on("macvlan", '"eth1"', '"mtu":9000', name="a")
INNER = '"linkInContainer":true'

FIRING = [
    ("master-conflict", MACVLAN + on("ipvlan", '«"eth1"', name="b", ipam=OTHER)),
    ("master-conflict", IPVLAN + on("macvlan", '«"eth1"', name="a")),
    ("master-conflict", MACVLAN + on("macvlan", '«"eth1"', '"mode":"passthru"', name="b", ipam=OTHER)),
    ("master-conflict", on("macvlan", '"eth1"', '"mode":"passthru"', name="a") + on("ipvlan", '«"eth1"', name="b")),
    ("master-conflict", listed(plugin("macvlan"), name="a") + listed('{"type":«"ipvlan","ipam":' + V4 + "}", name="b")),
    ("ipvlan-mode-conflict", IPVLAN + on("ipvlan", '«"eth1"', '"mode":"l3"', name="c", ipam=V6)),
    ("pod-master-conflict", MACVLAN + IPVLAN + workload("a,«b")),
    ("pod-master-conflict", MACVLAN + IPVLAN + workload('\'[{"name":"a"},{"interface":"b","name":"«b"}]\'')),
    ("pod-master-conflict", on("macvlan", '"eth1"', '"mode":"passthru"') + workload("net,«net")),
    ("pod-master-conflict", on("vlan", '"eth1"', '"vlanId":5') + workload("net@a,«net@b")),
    ("pod-master-conflict", device("a") + device("b") + workload("a,«b")),
    ("pod-master-conflict", MACVLAN + on("ipvlan", '"eth1"', name="b2", ipam=OTHER) + workload("a,«b{ordinal+2}")),
    ("one-pod-a-node", on("vlan", '"eth1"', '"vlanId":5') + workload("«net", replicas=2)),
    ("one-pod-a-node", on("macvlan", '"eth1"', '"mode":"passthru"') + workload("«net", replicas=2, kind="Deployment")),
    ("one-pod-a-node", device("net") + workload("«net", replicas=2, pod="{nodeName: n1}")),
    ("mtu-below-ipv6", on("macvlan", '"eth1"', '"mtu":«1279', ipam=V6)),
    ("mtu-below-ipv6", on("macvlan", '"eth1"', '"mtu":«1000', ipam=static("10.1.0.5/24", "fd00::5/64"))),
    ("mtu-below-ipv6", listed(plugin("ipvlan", V6), '{"type":"tuning","mtu":«1000}')),
    (
        "mtu-mismatch",
        on("macvlan", '"eth1"', '"mtu":9000', name="a") + on("macvlan", '"eth1"', '"mtu":«1500', name="b"),
    ),
    ("mtu-mismatch", bridge('"mtu":1400,"bridge":"br0"', name="a") + on("ipvlan", '"br0"', '"mtu":«1500', name="b")),
    ("pod-master", on("ipvlan", '"net2"', INNER) + workload("«net")),
    ("pod-master", MACVLAN + on("ipvlan", '"a0"', INNER, ipam=OTHER) + workload("«net,a@a0")),
    (
        "bandwidth-without-veth",
        listed(plugin("macvlan", V4), '{"type":"bandwidth",«"ingressRate":1000,"ingressBurst":9}'),
    ),
    (
        "bandwidth-without-veth",
        listed(plugin("ipvlan", V4), '{"type":"bandwidth","capabilities":{"bandwidth":true}}')
        + workload('\'[{"name":"net","bandwidth":«{"ingressRate":1000,"ingressBurst":9}}]\''),
    ),
    (
        "pod-master-mtu",
        on("macvlan", '"eth1"', '"mtu":1500', name="a")
        + on("vlan", '"net1"', '"vlanId":5,"mtu":9000,' + INNER, ipam=OTHER)
        + workload("a,«net"),
    ),
]

SILENT = {
    "macvlan on two links": MACVLAN + on("ipvlan", '"eth2"', name="b", ipam=OTHER),
    "macvlan twice": MACVLAN + on("macvlan", '"eth1"', '"mode":"vepa"', name="b", ipam=OTHER),
    "passthru twice, for two nodes": on("macvlan", '"eth1"', '"mode":"passthru"', name="a")
    + on("macvlan", '"eth1"', '"mode":"passthru"', name="b", ipam=OTHER),
    "macvlan beside a VLAN": MACVLAN + on("vlan", '"eth1"', '"vlanId":5', name="b", ipam=OTHER) + workload("a,b"),
    "one object in two overlays": on("macvlan", '"eth1"') + on("ipvlan", '"eth1"'),
    "masters inside the pod": MACVLAN + on("ipvlan", '"eth1"', INNER, name="b", ipam=OTHER),
    "a link and the default route's": listed(plugin("macvlan", V4), name="a") + IPVLAN,
    "ipvlan chained behind macvlan": listed(plugin("macvlan", V4, '"master":"eth1"'), plugin("ipvlan", V4)),
    "one mode, once by default": IPVLAN + on("ipvlan", '"eth1"', '"mode":"l2"', name="c"),
    "two VLANs": on("vlan", '"eth1"', '"vlanId":5', name="a")
    + on("vlan", '"eth1"', '"vlanId":6', name="b", ipam=OTHER)
    + workload("a,b"),
    "one pod of a VLAN": on("vlan", '"eth1"', '"vlanId":5') + workload(),
    "a pod of a VLAN on every node": on("vlan", '"eth1"', '"vlanId":5') + workload(kind="DaemonSet"),
    "pods of a VLAN that are kept apart": on("vlan", '"eth1"', '"vlanId":5')
    + workload(replicas=3, pod="{affinity: {podAntiAffinity: {}}}"),
    "many pods of macvlan": MACVLAN + workload("a", replicas=3),
    "a network twice": MACVLAN + workload("a,a"),
    "a pod of the node's network": MACVLAN
    + on("macvlan", '"eth1"', '"mode":"passthru"', name="p", ipam=OTHER).replace('"eth1"', '"eth2"')
    + workload("p,p", pod="{hostNetwork: true}"),
    "mtu 1280 with IPv6": on("macvlan", '"eth1"', '"mtu":1280', ipam=V6),
    "mtu 0 with IPv6": on("macvlan", '"eth1"', '"mtu":0', ipam=V6),
    "a small mtu without IPv6": on("macvlan", '"eth1"', '"mtu":576'),
    "MTUs of two subnets": JUMBO + on("macvlan", '"eth1"', '"mtu":1500', name="b", ipam=OTHER),
    "MTUs of two links": on("macvlan", '"eth1"', '"mtu":9000', name="a", ipam=whereabouts('"range":"10.1.0.0/25"'))
    + on("macvlan", '"eth2"', '"mtu":1500', name="b", ipam=whereabouts('"range":"10.1.0.128/25"')),
    "MTUs of two VLANs": bridge('"mtu":9000,"vlan":5', name="a", ipam=host_local('"subnet":"10.3.0.0/24"'))
    + bridge('"mtu":1500,"vlan":6', name="b", ipam=host_local('"subnet":"10.4.0.0/24"')),
    "an MTU left to the kernel": MACVLAN + on("macvlan", '"eth1"', '"mtu":1500', name="b", ipam=OTHER),
    "a master made before": MACVLAN
    + on("ipvlan", '"net1"', INNER, name="b", ipam=OTHER)
    + on("vlan", '"eth0"', '"vlanId":7,' + INNER, name="c", ipam=V6)
    + workload("a,b,c"),
    "a master that a network makes which is not here": on("ipvlan", '"net1"', INNER) + workload("elsewhere,net"),
    "bandwidth of a veth": listed(plugin("bridge", V4), '{"type":"bandwidth","ingressRate":1000,"ingressBurst":9}'),
    "bandwidth without limits": listed(plugin("macvlan", V4), '{"type":"bandwidth","capabilities":{"bandwidth":true}}'),
    "a VLAN of the same MTU": on("macvlan", '"eth1"', '"mtu":1500', name="a")
    + on("vlan", '"net1"', '"vlanId":5,"mtu":1500,' + INNER, ipam=OTHER)
    + workload("a,net"),
    "a master in the catalogue's other types": nad('{"cniVersion":"0.4.0","type":"sriov","master":"eth1"}'),
}


@pytest.mark.parametrize(("rule", "marked"), [pytest.param(r, m, id=f"{r}-{n}") for n, (r, m) in enumerate(FIRING)])
def test_a_rule_fires_where_the_mistake_stands(rule: str, marked: str) -> None:
    require_firing(rule, marked)


@pytest.mark.parametrize("text", SILENT.values(), ids=SILENT.keys())
def test_what_is_right_is_silent(text: str) -> None:
    require_silent(text, "definition-twice", "host-network", "unknown-network")
