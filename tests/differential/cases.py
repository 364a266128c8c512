"""Configurations in which the reference plugins and ours agree, but for the differences a case names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

VERSIONS = ("0.3.1", "0.4.0", "1.0.0")  # the reference plugins 1.1.1 know no later one

Plugin = Mapping[str, Any]


@dataclass(frozen=True)
class Case:
    """`prepare` are commands on the node or in the pod, done on both sides first. `differs` are IDs of allowances.

    `false_alarm`: the reference plugins' CHECK finds fault with what their own ADD made.
    """

    name: str
    plugins: Sequence[Plugin]
    args: str = ""
    prepare: Sequence[tuple[str, str]] = ()
    differs: Sequence[str] = ()
    false_alarm: bool = False

    @property
    def has_sbr(self) -> bool:
        return any(plugin["type"] == "sbr" for plugin in self.plugins)


def static(*addresses: str, gateways: Mapping[str, str] | None = None, **more: Any) -> dict[str, Any]:
    """`gateways` by address."""
    found = [{"address": a, **({"gateway": gateways[a]} if gateways and a in gateways else {})} for a in addresses]
    return {"type": "static", "addresses": found, **more}


def host_local(**keys: Any) -> dict[str, Any]:
    return {"type": "host-local", "dataDir": "{data}/networks", **keys}


def bridge(ipam: Mapping[str, Any] | None = None, **keys: Any) -> Plugin:
    return {"type": "bridge", "bridge": "br0", **({"ipam": ipam} if ipam is not None else {}), **keys}


def macvlan(ipam: Mapping[str, Any] | None = None, **keys: Any) -> Plugin:
    return {"type": "macvlan", "master": "eth1", **({"ipam": ipam} if ipam is not None else {}), **keys}


def ipvlan(ipam: Mapping[str, Any] | None = None, **keys: Any) -> Plugin:
    return {"type": "ipvlan", "master": "eth1", **({"ipam": ipam} if ipam is not None else {}), **keys}


SBR: Plugin = {"type": "sbr"}
DUAL = static("10.1.2.3/24", "fd00:1::3/64")
GATEWAYS = {"10.1.2.3/24": "10.1.2.1", "10.1.3.3/24": "10.1.3.1", "fd00:1::3/64": "fd00:1::1"}
ROUTED = static(
    "10.1.2.3/24",
    "fd00:1::3/64",
    gateways=GATEWAYS,
    routes=[
        {"dst": "0.0.0.0/0"},
        {"dst": "10.9.0.0/16", "gw": "10.1.2.9"},
        {"dst": "192.168.0.0/24"},
        {"dst": "::/0"},
        {"dst": "fd09::/32", "gw": "fd00:1::9"},
    ],
    dns={"nameservers": ["10.1.2.53"], "domain": "example.org", "search": ["example.org"], "options": ["ndots:2"]},
)
OWN_DNS = {"nameservers": ["192.0.2.53"], "search": ["example.net"]}
RANGES = [[{"subnet": "10.1.2.0/24", "rangeStart": "10.1.2.20", "rangeEnd": "10.1.2.29"}], [{"subnet": "fd00:1::/64"}]]
CNI_IPS = {"cni": {"ips": ["10.1.5.3/24"]}}
MAC_ARGS = "IgnoreUnknown=1;MAC=02:11:22:33:44:55"
MAC_RUNTIME = {"mac": "02:11:22:33:44:56"}

BRIDGES = (
    Case("bridge", [bridge(static("10.1.2.3/24"))]),
    Case("bridge-default-name", [{"type": "bridge", "ipam": static("10.1.2.3/24")}]),
    Case("bridge-layer-2", [bridge()], false_alarm=True),
    Case("bridge-empty-ipam", [bridge({})], false_alarm=True),
    Case("bridge-dual", [bridge(DUAL)]),
    Case("bridge-routed", [bridge(ROUTED)], differs=["ipam-dns"], false_alarm=True),
    Case("bridge-gateway", [bridge(DUAL, isGateway=True)]),
    Case("bridge-gateway-of-ipam", [bridge(ROUTED, isGateway=True)], differs=["ipam-dns"], false_alarm=True),
    Case("bridge-default-gateway", [bridge(DUAL, isDefaultGateway=True)]),
    Case("bridge-masquerading", [bridge(DUAL, isDefaultGateway=True, ipMasq=True)]),
    Case("bridge-macspoofchk", [bridge(DUAL, macspoofchk=True)]),
    Case("bridge-hairpin", [bridge(static("10.1.2.3/24"), hairpinMode=True)]),
    Case("bridge-promiscuous", [bridge(static("10.1.2.3/24"), promiscMode=True)]),
    Case("bridge-mtu", [bridge(DUAL, isGateway=True, mtu=1400)]),
    Case("bridge-enabledad", [bridge(DUAL, enabledad=True)]),
    Case("bridge-dns", [bridge(ROUTED, dns=OWN_DNS)], false_alarm=True),
    Case("bridge-mac-args", [bridge(DUAL)], args=MAC_ARGS),
    Case("bridge-mac-runtime", [bridge(DUAL, runtimeConfig=MAC_RUNTIME)], args=MAC_ARGS),
    Case("bridge-present", [bridge(DUAL, isGateway=True)], prepare=[("node", "ip link add br0 type bridge")]),
    Case(
        "bridge-present-with-address",
        [bridge(DUAL, isGateway=True)],
        prepare=[("node", "ip link add br0 type bridge"), ("node", "ip address add 10.1.2.1/24 dev br0")],
    ),
    Case(
        "bridge-force-address",
        [bridge(DUAL, isGateway=True, forceAddress=True)],
        prepare=[
            ("node", "ip link add br0 up type bridge"),
            ("node", "ip address add 10.7.7.7/24 dev br0"),
            ("node", "ip address add fd00:1::7/48 dev br0"),
            ("node", "ip address add fd00:2::7/64 dev br0"),
        ],
    ),
    Case("bridge-host-local", [bridge(host_local(subnet="10.1.2.0/24"), isGateway=True)]),
    Case("bridge-host-local-ranges", [bridge(host_local(ranges=RANGES), isDefaultGateway=True, ipMasq=True)]),
    Case("bridge-sbr", [bridge(ROUTED), SBR], differs=["sbr-families", "ipam-dns"], false_alarm=True),
)

MACVLANS = (
    Case("macvlan", [macvlan(static("10.1.2.3/24"))]),
    Case("macvlan-default-master", [{"type": "macvlan", "ipam": static("10.1.2.3/24")}]),
    *(Case(f"macvlan-{mode}", [macvlan(DUAL, mode=mode)]) for mode in ("private", "vepa", "passthru")),
    Case("macvlan-mtu", [macvlan(DUAL, mtu=1400)]),
    Case("macvlan-layer-2", [macvlan()]),
    Case("macvlan-routed", [macvlan(ROUTED)], differs=["ipam-dns"], false_alarm=True),
    Case("macvlan-mac", [macvlan(DUAL, mac="02:11:22:33:44:57")]),
    Case("macvlan-mac-args", [macvlan(DUAL, mac="02:11:22:33:44:57")], args=MAC_ARGS),
    Case("macvlan-mac-runtime", [macvlan(DUAL, runtimeConfig=MAC_RUNTIME)], args=MAC_ARGS),
    Case("macvlan-dns", [macvlan(ROUTED, dns=OWN_DNS)], false_alarm=True),
    Case("macvlan-host-local", [macvlan(host_local(ranges=RANGES))]),
    Case("macvlan-host-local-routed", [macvlan(host_local(ranges=RANGES, routes=[{"dst": "::/0"}]))]),
)

# Few, and each with much in it: they run on the emulated kernel.
IPVLANS = (
    Case("ipvlan-l2-sbr", [ipvlan(host_local(ranges=RANGES)), SBR], differs=["sbr-families"], false_alarm=True),
    Case(
        "ipvlan-l3s-default-master",
        [{"type": "ipvlan", "mode": "l3s", "mtu": 1400, "ipam": ROUTED}],
        differs=["ipam-dns"],
        false_alarm=True,
    ),
)

CHAINS = tuple(
    Case(name, [macvlan(ipam), SBR], prepare=prepare, differs=["sbr-families", *also], false_alarm=True)
    for name, ipam, prepare, also in (
        ("sbr", static("10.1.2.3/24", gateways=GATEWAYS), (), ()),
        ("sbr-without-gateway", static("10.1.2.3/24"), (), ()),
        ("sbr-dual", static("10.1.2.3/24", "fd00:1::3/64", gateways=GATEWAYS), (), ()),
        ("sbr-routed", ROUTED, (), ["ipam-dns"]),
        ("sbr-two-addresses", static("10.1.2.3/24", "10.1.3.3/24", gateways=GATEWAYS), (), ()),
        (
            "sbr-tables-in-use",
            static("10.1.2.3/24", gateways=GATEWAYS),
            [("pod", "ip rule add from 10.99.0.1 lookup 100"), ("pod", "ip -6 rule add from fd99::1 lookup 101")],
            (),
        ),
    )
)

IPAM = (
    Case("static-args", [macvlan({"type": "static"})], args="IgnoreUnknown=1;IP=10.1.2.3/24;GATEWAY=10.1.2.1"),
    Case(
        "static-args-added",
        [macvlan(static("10.1.2.3/24"))],
        args="IgnoreUnknown=1;IP=10.1.4.3/24,fd00:1::4/64;GATEWAY=10.1.4.1,fd00:1::1",
    ),
    Case("static-cni-args", [macvlan(static("10.1.2.3/24"), args=CNI_IPS)]),
    Case(
        "static-runtime",
        [
            macvlan(
                static("10.1.2.3/24"), runtimeConfig={"ips": ["10.1.6.3/24"]}, args={"cni": {"ips": ["10.1.5.3/24"]}}
            )
        ],
    ),
    *(
        Case(name, [macvlan(host_local(**keys))], args=args)
        for name, args, keys in (
            ("host-local-start", "", {"subnet": "10.1.2.0/24", "rangeStart": "10.1.2.77", "gateway": "10.1.2.254"}),
            ("host-local-gateway-skipped", "", {"subnet": "10.1.2.0/24", "gateway": "10.1.2.2"}),
            ("host-local-ipv6", "", {"subnet": "fd00:1::/64"}),
            ("host-local-two-ranges", "", {"ranges": [[{"subnet": "10.1.2.0/30"}, {"subnet": "10.1.3.0/24"}]]}),
            ("host-local-args", "IgnoreUnknown=1;IP=10.1.2.44", {"subnet": "10.1.2.0/24"}),
        )
    ),
    # By itself, as the reference macvlan would drop what it reads.
    Case(
        "host-local-resolv-conf",
        [{"type": "host-local", "ipam": host_local(subnet="10.1.2.0/24", resolvConf="{data}/resolv.conf")}],
    ),
    *(
        Case(name, [macvlan(host_local(ranges=RANGES), **keys)])
        for name, keys in (
            ("host-local-cni-args", {"args": {"cni": {"ips": ["10.1.2.25", "fd00:1::99"]}}}),
            ("host-local-runtime-ips", {"runtimeConfig": {"ips": ["10.1.2.26"]}}),
            ("host-local-runtime-ranges", {"runtimeConfig": {"ipRanges": [[{"subnet": "10.7.9.0/24"}]]}}),
        )
    ),
)

CASES = (*BRIDGES, *MACVLANS, *CHAINS, *IPAM, Case("loopback", [{"type": "loopback"}], differs=["loopback-versions"]))
