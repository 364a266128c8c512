"""Letting go of what is proven gone: caches say where to look, the API server says what is true. I/O: store, cluster.

docs/identity.md R11-R14. Each batch asks anew; what fails goes back on the agenda.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from datetime import datetime, timedelta

from homeport.controller.agenda import Agenda
from homeport.controller.caching import AllocationCache
from homeport.controller.proving import no_sight
from homeport.controller.reporting import Reporter
from homeport.controller.viewing import ClusterView
from homeport.ipam.allocations import Allocation, Phase
from homeport.model.errors import TryAgainLater
from homeport.ports import AllocationStore, Clock, Cluster
from homeport.runtime.answering import Answers
from homeport.runtime.reconciling import Doubt, Judge, Pass, suspects
from homeport.stores.kubernetes import names as object_names

_LOOK_AT = 2000  # allocations a batch, by what the caches say
_FIRST_PAUSE_SECONDS, _MOST_PAUSE_SECONDS = 0.5, 60.0
_FORESEEN = timedelta(days=1)
_TRUE_FOR_SECONDS = 1.0  # that a workload's or node's answer may be used again


class Settler:
    """For one thread."""

    def __init__(
        self,
        agenda: Agenda,
        cache: AllocationCache,
        view: ClusterView,
        *,
        store: AllocationStore,
        cluster: Cluster,
        clock: Clock,
        reporter: Reporter,
    ) -> None:
        self._agenda, self._cache, self._view = agenda, cache, view
        self._store, self._cluster, self._clock = store, cluster, clock
        self._reporter = reporter
        self._doubts: dict[str, Doubt] = {}
        self._unanswered: dict[str, None] = {}  # to be looked at again, at `_again_at`
        self._again_at = 0.0
        self._endings: list[tuple[datetime, str]] = []  # a heap: when something need not be retained any longer
        self._ends: dict[str, datetime] = {}  # the same by name; what differs in the heap is of before
        self._pause = _FIRST_PAUSE_SECONDS

    def due_in(self) -> float | None:
        """Seconds until there is something to look at; None when there is nothing."""
        if self._agenda.has_allocations():
            return 0.0
        waits = [(end - self._clock.now()).total_seconds() for end, _ in self._endings[:1]]
        if self._unanswered:
            waits.append(self._again_at - self._clock.monotonic())
        return max(0.0, min(waits)) if waits else None

    def step(self) -> None:
        """A batch. Raises what the store raises; what is left is back on the agenda then."""
        if self._unanswered and self._clock.monotonic() >= self._again_at:
            self._agenda.add_allocations(self._unanswered)
            self._unanswered = {}
        self._agenda.add_allocations(self._take_ended())
        taken = self._agenda.take_allocations(_LOOK_AT)
        known = [found for found in map(self._cache.get, taken) if found is not None]
        for name in taken:
            self._doubts.pop(name, None)
        self._note_endings(known)
        seen = Judge(
            Answers(self._view, no_sight),
            pool_of=self._view.pool_of,
            of_slot=self._cache.of_slot,
            clock=self._clock,
        )
        waiting = list(suspects(known, seen))
        try:
            self._settle_some(waiting)
        finally:  # other work has its turn too
            self._agenda.add_allocations(_name(allocation) for allocation in waiting)
        self._note_unanswered([name for name in taken if name in self._doubts and self._doubts[name].passing])

    def doubts(self) -> dict[str, Doubt]:
        """By the name of the allocation, which still is as it was judged."""
        for name, doubt in list(self._doubts.items()):
            known = self._cache.get(name)
            if known is None or known.version != doubt.allocation.version:
                del self._doubts[name]
        return dict(self._doubts)

    def _note_endings(self, known: Iterable[Allocation]) -> None:
        """Nothing happens when `retainFor` has passed (R11), so it is noted when to look; full passes do the rest."""
        now = self._clock.now()
        for allocation in known:
            limit = allocation.retention.retain_for
            if allocation.phase is Phase.RETAINED and limit is not None:
                left = limit - (now - allocation.since)
                name, end = _name(allocation), now + min(left, _FORESEEN)
                if timedelta() < left < _FORESEEN and self._ends.get(name) != end:
                    self._ends[name] = end
                    heapq.heappush(self._endings, (end, name))

    def _take_ended(self) -> list[str]:
        now, ended = self._clock.now(), []
        while self._endings and self._endings[0][0] <= now:
            end, name = heapq.heappop(self._endings)
            if self._ends.get(name) == end:
                del self._ends[name]
                ended.append(name)
        return ended

    def _note_unanswered(self, names: list[str]) -> None:
        """They are asked about again, after a pause that grows; nothing else waits for that."""
        if names:
            self._reporter.tell_failure("questions", TryAgainLater(self._doubts[names[0]].reason))
            self._unanswered |= dict.fromkeys(names)
            self._again_at = self._clock.monotonic() + self._pause
            self._pause = min(self._pause * 2, _MOST_PAUSE_SECONDS)
        elif not self._unanswered:
            self._pause = _FIRST_PAUSE_SECONDS

    def _settle_some(self, waiting: list[Allocation]) -> None:
        """As many as the same answers may serve for; takes them from `waiting`."""
        run = Pass(self._store, Answers(self._cluster, no_sight), pool_of=self._view.pool_of, clock=self._clock)
        until = self._clock.monotonic() + _TRUE_FOR_SECONDS
        try:
            while waiting and self._clock.monotonic() < until:
                run.settle(waiting[0])
                del waiting[0]
        finally:
            report = run.report()
            self._reporter.tell(report)
            self._doubts |= {_name(doubt.allocation): doubt for doubt in report.doubts}


def _name(allocation: Allocation) -> str:
    return object_names.allocation_name(allocation.scope, allocation.address)
