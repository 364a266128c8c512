"""IPRanges: what of a range is taken and how much is left, as the controller last counted. I/O: the objects given.

To a store that is a hint where to look. It may be old, incomplete or absent, and is never trusted: `create` decides.
"""

from __future__ import annotations

import threading
from datetime import datetime
from ipaddress import ip_address, ip_network
from typing import Any

import msgspec

from homeport.ipam.ranges import Span
from homeport.model.addresses import IPAddress, IPNetwork
from homeport.model.errors import DecodeFailure
from homeport.ports import ApiObject, Objects, Watching
from homeport.stores.kubernetes import names
from homeport.stores.kubernetes.resources import IPRANGES
from homeport.stores.kubernetes.runs import Runs
from homeport.stores.kubernetes.wire import Instant, emptied, instant, without_empty

RUNS_MAX = 4000
_COUNT_MAX = 2**63 - 1  # what the API server can count to


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """How many addresses of a range may be handed out, are in each phase, and are left."""

    usable: int
    bound: int = 0
    retained: int = 0
    reserved: int = 0
    quarantined: int = 0
    free: int = 0


class RangeReport(msgspec.Struct, frozen=True, kw_only=True):
    """An IPRange. `taken` are all allocations in `first`..`last`, as offsets from `first`.

    From the offset `up_to` on, `taken` says nothing; None when it says all.
    """

    scope: str
    first: IPAddress
    last: IPAddress
    subnet: IPNetwork
    networks: tuple[str, ...] = ()
    totals: Totals
    taken: Runs
    up_to: int | None = None
    updated: datetime

    @property
    def span(self) -> Span:
        return Span(self.first, self.last)


class _Spec(msgspec.Struct):
    first: str
    last: str
    subnet: str
    scope: str = ""
    networks: list[str] = []


class _Status(msgspec.Struct):
    usable: int
    updated: Instant
    bound: int = 0
    retained: int = 0
    reserved: int = 0
    quarantined: int = 0
    free: int = 0
    taken: str = ""
    up_to: str | None = msgspec.field(default=None, name="upTo")


class _Object(msgspec.Struct):
    spec: _Spec
    status: _Status


_objects = msgspec.json.Decoder(_Object)


def decode_range(stored: ApiObject) -> RangeReport:
    """Raises `DecodeFailure` naming the object, also when it is not the range that its name says."""
    what = f"{IPRANGES.plural} {stored.name}"
    try:
        found = _objects.decode(stored.body)
        spec, status = found.spec, found.status
        report = RangeReport(
            scope=spec.scope,
            first=ip_address(spec.first),
            last=ip_address(spec.last),
            subnet=ip_network(spec.subnet),
            networks=tuple(spec.networks),
            totals=msgspec.convert(status, Totals, from_attributes=True),
            taken=Runs.parse(status.taken),
            up_to=None if status.up_to is None else int(status.up_to),
            updated=status.updated,
        )
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as e:
        raise DecodeFailure(f"decode {what}: {e}") from e
    if names.range_name(report.scope, report.first, report.last) != stored.name:
        raise DecodeFailure(f"decode {what}: found {report.span}, expected the addresses of its name")
    return report


def range_body(report: RangeReport) -> dict[str, Any]:
    """The object of a new range. Cuts `taken` where it is too long."""
    body: dict[str, Any] = without_empty(range_patch(report))
    return body


def range_patch(report: RangeReport) -> dict[str, Any]:
    """The merge patch that makes any object of its name into the same."""
    taken, up_to = report.taken.cut(RUNS_MAX)
    up_to = report.up_to if up_to is None else up_to
    totals = {key: min(count, _COUNT_MAX) for key, count in msgspec.structs.asdict(report.totals).items()}
    body = {
        "metadata": {
            "name": names.range_name(report.scope, report.first, report.last),
            "labels": {names.SCOPE: names.scope_label(report.scope)},
        },
        "spec": {
            "scope": report.scope,
            "first": str(report.first),
            "last": str(report.last),
            "subnet": str(report.subnet),
            "networks": list(report.networks),
        },
        "status": {
            **totals,
            "taken": str(taken),
            "upTo": None if up_to is None else str(up_to),
            "updated": instant(report.updated),
        },
    }
    return emptied(body)


class Hint(msgspec.Struct, frozen=True):
    """A report, and the version it was told at."""

    report: RangeReport
    version: str


class Hints:
    """The IPRanges of the cluster, kept by a watch from `start` to `stop`; none before."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._lock = threading.Lock()
        self._known: dict[str, Hint] = {}
        self._watch: Watching | None = None

    def start(self) -> None:
        """Does not wait for anything."""
        self._watch = self._objects.watch(IPRANGES, on_change=self._told, on_gone=self._gone)

    def stop(self) -> None:
        if self._watch is not None:
            self._watch.stop()

    def covering(self, scope: str, span: Span) -> Hint | None:
        """What was last told of a range with all of `span` in it."""
        with self._lock:
            exact = self._known.get(names.range_name(scope, span.first, span.last))
            if exact is not None:
                return exact
            ends = span.first, span.last
            wider = (h for h in self._known.values() if h.report.scope == scope)
            return next((h for h in wider if all(end in h.report.span for end in ends)), None)

    def _told(self, stored: ApiObject) -> None:
        try:
            hint = Hint(decode_range(stored), stored.version)
        except DecodeFailure:
            self._gone(stored)  # as good as no hint; the controller writes it anew
            return
        with self._lock:
            self._known[stored.name] = hint

    def _gone(self, stored: ApiObject) -> None:
        with self._lock:
            self._known.pop(stored.name, None)
