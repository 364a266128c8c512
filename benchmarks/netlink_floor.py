"""`python -m benchmarks.netlink_floor`: what the kernel itself takes, and what our verbs take for the same links.

The floor is bytes encoded beforehand: it opens the two sockets that any program needs for a fresh pod, entering its
namespace, and sends the requests of one attachment and nothing else. Above it stand our verbs, inside one operation as
a plugin uses them, finding out what the floor was told (the parent's index, the new link's) and able to undo it all;
and pyroute2 with sockets opened beforehand, which is what our own message format is measured against.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from functools import partial

import msgspec
from benchmarks.contestants import Contestant
from benchmarks.measuring import Figure
from benchmarks.stage import IFNAME, UPLINK, Pod

from benchmarks import measuring, stage
from homeport.host import addressing, entering, linking, netlink, routing, uapi
from homeport.host.kernel import Kernel
from homeport.ports import KernelRoute, Rule

FLOOR = "bare netlink"
TABLE = 100
INDEX = 1000  # the floor chooses its link's index, so that everything can be encoded beforehand
ADDRESS = ipaddress.ip_interface("10.99.1.7/16")
RULE = Rule(family=4, src=ipaddress.ip_network("10.99.1.7/32"), table=TABLE)
DEFAULT = KernelRoute(
    dst=ipaddress.ip_network("0.0.0.0/0"), gw=ipaddress.ip_address("10.99.0.1"), link=IFNAME, table=TABLE
)
CONNECTED = KernelRoute(dst=ADDRESS.network, link=IFNAME, src=ADDRESS.ip, scope=253, table=TABLE)
CONNECTED_IN_MAIN = msgspec.structs.replace(CONNECTED, table=254)


def _opened() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, uapi.NETLINK_ROUTE)


def _exchange(wire: socket.socket, request: bytes) -> None:
    wire.send(request)
    code = struct.unpack_from("=i", wire.recv(4096), 16)[0]
    if code:
        raise SystemExit(f"netlink_floor: {os.strerror(-code)}")


class BareNetlink:
    """macvlan, an address, and what sbr makes of its routes, for one pod. `Contestant` of `benchmarks.contestants`."""

    def __init__(self, name: str, pod: Pod) -> None:
        self.name = name
        self._namespace = os.open(pod.netns_path, os.O_RDONLY)
        creates, up = uapi.NLM_F_CREATE | uapi.NLM_F_EXCL, uapi.IFF_UP
        self._create = _request(uapi.RTM_NEWLINK, self._macvlan(), creates)
        self._adds = [
            _request(uapi.RTM_NEWADDR, addressing.encode_address(INDEX, ADDRESS), creates),
            _request(uapi.RTM_SETLINK, linking.header(INDEX, flags=up, change=up)),
            _request(uapi.RTM_NEWRULE, routing.encode_rule(RULE), creates),
            _request(uapi.RTM_NEWROUTE, routing.encode_route(CONNECTED, INDEX), uapi.NLM_F_CREATE),
            _request(uapi.RTM_NEWROUTE, routing.encode_route(DEFAULT, INDEX), uapi.NLM_F_CREATE),
            _request(uapi.RTM_DELROUTE, routing.encode_route(CONNECTED_IN_MAIN, INDEX, deleting=True)),
        ]
        self._deletes = [
            _request(uapi.RTM_DELRULE, routing.encode_rule(RULE)),
            _request(uapi.RTM_DELLINK, linking.header(INDEX)),
        ]

    def _macvlan(self) -> bytes:
        info = netlink.text(uapi.IFLA_INFO_KIND, "macvlan")
        info += netlink.nested(uapi.IFLA_INFO_DATA, netlink.u32(uapi.IFLA_MACVLAN_MODE, 4))
        return (
            linking.header(INDEX)
            + netlink.text(uapi.IFLA_IFNAME, IFNAME)
            + netlink.u32(uapi.IFLA_LINK, socket.if_nametoindex(UPLINK))
            + netlink.u32(uapi.IFLA_NET_NS_FD, self._namespace)
            + netlink.nested(uapi.IFLA_LINKINFO, info)
        )

    def add(self, pod: Pod) -> None:
        with _opened() as here, entering.inside(pod.netns_path, _opened) as there:
            _exchange(here, self._create)
            for request in self._adds:
                _exchange(there, request)

    def delete(self, pod: Pod) -> None:
        with entering.inside(pod.netns_path, _opened) as there:
            for request in self._deletes:
                _exchange(there, request)


class Verbs:
    """The same by `ports.Host`."""

    def __init__(self, name: str, *, short_lived: bool) -> None:
        self.name = name
        self._host = Kernel(short_lived=short_lived)

    def add(self, pod: Pod) -> None:
        netns = pod.netns_path
        with self._host.operation():
            self._host.create_macvlan(IFNAME, netns=netns, parent=UPLINK)
            self._host.add_address(IFNAME, ADDRESS, netns)
            self._host.set_link(IFNAME, netns, up=True)
            self._host.add_rule(RULE, netns)
            self._host.add_route(CONNECTED, netns)
            self._host.add_route(DEFAULT, netns)
            self._host.delete_route(CONNECTED_IN_MAIN, netns)

    def delete(self, pod: Pod) -> None:
        with self._host.operation(undo_on_error=False):
            self._host.delete_rule(RULE, pod.netns_path)
            self._host.delete_links([IFNAME], pod.netns_path)


class Pyroute2:
    """The same by the library's own calls, as its documentation shows them."""

    def __init__(self, name: str, pod: Pod) -> None:
        from pyroute2 import IPRoute

        self.name = name
        self._here, self._there = IPRoute(), IPRoute(netns=pod.netns_path)

    def add(self, pod: Pod) -> None:
        link, here, there = {"kind": "macvlan", "macvlan_mode": "bridge"}, self._here, self._there
        (parent,) = here.link_lookup(ifname=UPLINK)
        here.link("add", ifname=IFNAME, link=parent, net_ns_fd=pod.netns_path, **link)
        (index,) = there.link_lookup(ifname=IFNAME)
        there.addr("add", index=index, address=str(ADDRESS.ip), prefixlen=ADDRESS.network.prefixlen)
        there.link("set", index=index, state="up")
        there.rule("add", src=str(ADDRESS.ip), src_len=32, table=TABLE)
        connected = {"dst": str(ADDRESS.network), "oif": index, "scope": 253, "prefsrc": str(ADDRESS.ip)}
        there.route("add", table=TABLE, **connected)
        there.route("add", dst="default", gateway=str(DEFAULT.gw), oif=index, table=TABLE)
        there.route("delete", table=254, **connected)

    def delete(self, _: Pod) -> None:
        self._there.rule("delete", src=str(ADDRESS.ip), src_len=32, table=TABLE)
        (index,) = self._there.link_lookup(ifname=IFNAME)
        self._there.link("delete", index=index)


