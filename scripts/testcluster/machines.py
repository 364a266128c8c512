"""Nodes' networks on one machine: a namespace for each, joined by a segment all share. I/O: `ip`.

A node sees `eth0`, which leads to the control plane only, and `eth1`, which leads to the segment and has no address:
it is the uplink that secondary networks are made on. The machine's own network is not touched.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence

from testcluster.control_plane import ControlPlane
from testcluster.guarding import Guard


class IpFailed(Exception):
    """`ip` refused; the text says what and why."""


def ip(*lines: str, netns: str | None = None) -> None:
    """Runs commands of `ip` as one batch, in the namespace of that name (not path)."""
    inside = ["-n", netns] if netns else []
    done = subprocess.run(
        ["ip", *inside, "-batch", "-"], input="\n".join(lines) + "\n", capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise IpFailed(f"{lines}: {done.stderr.strip()}")


def path_of(netns: str) -> str:
    """Where a named namespace is pinned."""
    return f"/run/netns/{netns}"


def delete_namespace(netns: str) -> None:
    """Unpins it; idempotent. Its links go, and with veths their other ends."""
    if os.path.exists(path_of(netns)):
        ip(f"netns delete {netns}")


class Segment:
    """An Ethernet switch. `netns` is its namespace: whoever wants to be seen by all nodes joins `lan0` there."""

    def __init__(self, guard: Guard, addresses: Sequence[str] = ("10.93.96.1/20", "fd00:93::1/64")) -> None:
        self.netns = f"hp-lan-{os.getpid()}-{secrets.token_hex(3)}"
        guard.on_death("ip", "netns", "delete", self.netns)
        ip(f"netns add {self.netns}")
        ip(
            "link set lo up",
            "link add lan0 type bridge mcast_snooping 0",
            *(f"address add {address} dev lan0 nodad" for address in addresses),
            "link set lan0 up",
            netns=self.netns,
        )

    def close(self) -> None:
        delete_namespace(self.netns)


class Machine:
    """One node's. Off after `close` or `power_off`; `power_on` boots it with nothing but its links and addresses."""

    def __init__(self, name: str, plane: ControlPlane, segment: Segment) -> None:
        assert plane.place.bridge, "no CAP_NET_ADMIN, so no machines"
        self.name = name
        self.netns = f"hp-{name}-{os.getpid()}-{secrets.token_hex(3)}"
        self.uplink = "eth1"
        self._bridge = plane.place.bridge
        self._segment = segment
        self._host_end = f"v{secrets.token_hex(6)}"  # of both its cables
        self._with_prefix = plane.place.next_address()
        plane.guard.on_death("ip", "netns", "delete", self.netns)
        self.power_on()

    @property
    def address(self) -> str:
        """Of `eth0`: what Kubernetes knows as the node's address."""
        return self._with_prefix.partition("/")[0]

    @property
    def path(self) -> str:
        """Of its namespace."""
        return path_of(self.netns)

    def power_on(self) -> None:
        ip(
            f"netns add {self.netns}",
            f"link add {self._host_end} type veth peer name eth0 netns {self.netns}",
            f"link set {self._host_end} master {self._bridge} up",
            f"link add {self._host_end} netns {self._segment.netns} type veth peer name eth1 netns {self.netns}",
        )
        ip(f"link set {self._host_end} master lan0 up", netns=self._segment.netns)
        ip(
            "link set lo up",
            f"address add {self._with_prefix} dev eth0",
            "link set eth0 up",
            "link set eth1 up",
            netns=self.netns,
        )

    def power_off(self, is_dead: Callable[[], bool] = lambda: True) -> None:
        """Its links are gone and every process in it is killed, again and again until `is_dead`; idempotent."""
        if not os.path.exists(self.path):
            return
        with open(self.path, "rb") as held:  # so that its inode names no other namespace meanwhile
            ip(f"link delete {self._host_end}")  # the kernel would take its time
            if os.path.exists(path_of(self._segment.netns)):
                ip(f"link delete {self._host_end}", netns=self._segment.netns)
            delete_namespace(self.netns)  # before the killing, so that nothing can be started in it after that
            kill_all(os.fstat(held.fileno()).st_ino)
            while not is_dead():
                kill_all(os.fstat(held.fileno()).st_ino)

    def close(self) -> None:
        self.power_off()

    def start(
        self, argv: Sequence[str], *, environ: Mapping[str, str] | None = None, log: str = os.devnull
    ) -> subprocess.Popen[bytes]:
        """A program on this node, such as its daemon."""
        with open(log, "ab") as out:
            return subprocess.Popen(
                ["nsenter", f"--net={self.path}", "--", *argv],
                env=None if environ is None else dict(environ),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )


def kill_all(namespace: int) -> None:
    """SIGKILL to every process whose network is the namespace with this inode."""
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{pid}/ns/net").st_ino == namespace:
                os.kill(int(pid), signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it ended meanwhile, or is a stranger's
