"""The controller at work, from when it leads until it does no more: its parts joined, and what comes next of all.

I/O: what its parts do. One thread takes every step; `step` says how long nothing is to be done, so that nothing here
waits, and time is only what the clock says.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec

from homeport.controller.agenda import Agenda
from homeport.controller.caching import AllocationCache
from homeport.controller.ledgering import Keeping, LedgerKeeper
from homeport.controller.proving import Proof
from homeport.controller.ranging import RangeBook
from homeport.controller.reporting import Reporter
from homeport.controller.reserving import Reserver
from homeport.controller.settling import Settler
from homeport.controller.slots import SlotKeeper
from homeport.controller.viewing import ClusterView, FillIpam
from homeport.controller.watching import Watches
from homeport.model.errors import CniError
from homeport.ports import AllocationStore, Clock, Cluster, Objects
from homeport.stores.coexisting import CoexistingStore
from homeport.stores.keeping_coexistence import CoexistenceKeeper
from homeport.stores.kubernetes.store import KubernetesStore

FULL_PASS_SECONDS = 300.0
_POOLS_SECONDS = 1.0  # between two times that changed networks are read
_REST_FOR_WORK = 10.0  # as long as such work took, it rests so many times before more of it
_FIRST_PAUSE_SECONDS, _MOST_PAUSE_SECONDS = 0.5, 30.0


class Tools(msgspec.Struct, frozen=True, kw_only=True):
    """What a controller acts on. `objects` write only while it leads.

    `whereabouts_namespace` is where Whereabouts keeps its objects while some nodes still run it, or "".
    """

    objects: Objects
    cluster: Cluster
    clock: Clock
    reporter: Reporter
    fill_ipam: FillIpam
    keeping: Keeping = Keeping()
    full_pass_seconds: float = FULL_PASS_SECONDS
    whereabouts_namespace: str = ""


class _Job:
    """One kind of work: how long until it is due, and what it does. After a failure it rests, longer each time."""

    def __init__(self, name: str, due_in: Callable[[], float | None], act: Callable[[], object]) -> None:
        self.name, self.due_in, self.act = name, due_in, act
        self.resting_until = 0.0
        self._pause = _FIRST_PAUSE_SECONDS

    def wait(self, now: float) -> float | None:
        due = self.due_in()
        return None if due is None else max(due, self.resting_until - now)

    def failed(self, now: float) -> None:
        self.resting_until = now + self._pause
        self._pause = min(self._pause * 2, _MOST_PAUSE_SECONDS)

    def succeeded(self) -> None:
        self._pause = _FIRST_PAUSE_SECONDS


class Term:
    """One term of leading. `step` and `close` are for one thread."""

    def __init__(self, tools: Tools) -> None:
        self._clock, self._reporter = tools.clock, tools.reporter
        self._full_pass_seconds = tools.full_pass_seconds
        self.agenda = Agenda()
        self.cache = AllocationCache()
        self._view = ClusterView(tools.cluster, tools.fill_ipam)
        clock = tools.clock
        store: AllocationStore = KubernetesStore(tools.objects, now=clock.now, monotonic=clock.monotonic)
        self._coexistence: CoexistenceKeeper | None = None
        if tools.whereabouts_namespace:
            coexisting = CoexistingStore(store, tools.objects, tools.whereabouts_namespace, monotonic=clock.monotonic)
            store = coexisting
            self._coexistence = CoexistenceKeeper(coexisting, monotonic=clock.monotonic)
        self._next_keeping = 0.0
        self._settler = Settler(
            self.agenda,
            self.cache,
            self._view,
            store=store,
            cluster=tools.cluster,
            clock=clock,
            reporter=tools.reporter,
        )
        self._reserver = Reserver(
            self.agenda,
            self.cache,
            self._view,
            store=store,
            cluster=tools.cluster,
            proof=Proof(tools.objects, tools.cluster, tools.fill_ipam),
            clock=clock,
            reporter=tools.reporter,
        )
        self._ledger = LedgerKeeper(tools.objects, clock, tools.reporter, keeping=tools.keeping, wake=self.agenda.wake)
        self._ranges = RangeBook(tools.objects, clock, tools.reporter, self.agenda.wake)
        self._slots = SlotKeeper(tools.objects, self.cache, clock, tools.reporter, self.agenda.wake)
        self._watches = Watches(
            tools.objects,
            agenda=self.agenda,
            cache=self.cache,
            view=self._view,
            ledger=self._ledger,
            ranges=self._ranges,
            slots=self._slots,
            reserver=self._reserver,
            reporter=tools.reporter,
        )
        self._watching = False
        self._began_pass: float | None = None  # of the full pass that is under way
        self._next_pass = 0.0
        self._pass_took = 0.0
        self._counted_at = -math.inf
        self._jobs = (
            _Job("ledger", self._ledger.due_in, self._keep_ledger),
            _Job("networks", self._pools_due, self._count_pools),
            _Job("full pass", lambda: max(0.0, self._next_pass - clock.monotonic()), self._begin_pass),
            _Job("reservations", lambda: 0.0 if self.agenda.has_workloads() else None, self._reserver.step),
            _Job("allocations", self._settler.due_in, self._settler.step),
            _Job("ranges", self._ranges.due_in, self._ranges.flush),
            _Job("slots", self._slots.due_in, self._slots.step),
            _Job("coexistence", self._coexistence_due, self._keep_coexistence),
        )
        self._start = _Job("watches", lambda: 0.0, self._watches.start)

    def unready(self) -> str:
        """Why it cannot work yet; "" when it can."""
        if not self._watching:
            return "the watches have not been started"
        missing = self._watches.missing()
        return f"never listed yet: {', '.join(missing)}" if missing else ""

    def pending(self) -> int:
        """How many resources have not been listed to their end yet; IPSlots come last, and nothing waits for them."""
        return len(self._watches.missing()) + (not self._slots.is_listed())

    def step(self) -> float:
        """Does what is due, each kind of work once; the seconds until more will be, if nothing wakes the agenda."""
        if not self._watching and not self._start_watching():
            return max(0.0, self._start.resting_until - self._clock.monotonic())
        if self.unready():
            return self._full_pass_seconds  # the end of each list wakes
        waits = [wait for wait in map(self._do, self._jobs) if wait is not None]
        self._end_pass()
        return min(waits, default=self._full_pass_seconds)

    def close(self) -> None:
        """Ends the watches. What is half done is as good as undone."""
        self._slots.stop()
        self._watches.stop()

    def _start_watching(self) -> bool:
        if self._start.resting_until > self._clock.monotonic():
            return False
        self._watching = self._attempt(self._start)
        return self._watching

    def _do(self, job: _Job) -> float | None:
        wait = job.wait(self._clock.monotonic())
        if wait is None or wait > 0.0:
            return wait
        self._attempt(job)
        return job.wait(self._clock.monotonic())

    def _attempt(self, job: _Job) -> bool:
        try:
            job.act()
        except CniError as e:
            job.failed(self._clock.monotonic())
            self._reporter.tell_failure(job.name, e)
            return False
        job.succeeded()
        return True

    # --- the work ---

    def _keep_ledger(self) -> None:
        self._ledger.flush()
        self._ledger.prune()

    def _pools_due(self) -> float | None:
        """Networks that change one after the other are taken together: each time costs a look at everything."""
        if not self._watches.pools_changed.is_set():
            return None
        rest = max(_POOLS_SECONDS, _REST_FOR_WORK * self._pass_took)
        return max(0.0, self._counted_at + rest - self._clock.monotonic())

    def _count_pools(self) -> None:
        """Other networks: other ranges, other maps, other wishes for retention."""
        self._counted_at = self._clock.monotonic()
        self._watches.count_pools()
        self._next_pass = self._clock.monotonic()

    def _coexistence_due(self) -> float | None:
        return None if self._coexistence is None else max(0.0, self._next_keeping - self._clock.monotonic())

    def _keep_coexistence(self) -> None:
        if self._coexistence is not None:
            kept = self._coexistence.keep()
            self._reporter.tell_contested([(c.allocation, c.reason) for c in kept.contested])
            self._next_keeping = self._clock.monotonic() + self._full_pass_seconds

    def _begin_pass(self) -> None:
        self._next_pass = self._clock.monotonic() + self._full_pass_seconds
        self._began_pass = self._clock.monotonic()
        self.agenda.add_allocations(self.cache.names())
        self.agenda.add_workloads(self._reserver.everything())
        self._ranges.remove_stale(keep=self._view.unreadable)

    def _end_pass(self) -> None:
        """Once the last allocation has been looked at."""
        if self._began_pass is None or self.agenda.has_allocations():
            return
        self._pass_took = self._clock.monotonic() - self._began_pass
        self._reporter.pass_seconds.set(self._pass_took)
        self._began_pass = None
        self._reporter.tell_doubts(self._settler.doubts())
