"""Addresses that only one control plane of this machine has, so that no port is ever taken. I/O: sockets, ip.

A claimed number gives 127.18.N.1 for what stays on the machine and 198.18.N.0/24 (198.18.0.0/15 is for benchmarks,
RFC 2544) for a bridge that leads to the nodes' namespaces.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
from dataclasses import dataclass, field

from testcluster.guarding import Guard
from testcluster.progress import Unavailable

_NUMBERS = 256


@dataclass
class Place:
    """Owns the number `n` until `leave`; `bridge` is None where there is no right to make one."""

    n: int
    claim: socket.socket
    bridge: str | None = None
    _machines: int = field(default=1)

    @property
    def loopback(self) -> str:
        return f"127.18.{self.n}.1"

    @property
    def api_address(self) -> str:
        """Where nodes and everybody else reach the API server."""
        return f"198.18.{self.n}.1" if self.bridge else self.loopback

    def next_address(self) -> str:
        """An address with its prefix for one more machine on the bridge."""
        self._machines += 1
        assert self._machines < 255, "a control plane has room for 253 machines"
        return f"198.18.{self.n}.{self._machines}/24"

    def leave(self) -> None:
        if self.bridge:
            subprocess.run(["ip", "link", "delete", self.bridge], check=False, capture_output=True)
        self.claim.close()


def claim(guard: Guard) -> Place:
    """A place nobody else on this machine has, with a bridge when we have CAP_NET_ADMIN."""
    first = secrets.randbelow(_NUMBERS)
    for n in (*range(first, _NUMBERS), *range(first)):
        held = socket.socket(socket.AF_UNIX)
        try:
            held.bind(f"\0homeport-testcluster-{n}")  # an abstract name: it ends with its holder
        except OSError:
            held.close()
            continue
        place = Place(n, held)
        place.bridge = _make_bridge(place, guard) if _may_make_links() else None
        return place
    raise Unavailable(f"all {_NUMBERS} places for control planes on this machine are taken")


def free_port(address: str) -> int:
    """A port of an address that is ours alone."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port


def _may_make_links() -> bool:
    with open("/proc/self/status") as status:
        held = next(int(line.split()[1], 16) for line in status if line.startswith("CapEff:"))
    return bool(held & 1 << 12)  # CAP_NET_ADMIN, capabilities(7)


def _make_bridge(place: Place, guard: Guard) -> str:
    name = f"hpc{place.n}-{os.getpid():x}"[:15]
    guard.on_death("ip", "link", "delete", name)
    for argv in (
        ("ip", "link", "add", name, "type", "bridge"),
        ("ip", "address", "add", f"198.18.{place.n}.1/24", "dev", name),
        ("ip", "link", "set", name, "up"),
    ):
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Unavailable(f"{' '.join(argv)}: {done.stderr.strip()}")
    return name
