"""Which free addresses to try, from what one process knows. No I/O; locking is the caller's.

What is known is never the truth: other nodes claim at the same time. Where claims collide, the candidates are spread
over more of the lowest free addresses, and where they do not, the lowest is tried.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Sequence
from itertools import chain, islice

from homeport.ipam.ranges import Span, free_spans, merge_spans, spans_from
from homeport.model.addresses import IPAddress
from homeport.stores.kubernetes.runs import Runs

WINDOW_MAX = 256
_CALM = 8  # claims without a collision that halve the window


class Window:
    """Over how many of the lowest free addresses the candidates of one scope are spread."""

    def __init__(self) -> None:
        self.size = 1
        self.collisions = 0  # one after the other, up to now
        self._calm = 0

    def collided(self) -> None:
        self.size = min(self.size * 2, WINDOW_MAX)
        self.collisions += 1
        self._calm = 0

    def succeeded(self) -> None:
        self.collisions = 0
        self._calm += 1
        if self._calm >= _CALM:
            self.size, self._calm = max(self.size // 2, 1), 0


class Base:
    """What is taken of a span, as was known at one time and is corrected since. Numbers are addresses as integers.

    It says nothing from the number `until` on. `at` is when its source was asked or told, on a monotonic scale, and
    `version` which hint was the newest then.
    """

    def __init__(self, span: Span, taken: Runs, *, until: int, at: float, version: str) -> None:
        self.span, self.taken, self.until = span, taken, until
        self.at, self.version = at, version

    def free(self, excluding: Sequence[Span], near: IPAddress | None) -> Iterator[IPAddress]:
        """What is not known to be taken, from `near` on."""
        withheld = merge_spans(excluding)
        kind = type(self.span.first)
        for part in chain.from_iterable(free_spans(s, withheld) for s in spans_from(self.span, near)):
            for number in self.taken.gaps(int(part.first), min(int(part.last), self.until - 1)):
                yield kind(number)


def choose(
    free: Iterator[IPAddress], others: Collection[IPAddress], *, count: int, window: int, rng: random.Random
) -> tuple[IPAddress, ...]:
    """Up to `count` of the first `window` free addresses; the first ones themselves with a window of 1.

    `others` are what other threads are about to try; they are avoided while there is anything else.
    """
    most = count if window == 1 else max(window, count)
    found = list(islice((a for a in free if a not in others), most))
    return tuple(found[:count] if window == 1 else rng.sample(found, min(count, len(found))))
