"""Real network namespaces for tests, seen through `ip -json` and `nft -j`: never through our own reader.

Every name is unique to the test, and everything is gone after it. Types for annotations:
`if TYPE_CHECKING: from tests.netns.conftest import IpJson, KernelState, MakeNetns, NftJson, Node`.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

from homeport.host.kernel import Kernel
from homeport.ports import Shells


class MakeNetns(Protocol):
    def __call__(self, hint: str = "ns") -> str:
        """Makes a namespace and returns its path below /run/netns; `hint` shows in its name."""


class IpJson(Protocol):
    def __call__(self, netns: str | None, *args: str) -> list[dict[str, Any]]:
        """`ip -json -details ARGS` inside `netns` (None: the test's own namespace)."""


class NftJson(Protocol):
    def __call__(self, netns: str | None, *args: str) -> list[dict[str, Any]]:
        """`nft -j ARGS` inside `netns`: the list under "nftables" without the metainfo entry."""


class KernelState(Protocol):
    def __call__(self, netns: str) -> dict[str, list[Any]]:
        """Links, addresses, routes of every table and rules, to compare before and after."""


@dataclass(frozen=True)
class Node:
    """A namespace standing for a host: `eth1` (up, no address) leads to `lan0` in the namespace `lan`.

    `lan0` has 10.93.96.1/20 and fd00:93::1/64. `host` is the `Kernel` whose own side is this node.
    """

    netns: str
    lan: str
    host: Kernel
    uplink: str = "eth1"


def run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr or done.stdout}"
    return done.stdout


def inside(netns: str | None) -> tuple[str, ...]:
    return () if netns is None else ("nsenter", f"--net={netns}", "--")


@pytest.fixture
def netns() -> Iterator[MakeNetns]:
    """A factory of namespaces that are removed after the test."""
    made: list[str] = []

    def make(hint: str = "ns") -> str:
        name = f"hp-{hint}-{os.getpid()}-{secrets.token_hex(4)}"
        run("ip", "netns", "add", name)
        made.append(name)
        return f"/run/netns/{name}"

    yield make
    for name in made:
        if os.path.exists(f"/run/netns/{name}"):  # a test may have taken it away itself
            run("ip", "netns", "delete", name)


@pytest.fixture
def ip_json() -> IpJson:
    """Asks iproute2."""

    def ask(netns: str | None, *args: str) -> list[dict[str, Any]]:
        out = run(*inside(netns), "ip", "-json", "-details", *args)
        found: list[dict[str, Any]] = json.loads(out or "[]")
        return [entry for entry in found if entry]  # iproute2 prints {} for what a filter hid

    return ask


@pytest.fixture
def nft_json() -> NftJson:
    """Asks nft."""

    def ask(netns: str | None, *args: str) -> list[dict[str, Any]]:
        out: dict[str, list[dict[str, Any]]] = json.loads(run(*inside(netns), "nft", "-j", *args) or '{"nftables": []}')
        return [entry for entry in out["nftables"] if "metainfo" not in entry]

    return ask


@pytest.fixture
def host() -> Iterator[Kernel]:
    """The kernel as the daemon uses it, with a helper process."""
    kernel = Kernel()
    yield kernel
    kernel.close()


@pytest.fixture
def node(netns: MakeNetns) -> Iterator[Node]:
    """A host of the test's own, so that nothing touches the machine's network."""
    inner, lan = netns("node"), netns("lan")
    run(*inside(inner), "ip", "link", "set", "lo", "up")
    peer = ("peer", "name", "lan0", "netns", os.path.basename(lan))
    run(*inside(inner), "ip", "link", "add", "eth1", "type", "veth", *peer)
    run(*inside(inner), "ip", "link", "set", "eth1", "up")
    run(*inside(lan), "ip", "address", "add", "10.93.96.1/20", "dev", "lan0")
    run(*inside(lan), "ip", "address", "add", "fd00:93::1/64", "dev", "lan0", "nodad")
    run(*inside(lan), "ip", "link", "set", "lan0", "up")
    kernel = Kernel(netns=inner)
    yield Node(netns=inner, lan=lan, host=kernel)
    kernel.close()


@pytest.fixture
def shells(node: Node, tmp_path: Path) -> Iterator[Shells]:
    """What plugins act through on `node`, as the programs build it; IPAM plugins of ours run in this process."""
    from homeport.wiring import build_shells

    built = build_shells(netns=node.netns, node="node-a", store=str(tmp_path / "allocations.db"), environ={})
    yield built
    assert isinstance(built.host, Kernel)
    built.host.close()


@pytest.fixture
def kernel_state(ip_json: IpJson) -> KernelState:
    """All that a plugin could leave behind. IPv6 link-local entries come and go by themselves, so they stay out."""

    def ask(netns: str) -> dict[str, list[Any]]:
        links = ip_json(netns, "link", "show")
        addresses = [
            (link["ifname"], a["local"], a["prefixlen"])
            for link in ip_json(netns, "address", "show")
            for a in link["addr_info"]
        ]
        routes = [r for v in "46" for r in ip_json(netns, f"-{v}", "route", "show", "table", "all")]
        return {
            "links": [{k: v for k, v in link.items() if k not in ("stats", "stats64")} for link in links],
            "addresses": [a for a in addresses if not a[1].startswith("fe80")],
            "routes": [r for r in routes if not r["dst"].startswith(("fe80", "ff00", "multicast"))],
            "rules": [r for v in "46" for r in ip_json(netns, f"-{v}", "rule", "show")],
        }

    return ask
