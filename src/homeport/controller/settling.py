"""Letting go of what is proven gone: caches say where to look, the API server says what is true. I/O: store, cluster.

docs/identity.md R11-R14. Each batch asks anew; what fails goes back on the agenda.
"""

from __future__ import annotations

from homeport.controller.agenda import Agenda
from homeport.controller.caching import AllocationCache
from homeport.controller.reporting import Reporter
from homeport.controller.viewing import ClusterView
from homeport.ipam.allocations import Allocation
from homeport.ipam.identities import Holder
from homeport.model.errors import TryAgainLater
from homeport.ports import AllocationStore, Clock, Cluster
from homeport.runtime.answering import Answers
from homeport.runtime.reconciling import Doubt, Judge, Pass, suspects
from homeport.stores.kubernetes import names as object_names

_LOOK_AT = 2000  # allocations a batch, by what the caches say
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

    def step(self) -> bool:
        """A batch; whether there was one.

        Raises what the store raises, and when questions were not answered; what is left is back on the agenda then.
        """
        taken = self._agenda.take_allocations(_LOOK_AT)
        if not taken:
            return False
        known = [found for found in map(self._cache.get, taken) if found is not None]
        for name in taken:
            self._doubts.pop(name, None)
        seen = Judge(
            Answers(self._view, _no_sight),
            pool_of=self._view.pool_of,
            of_slot=self._cache.of_slot,
            clock=self._clock,
        )
        waiting = list(suspects(known, seen))
        try:
            self._settle_some(waiting)
        finally:  # other work has its turn too
            self._agenda.add_allocations(_name(allocation) for allocation in waiting)
        unanswered = [name for name in taken if name in self._doubts and self._doubts[name].passing]
        if unanswered:
            self._agenda.add_allocations(unanswered)
            raise TryAgainLater(f"settle {len(unanswered)} allocations: {self._doubts[unanswered[0]].reason}")
        return True

    def doubts(self) -> dict[str, Doubt]:
        """By the name of the allocation, which still is as it was judged."""
        for name, doubt in list(self._doubts.items()):
            known = self._cache.get(name)
            if known is None or known.version != doubt.allocation.version:
                del self._doubts[name]
        return dict(self._doubts)

    def _settle_some(self, waiting: list[Allocation]) -> None:
        """As many as the same answers may serve for; takes them from `waiting`."""
        run = Pass(self._store, Answers(self._cluster, _no_sight), pool_of=self._view.pool_of, clock=self._clock)
        until = self._clock.monotonic() + _TRUE_FOR_SECONDS
        try:
            while waiting and self._clock.monotonic() < until:
                run.settle(waiting[0])
                del waiting[0]
        finally:
            report = run.report()
            self._reporter.tell(report)
            self._doubts |= {_name(doubt.allocation): doubt for doubt in report.doubts}


def _no_sight(_holder: Holder) -> bool | None:
    """A controller sees no namespace of any node."""
    return None


def _name(allocation: Allocation) -> str:
    return object_names.allocation_name(allocation.scope, allocation.address)
