"""Reservations: what maps of workloads keep is made an allocation before there are pods, and withdrawn on proof.

docs/identity.md E15, E17. I/O: store, cluster, API server. The caches say what a map asks for; before anything is
withdrawn, the API server is asked for workload and networks by name.
"""

from __future__ import annotations

from homeport.controller.agenda import Agenda
from homeport.controller.caching import AllocationCache
from homeport.controller.proving import Proof, no_sight
from homeport.controller.reporting import Reporter
from homeport.controller.viewing import ClusterView, WatchedWorkload
from homeport.ipam.allocations import Allocation, Phase
from homeport.ipam.identities import Workload
from homeport.ipam.reservations import Reservation
from homeport.model.errors import CniError, TryAgainLater
from homeport.ports import AllocationStore, Clock, Cluster, Place
from homeport.runtime import mapping
from homeport.runtime.answering import Answers
from homeport.runtime.reconciling import Pass
from homeport.stores.kubernetes import names as object_names

_WORKLOADS = 100  # a batch


class Reserver:
    """For one thread, but for `freed`."""

    def __init__(
        self,
        agenda: Agenda,
        cache: AllocationCache,
        view: ClusterView,
        *,
        store: AllocationStore,
        cluster: Cluster,
        proof: Proof,
        clock: Clock,
        reporter: Reporter,
    ) -> None:
        self._agenda, self._cache, self._view = agenda, cache, view
        self._store, self._cluster, self._proof = store, cluster, proof
        self._clock, self._reporter = clock, reporter
        self._wanted: dict[Workload, frozenset[Place]] = {}
        self._wanting: dict[Place, Workload] = {}
        self._told: dict[Workload, str] = {}

    def everything(self) -> list[Workload]:
        """Every workload that has a map, or may have had one."""
        reserved = (a.slot.workload for _, a in self._cache.items() if a.phase is Phase.RESERVED)
        return [*self._view.workloads, *(workload for workload in reserved if workload is not None)]

    def freed(self, place: Place) -> None:
        """An allocation is gone; whoever has it mapped may have waited for that."""
        workload = self._wanting.get(place)
        if workload is not None:
            self._agenda.add_workloads([workload])

    def step(self) -> bool:
        """A batch of workloads; whether there was one. Raises what the store raises, the rest back on the agenda."""
        waiting = self._agenda.take_workloads(_WORKLOADS)
        if not waiting:
            return False
        try:
            while waiting:
                self._reserve_for(waiting[0])
                del waiting[0]
        except CniError:
            self._agenda.add_workloads(waiting)
            raise
        return True

    def _reserve_for(self, workload: Workload) -> None:
        watched = self._view.workloads.get(workload)
        wanted = self._read(workload, watched) if watched is not None else {}
        self._note(workload, frozenset(wanted or ()))
        if wanted is None:
            return
        run = Pass(self._store, Answers(self._cluster, no_sight), pool_of=self._view.pool_of, clock=self._clock)
        try:
            for name in self._cache.of_workload(workload):
                allocation = self._cache.get(name)
                if allocation is not None and allocation.phase is Phase.RESERVED and not _is_wanted(allocation, wanted):
                    run.withdraw(allocation, self._proof.is_mapped)
            for place, reservation in wanted.items():
                known = self._cache.get(object_names.allocation_name(*place))
                if known is None or known.slot != reservation.slot:
                    run.reserve(reservation)
        finally:
            report = run.report()
            self._reporter.tell(report)
        if any(doubt.passing for doubt in report.doubts):
            raise TryAgainLater(f"withdraw reservations of {workload}: {report.doubts[0].reason}")

    def _read(self, workload: Workload, watched: WatchedWorkload) -> dict[Place, Reservation] | None:
        """What its map asks for, as the caches have it; None when that cannot be right."""
        try:
            found = mapping.reservations_for(watched.state, watched.networks, self._view.pools.get)
            wanted = {(r.scope, r.address): r for r in found}
        except TryAgainLater:
            raise
        except CniError as e:
            if self._told.get(workload) != str(e):
                self._reporter.tell_bad_map(workload, str(e))
            self._told[workload] = str(e)
            return None
        self._told.pop(workload, None)
        return wanted

    def _note(self, workload: Workload, places: frozenset[Place]) -> None:
        for place in self._wanted.pop(workload, frozenset()) - places:
            if self._wanting.get(place) == workload:
                del self._wanting[place]
        if places:
            self._wanted[workload] = places
            self._wanting |= dict.fromkeys(places, workload)


def _is_wanted(allocation: Allocation, wanted: dict[Place, Reservation]) -> bool:
    reservation = wanted.get((allocation.scope, allocation.address))
    return reservation is not None and reservation.slot == allocation.slot
