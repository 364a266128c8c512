"""The memory of processes while something runs: sums over the daemon, its children, and what else was started."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

_PERIOD_SECONDS = 0.02


class Resident(msgspec.Struct, frozen=True, kw_only=True):
    """The largest sum seen, in MiB: of resident sets, and of what no other process shares (anonymous pages)."""

    who: str
    sum_mib: float
    anonymous_mib: float
    processes: int


@contextmanager
def resident(who: str, roots: Sequence[int]) -> Iterator[list[Resident]]:
    """Samples `roots` and their descendants, and those of this process that the block starts.

    The list has its one entry when the block has ended. Processes that live shorter than the period may be missed.
    """
    found: list[Resident] = []
    stop = threading.Event()
    strangers = {os.getpid(), *_descendants([os.getpid()])} - set(roots)
    best = [0.0, 0.0, 0.0]

    def sample() -> None:
        while not stop.wait(_PERIOD_SECONDS):
            own = {*roots, *_descendants(roots), *(set(_descendants([os.getpid()])) - strangers)}
            sizes = [size for pid in own if (size := _size(pid))]
            whole, anonymous = sum(s[0] for s in sizes), sum(s[1] for s in sizes)
            if whole > best[0]:
                best[:] = [whole, anonymous, len(sizes)]

    thread = threading.Thread(target=sample, name="sample-memory")
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()
        found.append(Resident(who=who, sum_mib=best[0] / 1024, anonymous_mib=best[1] / 1024, processes=int(best[2])))


def _descendants(roots: Sequence[int]) -> list[int]:
    children: dict[int, list[int]] = {}
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            stat = Path(f"/proc/{name}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(name))
    found: list[int] = []
    waiting = list(roots)
    while waiting:
        own = children.get(waiting.pop(), [])
        found += own
        waiting += own
    return found


def _size(pid: int) -> tuple[int, int] | None:
    """KiB resident, KiB of them anonymous; None of a process that has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    values = {
        line.partition(":")[0]: line.split()[1] for line in status.splitlines() if line.startswith(("VmRSS", "RssAnon"))
    }
    return (int(values["VmRSS"]), int(values["RssAnon"])) if "VmRSS" in values else None
