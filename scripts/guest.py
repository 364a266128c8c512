"""Runs commands as root on a kernel that has ipvlan: Debian's cloud kernel, emulated by qemu.

Each COMMAND is one quoted command line without a shell around it, run in a copy of this checkout:

    .venv/bin/python scripts/guest.py "ip link add ipvl0 link lo type ipvlan" "pytest -k ipvlan tests/netns"

Exit status: 0, or that of the first command that failed, or 125 when the guest failed, or 126 when this machine
cannot have one. Needs no root and no KVM. The kernel and the guest's base image are kept below .cache/qemu.
"""

from __future__ import annotations

import argparse
import fcntl
import shutil
import sys
import tempfile
from pathlib import Path

from qemu import image, kernel, machine

CACHE = image.ROOT / ".cache" / "qemu"
GUEST_FAILED = 125
NO_GUEST = 126
SECONDS_TO_REPORT = 30  # after the deadline: the guest's clock starts late, and its results take their time


def run(commands: list[str], results: Path, *, seconds: int) -> machine.Report:
    """Fetches and builds what is missing, boots, and returns what the commands came to."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="boot-") as work:
        root_image = Path(work) / "root.cpio"
        with (CACHE / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # one builder at a time; boots may run side by side
            the_kernel = kernel.cached(CACHE) or kernel.fetch(CACHE)
            image.build(the_kernel, CACHE, root_image, commands=commands, seconds=seconds)
        return machine.boot(the_kernel, root_image, results, seconds=seconds + SECONDS_TO_REPORT)


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("commands", nargs="*", metavar="COMMAND", help="a quoted command line, run without a shell")
    parser.add_argument("--fetch", action="store_true", help="only fetch the kernel")
    parser.add_argument("--results", type=Path, help="keep logs and everything of the guest's /run/results here")
    parser.add_argument("--seconds", type=int, default=300, help="deadline of all commands together (default: 300)")
    args = parser.parse_args()
    try:
        if args.fetch:
            print((kernel.cached(CACHE) or kernel.fetch(CACHE)).release)
            return 0
        results = args.results or Path(tempfile.mkdtemp(prefix="homeport-qemu-"))
        try:
            report = run(args.commands, results, seconds=args.seconds)
        finally:
            if args.results is None:
                shutil.rmtree(results, ignore_errors=True)
    except kernel.Unavailable as error:
        print(f"guest: {error}", file=sys.stderr)
        return NO_GUEST
    except machine.GuestFailed as error:
        print(f"guest: {error}", file=sys.stderr)
        return GUEST_FAILED
    for step in report.steps:
        print(f"--- {step.command}: exit status {step.returncode}, {step.seconds} s\n{step.log}", end="")
    print(f"--- kernel {report.kernel}, {report.seconds} s in all")
    return next((abs(s.returncode) for s in report.steps if s.returncode), 0)


if __name__ == "__main__":
    sys.exit(main())
