"""Where the time of an ADD goes: cProfile over many of them, added up by room of the code and by kind of waiting.

The profiler makes small Python functions look dearer than they are: the shares tell where to look, not how long it
takes.
"""

from __future__ import annotations

import cProfile
import pstats
import re
from collections import defaultdict
from collections.abc import Callable

import msgspec

# The time of a C function is its own; these wait for the kernel or the disk, all others are the interpreter's.
_WAITING = {
    "netlink": re.compile(r"recv|send|'_socket\.socket'"),
    "files": re.compile(r"posix\.|flock|'_io\.|_io\.open"),
    "SQLite": re.compile(r"sqlite3"),
}
_ROOM = re.compile(r"/homeport/(?:(\w+)/|(\w+)\.py)")


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """Of the whole time, 0 to 1."""

    where: str
    share: float


class Hot(msgspec.Struct, frozen=True, kw_only=True):
    """One function: its own time and the time with all it calls, a call of the profiled action."""

    function: str
    own_ms: float
    whole_ms: float
    calls: float


def profile(action: Callable[[], object], after: Callable[[], object], times: int) -> pstats.Stats:
    """Only `action` is watched; `after` makes it possible again."""
    profiler = cProfile.Profile()
    for _ in range(times):
        profiler.enable()
        action()
        profiler.disable()
        after()
    return pstats.Stats(profiler)


def shares(stats: pstats.Stats) -> list[Share]:
    """The largest first; they add up to 1."""
    own: dict[str, float] = defaultdict(float)
    for (file, _, name), (_, _, own_seconds, _, _) in _entries(stats).items():
        own[_place(file, name)] += own_seconds
    whole = sum(own.values())
    return [Share(where=w, share=s / whole) for w, s in sorted(own.items(), key=lambda e: -e[1])]


def hottest(stats: pstats.Stats, times: int, count: int) -> list[Hot]:
    """By own time."""
    rows = sorted(_entries(stats).items(), key=lambda e: -e[1][2])[:count]
    return [
        Hot(
            function=name if file == "~" else f"{_short(file)}:{name}",
            own_ms=own * 1000 / times,
            whole_ms=whole * 1000 / times,
            calls=calls / times,
        )
        for (file, _, name), (_, calls, own, whole, _) in rows
    ]


def _entries(stats: pstats.Stats) -> dict[tuple[str, int, str], tuple[int, int, float, float, object]]:
    entries: dict[tuple[str, int, str], tuple[int, int, float, float, object]] = vars(stats)["stats"]
    return entries


def _place(file: str, name: str) -> str:
    if file == "~":
        return next((f"waiting: {kind}" for kind, pattern in _WAITING.items() if pattern.search(name)), "C functions")
    room = _ROOM.search(file)
    return f"homeport.{room.group(1) or room.group(2)}" if room else "Python's library and packages"


def _short(file: str) -> str:
    return re.sub(r".*/(?=homeport/|python3|site-packages/)", "", file)
