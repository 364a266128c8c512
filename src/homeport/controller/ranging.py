"""IPRanges: how full each range of each network is, counted as allocations come and go. I/O: `ports.Objects`.

To nodes they are hints, to people they are totals. One write a second for each range at most, and none while nothing
changes.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping

import msgspec

from homeport.controller.reporting import Reporter
from homeport.ipam.allocations import Allocation, Phase
from homeport.ipam.pools import Pool
from homeport.ipam.ranges import Range
from homeport.model.addresses import IPAddress
from homeport.model.errors import DecodeFailure
from homeport.ports import ApiObject, Clock, ObjectChanged, ObjectExists, Objects
from homeport.stores.kubernetes import names
from homeport.stores.kubernetes.hints import RangeReport, Totals, decode_range, range_body, range_patch
from homeport.stores.kubernetes.resources import IPRANGES
from homeport.stores.kubernetes.runs import Runs

WRITE_SECONDS = 1.0  # between two writes of one range


class Counted(msgspec.Struct, frozen=True):
    """A range and the networks that have it."""

    scope: str
    range: Range
    networks: tuple[str, ...]

    @property
    def name(self) -> str:
        return names.range_name(self.scope, self.range.first, self.range.last)


class Tally:
    """What is allocated between the first and the last address of one range."""

    def __init__(self, counted: Counted) -> None:
        self.counted = counted
        self.taken = Runs()
        self._phases = dict.fromkeys(Phase, 0)
        self._usable_taken = 0

    def add(self, address: IPAddress, phase: Phase) -> None:
        self.taken.add(int(address) - int(self.counted.range.first))
        self._count(address, phase, 1)

    def remove(self, address: IPAddress, phase: Phase) -> None:
        self.taken.discard(int(address) - int(self.counted.range.first))
        self._count(address, phase, -1)

    def totals(self) -> Totals:
        """What stands at an address that is withheld by now is counted in its phase, and takes nothing that is free."""
        usable = self.counted.range.usable
        return Totals(
            usable=usable,
            bound=self._phases[Phase.BOUND],
            retained=self._phases[Phase.RETAINED],
            reserved=self._phases[Phase.RESERVED],
            quarantined=self._phases[Phase.QUARANTINED],
            free=usable - self._usable_taken,
        )

    def _count(self, address: IPAddress, phase: Phase, by: int) -> None:
        self._phases[phase] += by
        if address in self.counted.range:
            self._usable_taken += by


class _Scope:
    """The tallies of one scope and family, found by address; ranges may overlap."""

    def __init__(self, tallies: Iterable[Tally]) -> None:
        self._tallies = sorted(tallies, key=lambda t: int(t.counted.range.first))
        self._firsts = [int(t.counted.range.first) for t in self._tallies]
        self._furthest: list[int] = []  # the highest last address up to each place
        for tally in self._tallies:
            last = int(tally.counted.range.last)
            self._furthest.append(max(last, self._furthest[-1]) if self._furthest else last)

    def around(self, address: IPAddress) -> list[Tally]:
        number, found = int(address), []
        place = bisect_right(self._firsts, number) - 1
        while place >= 0 and self._furthest[place] >= number:
            if number <= int(self._tallies[place].counted.range.last):
                found.append(self._tallies[place])
            place -= 1
        return found


class RangeBook:
    """All tallies. `note` is for the watch's thread, the rest for the controller's."""

    def __init__(self, objects: Objects, clock: Clock, reporter: Reporter, wake: Callable[[], None]) -> None:
        self._objects, self._clock, self._reporter = objects, clock, reporter
        self._wake = wake
        self._lock = threading.Lock()
        self._tallies: dict[str, Tally] = {}
        self._scopes: dict[tuple[str, int], _Scope] = {}
        self._dirty: dict[str, None] = {}
        self._written_at: dict[str, float] = {}
        self._stored: dict[str, tuple[str, RangeReport | None]] = {}  # version, and what it says if it can be read

    # --- what the API server has, told by its watch ---

    def stored(self, found: ApiObject) -> None:
        """One that cannot be read is written anew."""
        try:
            report = decode_range(found)
        except DecodeFailure as e:
            self._reporter.tell_unreadable(IPRANGES, "", found.name, found.uid, str(e))
            report = None
        with self._lock:
            self._stored[found.name] = (found.version, report)
            if report is None and found.name in self._tallies:
                self._dirty[found.name] = None

    def gone(self, found: ApiObject) -> None:
        with self._lock:
            self._stored.pop(found.name, None)
            if found.name in self._tallies:
                self._dirty[found.name] = None
        self._wake()

    # --- what is to be counted ---

    def note(self, before: Allocation | None, after: Allocation | None) -> None:
        """A change of one allocation; None where there is none."""
        if before is not None and after is not None and before.phase is after.phase:
            return
        allocation = after or before
        assert allocation is not None
        with self._lock:
            scope = self._scopes.get((allocation.scope, allocation.address.version))
            for tally in scope.around(allocation.address) if scope is not None else ():
                if before is not None:
                    tally.remove(before.address, before.phase)
                if after is not None:
                    tally.add(after.address, after.phase)
                self._dirty[tally.counted.name] = None

    def set_pools(self, pools: Mapping[str, Pool], allocations: Callable[[], Iterable[Allocation]]) -> None:
        """The ranges of these networks from now on, counted anew; `pools` are by namespace/name of the definition.

        `allocations` gives all there are, while the caller keeps `note` from being called.
        """
        wanted = _ranges_of(pools)
        with self._lock:
            if wanted == {name: tally.counted for name, tally in self._tallies.items()}:
                return
            for name in self._tallies.keys() - wanted.keys():
                old = self._tallies[name]
                self._reporter.forget_totals(str(old.counted.range.span), old.counted.scope, _states(old.totals()))
            self._tallies = {name: Tally(counted) for name, counted in wanted.items()}
            by_scope: dict[tuple[str, int], list[Tally]] = {}
            for tally in self._tallies.values():
                by_scope.setdefault((tally.counted.scope, tally.counted.range.family), []).append(tally)
            self._scopes = {key: _Scope(tallies) for key, tallies in by_scope.items()}
            for allocation in allocations():
                scope = self._scopes.get((allocation.scope, allocation.address.version))
                for tally in scope.around(allocation.address) if scope is not None else ():
                    tally.add(allocation.address, allocation.phase)
            self._dirty = dict.fromkeys(self._tallies)

    # --- writing ---

    def due_in(self) -> float | None:
        """Seconds until a write may be made; None when none is wanted."""
        with self._lock:
            if not self._dirty:
                return None
            now = self._clock.monotonic()
            oldest = min(self._written_at.get(name, -math.inf) for name in self._dirty)
            return max(0.0, oldest + WRITE_SECONDS - now)

    def flush(self) -> None:
        """Writes what is dirty and due. Raises what the API server raises, that range still dirty."""
        now = self._clock.monotonic()
        with self._lock:
            due = [n for n in self._dirty if now - self._written_at.get(n, -math.inf) >= WRITE_SECONDS]
        for name in due:
            with self._lock:
                tally = self._tallies.get(name)
                self._dirty.pop(name, None)
                if tally is None:
                    continue
                report = self._report(tally)
                known = self._stored.get(name)
            self._written_at[name] = now
            self._reporter.tell_totals(str(report.span), report.scope, _states(report.totals))
            try:
                if known is None or known[1] is None or not _says_the_same(known[1], report):
                    self._write(name, report, known[0] if known is not None else "")
            except BaseException:
                with self._lock:
                    self._dirty[name] = None
                raise

    def remove_stale(self, *, keep: Iterable[str]) -> None:
        """Removes ranges of no network; not those of the networks `keep`, whose definitions cannot be read now."""
        kept = set(keep)
        with self._lock:
            stale = {
                name: version
                for name, (version, report) in self._stored.items()
                if name not in self._tallies and report is not None and not kept.intersection(report.networks)
            }
        for name, version in stale.items():
            try:
                self._objects.delete(IPRANGES, name, version=version)
            except ObjectChanged:
                continue  # the watch will tell

    def _report(self, tally: Tally) -> RangeReport:
        counted = tally.counted
        return RangeReport(
            scope=counted.scope,
            first=counted.range.first,
            last=counted.range.last,
            subnet=counted.range.subnet,
            networks=counted.networks,
            totals=tally.totals(),
            taken=Runs.parse(str(tally.taken)),
            updated=self._clock.now(),
        )

    def _write(self, name: str, report: RangeReport, version: str) -> None:
        try:
            if version:
                self._objects.patch(IPRANGES, name, range_patch(report), version=version)
            else:
                self._objects.create(IPRANGES, range_body(report))
        except (ObjectChanged, ObjectExists):
            with self._lock:
                self._dirty[name] = None  # somebody else was faster: again, when the watch has told what


def _ranges_of(pools: Mapping[str, Pool]) -> dict[str, Counted]:
    """By name; where networks share first and last address but not what is withheld, the first network's counts."""
    found: dict[str, Counted] = {}
    for network, pool in sorted(pools.items()):
        for pooled in pool.ranges:
            counted = Counted(pooled.scope, pooled.range, (network,))
            known = found.get(counted.name)
            if known is None:
                found[counted.name] = counted
            elif network not in known.networks:
                found[counted.name] = msgspec.structs.replace(known, networks=(*known.networks, network))
    return found


def _says_the_same(stored: RangeReport, report: RangeReport) -> bool:
    return _said(stored) == _said(report)


def _said(report: RangeReport) -> tuple[object, ...]:
    """As it is written, but for the time."""
    body = range_body(report)
    return (body["spec"], {key: value for key, value in body["status"].items() if key != "updated"})


def _states(totals: Totals) -> dict[str, int]:
    return msgspec.structs.asdict(totals)