def measure(rounds: int) -> list[Figure]:
    """ADD and DEL by each, as ratios to the floor."""
    pods = [stage.make_pod(f"pod{number}") for number in range(4)]
    contestants: list[Contestant] = [
        BareNetlink(FLOOR, pods[0]),
        Verbs("our verbs, by the helper", short_lived=False),
        Verbs("our verbs, entering", short_lived=True),
        Pyroute2("pyroute2, sockets open", pods[3]),
    ]
    acts: dict[str, dict[str, Callable[[], object]]] = {
        who.name: {"ADD": partial(who.add, pod), "DEL": partial(who.delete, pod)}
        for who, pod in zip(contestants, pods, strict=True)
    }
    return measuring.figures(measuring.in_rounds(acts, rounds), alternative=FLOOR)


def table(found: Sequence[Figure]) -> str:
    """Milliseconds and ratios, each as its median and, in parentheses, its smallest and largest."""
    lines = [f"{'':5}{'':26}{'ms':>24}{'times the floor':>26}"]
    for f in found:
        ms = f"{f.ms.median:.2f} ({f.ms.min:.2f}..{f.ms.max:.2f})"
        ratio = f"{f.ratio.median:.2f} ({f.ratio.min:.2f}..{f.ratio.max:.2f})" if f.ratio else "1"
        lines.append(f"{f.what:5}{f.who:26}{ms:>24}{ratio:>26}")
    return "\n".join(lines)


def _request(kind: int, body: bytes, flags: int = 0) -> bytes:
    return netlink.request(kind, flags | uapi.NLM_F_ACK, 1, body)


def main(argv: Sequence[str] | None = None) -> None:
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.netlink_floor", description=__doc__)
    parser.add_argument("--rounds", type=int, default=40, help="ADD and DEL by each, in turning order (default: 40)")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    args = parser.parse_args(arguments)
    stage.enter(arguments, "benchmarks.netlink_floor")
    found = measure(args.rounds)
    print(msgspec.json.encode(found).decode() if args.output == "json" else table(found))


if __name__ == "__main__":
    main()
