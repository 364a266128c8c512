"""Timing in rounds, and what the timings come to.

A machine's speed drifts within minutes. So all contestants take part in every round, in turning order, and are compared
pair by pair: a ratio is taken within a round, and its median over the rounds is what counts.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """Of one figure over all rounds."""

    min: float
    median: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(min=min(values), median=statistics.median(values), max=max(values))


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One thing measured. `ratio` is against the named `alternative`, below 1 when ours is faster."""

    what: str
    who: str
    ms: Spread
    rounds: int
    alternative: str = ""
    ratio: Spread | None = None


Samples = dict[str, dict[str, list[float]]]
"""what -> who -> milliseconds, one a round in the order of rounds."""


def timed(action: Callable[[], object]) -> float:
    """Milliseconds."""
    began = time.perf_counter_ns()
    action()
    return (time.perf_counter_ns() - began) / 1e6


def in_rounds(acts: Mapping[str, Mapping[str, Callable[[], object]]], rounds: int) -> Samples:
    """Runs every contestant once a round. `acts`: who -> what -> action, run in that order; one more round warms up."""
    order = list(acts)
    samples: Samples = {what: {who: [] for who in order if what in acts[who]} for who in order for what in acts[who]}
    for number in range(rounds + 1):
        for who in order[number % len(order) :] + order[: number % len(order)]:
            for what, action in acts[who].items():
                took = timed(action)
                if number:
                    samples[what][who].append(took)
    return samples


def figures(samples: Samples, *, alternative: str) -> list[Figure]:
    """One figure for each pair of what and who, the ratio taken round by round."""
    found = []
    for what, by_who in samples.items():
        base = by_who.get(alternative)
        for who, values in by_who.items():
            compared = base is not None and who != alternative
            ratio = Spread.of([a / b for a, b in zip(values, base or (), strict=True)]) if compared else None
            found.append(
                Figure(
                    what=what,
                    who=who,
                    ms=Spread.of(values),
                    rounds=len(values),
                    alternative=alternative if compared else "",
                    ratio=ratio,
                )
            )
    return found
