"""A Kubernetes control plane on this machine, for a person or for the suites.

    scripts/cluster.py fetch        get its programs now; `up` and the suites would do it by themselves
    scripts/cluster.py up           start one, with Homeport's custom resource and roles, and leave it running
    scripts/cluster.py kubeconfig   the path of its kubeconfig: kubectl --kubeconfig "$(scripts/cluster.py kubeconfig)"
    scripts/cluster.py down         end it

Run it with the project's Python: .venv/bin/python scripts/cluster.py. Everything is below .cache/cluster.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from testcluster import binaries
from testcluster.api import Api
from testcluster.control_plane import ADMIN, ControlPlane
from testcluster.installing import install
from testcluster.progress import Unavailable
from testcluster.servers import NotReady

FOLDER = binaries.ROOT / ".cache" / "cluster"
LOCK = FOLDER / "lock"  # held while it runs; holds the process ID
UP_SECONDS = 120


def fetch() -> int:
    """Says where the programs are."""
    found = binaries.fetch()
    print(f"Kubernetes {found.version} in {found.directory}")
    return 0


def up() -> int:
    """Starts a process that holds the control plane, and waits until it is ready."""
    if running() is not None:
        print(f"already up: {kubeconfig_path()}")
        return 0
    binaries.fetch()
    FOLDER.mkdir(parents=True, exist_ok=True)
    ready_read, ready_write = os.pipe()
    with (FOLDER / "hold.log").open("w") as log:
        holder = subprocess.Popen(
            [sys.executable, __file__, "up", "--hold", str(ready_write)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[ready_write],
            start_new_session=True,
        )
    os.close(ready_write)
    with os.fdopen(ready_read) as ready:
        if ready.read() != "ready":
            holder.wait()
            print((FOLDER / "hold.log").read_text(), end="", file=sys.stderr)
            return 1
    print(f"up: kubectl --kubeconfig {kubeconfig_path()} get nodes")
    return 0


def hold(ready: int) -> int:
    """The process behind `up`: keeps the control plane until it gets SIGTERM."""
    stop = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)
    with LOCK.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another process is starting one", file=sys.stderr)
            return 1
        with ControlPlane(FOLDER) as plane:
            install(Api(plane.access()))
            plane.kubeconfig()
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            os.write(ready, b"ready")
            os.close(ready)
            signal.sigwait(stop)
    return 0


def down() -> int:
    """Returns when it has ended."""
    pid = running()
    if pid is None:
        print("not up")
        return 0
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 30
    while running() is not None and time.monotonic() < deadline:
        time.sleep(0.05)
    return 0 if running() is None else 1


def kubeconfig() -> int:
    """Exit status 1 when there is no cluster to talk to."""
    if running() is None:
        print("not up; start it with: scripts/cluster.py up", file=sys.stderr)
        return 1
    print(kubeconfig_path())
    return 0


def kubeconfig_path() -> Path:
    """Of the person who runs it."""
    return FOLDER / "kubeconfigs" / ADMIN


def running() -> int | None:
    """The process that holds the control plane."""
    try:
        with LOCK.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        return int(LOCK.read_text() or 0) or None
    return None


def main() -> int:
    """The exit status."""
    commands = {"fetch": fetch, "up": up, "down": down, "kubeconfig": kubeconfig}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=[*commands], metavar="|".join(commands))
    parser.add_argument("--hold", type=int, metavar="DESCRIPTOR", help=argparse.SUPPRESS)
    args = parser.parse_args()
    try:
        return commands[args.command]() if args.hold is None else hold(args.hold)
    except (Unavailable, NotReady) as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
