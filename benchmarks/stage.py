"""Where the benchmarks play: namespaces of their own, so that nothing of the machine is touched or left behind.

The whole run happens in a private network and mount namespace; an ordinary user gets them in a user namespace. It
stands for a node: `eth1` leads to a LAN. Pods are namespaces made before the clock starts and used again in every
round, for the kernel goes on clearing a deleted namespace away in the background, in somebody else's time.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_INSIDE = "HOMEPORT_BENCHMARKS_INSIDE"
UPLINK = "eth1"
IFNAME = "net1"


@dataclass(frozen=True)
class Pod:
    """A namespace to attach, by the path of its pin, and the container ID to do it under."""

    container_id: str
    netns_path: str


def enter(argv: list[str], module: str = "benchmarks") -> None:
    """Returns inside the private namespaces; the first call starts the program, `module`, again there."""
    if os.environ.get(_INSIDE) != "1":
        user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        command = ["unshare", *user, "--net", "--mount", "--", sys.executable, "-m", module, *argv]
        os.environ[_INSIDE] = "1"
        os.execvp("unshare", command)
    run("mount", "-t", "tmpfs", "tmpfs", "/run")
    run("ip", "link", "set", "lo", "up")
    run("ip", "netns", "add", "lan")
    run("ip", "link", "add", UPLINK, "type", "veth", "peer", "name", "lan0", "netns", "lan")
    run("ip", "address", "add", "10.99.0.1/16", "dev", UPLINK)
    run("ip", "link", "set", UPLINK, "up")
    run("ip", "-n", "lan", "link", "set", "lan0", "up")


def make_pod(name: str) -> Pod:
    """A fresh pod; `name` is unique in the run."""
    run("ip", "netns", "add", name)
    run("ip", "-n", name, "link", "set", "lo", "up")
    return Pod(container_id=f"bench-{name}", netns_path=f"/run/netns/{name}")


def links(pod: Pod) -> list[str]:
    """The names of the pod's interfaces but `lo`, as iproute2 sees them."""
    out = run("ip", "-n", Path(pod.netns_path).name, "-brief", "link")
    return [name for line in out.splitlines() if (name := line.split()[0].partition("@")[0]) != "lo"]


def run(*argv: str) -> str:
    """The standard output; a failure ends the run, with what the program said."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"benchmarks: {' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout
