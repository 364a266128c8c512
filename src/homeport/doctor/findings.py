"""What doctor says: what is wrong, how sure that is, what it does to pods, and what to do. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

import msgspec


class Severity(Enum):
    """`ERROR`: pods fail or lose addresses now. `WARNING`: they will, or something was lost. `INFO`: worth knowing."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Sure(Enum):
    """`CERTAIN`: what was read proves it. `LIKELY`: it is so unless somebody arranged otherwise. `POSSIBLE`: look."""

    CERTAIN = "certain"
    LIKELY = "likely"
    POSSIBLE = "possible"


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of thing that can be wrong: the `id` of its diagnoses, and what is looked for."""

    id: str
    severity: Severity
    summary: str


class Repair(msgspec.Struct, frozen=True, kw_only=True):
    """What `--repair` would do, and the proof that it may. Each kind is a subclass that carries what it acts on."""

    says: str
    proof: str


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong, at one place.

    `found`, `expected` and `why` are phrases without a full stop: what is there, what should be, and what it does to
    pods or to whoever runs the cluster. `run` are commands to type, to look closer or to mend, safest first.
    """

    id: str
    severity: Severity
    sure: Sure
    place: str
    found: str
    expected: str
    why: str
    run: tuple[str, ...] = ()
    repair: Repair | None = None


class Unlooked(msgspec.Struct, frozen=True, kw_only=True):
    """A place that could not be looked at, and why: nothing is concluded about it."""

    place: str
    why: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """`place` is the node or cluster; diagnoses are the worst first; `unlooked` is what nothing is known about."""

    place: str
    diagnoses: tuple[Diagnosis, ...] = ()
    unlooked: tuple[Unlooked, ...] = ()

    @property
    def exit_code(self) -> int:
        """1 when something is wrong, 2 when something could not be looked at and nothing worse was found, else 0."""
        if any(d.severity is Severity.ERROR for d in self.diagnoses):
            return 1
        return 2 if self.unlooked else 0


_ORDER = {severity: n for n, severity in enumerate(Severity)}


def report(place: str, diagnoses: Iterable[Diagnosis], unlooked: Iterable[Unlooked] = ()) -> Report:
    """In the order in which people should read them."""
    ordered = sorted(diagnoses, key=lambda d: (_ORDER[d.severity], d.id, d.place))
    return Report(place=place, diagnoses=tuple(ordered), unlooked=tuple(unlooked))
