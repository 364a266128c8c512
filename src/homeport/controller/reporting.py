"""Telling people: events in their words, and figures for Prometheus. I/O: none; `emit` sends in the background."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector

from homeport.controller.caching import pod_of
from homeport.ipam.allocations import Allocation, Phase
from homeport.ipam.identities import Owner, PodOwner, Replica, Workload
from homeport.kube.resources import STATEFUL_SETS
from homeport.model.names import PodRef
from homeport.ports import Event, Resource
from homeport.runtime.reconciling import Blocked, Change, Doubt, Report

log = structlog.get_logger("homeport.controller")

Emit = Callable[[Event], None]
Totals = Mapping[str, int]
"""Addresses by what they are: usable, bound, retained, reserved, quarantined, free."""


class Reporter:
    """One controller's; safe for any number of threads. `registry` holds its figures."""

    def __init__(self, emit: Emit) -> None:
        self.registry = CollectorRegistry()
        self._emit = emit
        self._doubted: dict[str, int] = {}  # by allocation: the version that was doubted in the pass before this one
        self._changes = Counter(
            "homeport_controller_changes",
            "Changes of allocations that the controller has made.",
            ("change",),
            registry=self.registry,
        )
        self._doubts = Gauge(
            "homeport_controller_doubtful_allocations",
            "Allocations that look abandoned although nothing proves it, as of the last full pass.",
            registry=self.registry,
        )
        self._unreadable = Gauge(
            "homeport_controller_unreadable_objects",
            "Objects that cannot be read; nothing is concluded from them.",
            ("resource",),
            registry=self.registry,
        )
        self._failures = Counter(
            "homeport_controller_failures",
            "Work that failed and is tried again.",
            ("work",),
            registry=self.registry,
        )
        self._addresses = Gauge(
            "homeport_range_addresses",
            "Addresses of a range, by what they are.",
            ("range", "scope", "state"),
            registry=self.registry,
        )
        self._contested = Gauge(
            "homeport_controller_contested_addresses",
            "Addresses of ours that Whereabouts has given to somebody as well.",
            registry=self.registry,
        )
        self.pass_seconds = Gauge(
            "homeport_controller_full_pass_seconds",
            "How long the last look at every allocation took.",
            registry=self.registry,
        )
        self.ledger_waiting = Gauge(
            "homeport_controller_ledger_waiting_entries",
            "Changes seen that are not in the ledger yet.",
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A figure that is asked for when it is read."""
        Gauge(name, text, registry=self.registry).set_function(value)

    # --- what was done ---

    def tell(self, report: Report) -> None:
        """What a pass did and could not do, but for its doubts."""
        for change in report.changes:
            self._tell_change(change)
        for blocked in report.blocked:
            self._tell_blocked(blocked)

    def tell_doubts(self, doubts: Mapping[str, Doubt]) -> None:
        """All that a full pass had, by name. A doubt is news once it has outlasted a pass: a DEL may be on its way."""
        self._doubts.set(len(doubts))
        for name, doubt in doubts.items():
            allocation = doubt.allocation
            if self._doubted.get(name) == allocation.version:
                self._warn_of(allocation, "ReleaseDoubtful", f"{_address(allocation)} is not freed: {doubt.reason}")
        self._doubted = {name: doubt.allocation.version for name, doubt in doubts.items()}

    def tell_totals(self, range_: str, scope: str, totals: Totals) -> None:
        for state, count in totals.items():
            self._addresses.labels(range_, scope, state).set(count)

    def forget_totals(self, range_: str, scope: str, totals: Totals) -> None:
        """The range is in no network any more."""
        for state in totals:
            self._addresses.remove(range_, scope, state)

    # --- what is wrong ---

    def tell_unreadable(self, resource: Resource, namespace: str, name: str, uid: str, reason: str) -> None:
        """An object that says nothing, for now."""
        log.warning("cannot read an object", resource=resource.plural, namespace=namespace, name=name, reason=reason)
        self._emit(
            Event(
                pod=PodRef(namespace, name),
                pod_uid=uid,
                kind=resource.kind,
                api_version=f"{resource.group}/{resource.version}" if resource.group else resource.version,
                reason="Unreadable",
                message=f"nothing is concluded from this object until it is put right: {reason}",
                warning=True,
            )
        )

    def count_unreadable(self, resource: Resource, count: int) -> None:
        self._unreadable.labels(resource.plural).set(count)

    def tell_bad_map(self, workload: Workload, reason: str) -> None:
        self._say(workload, "InvalidAddressMap", reason, warning=True)

    def tell_contested(self, contested: Sequence[tuple[Allocation, str]]) -> None:
        """All there are now: two may use one address, and a person must restart one of them."""
        self._contested.set(len(contested))
        for allocation, reason in contested:
            self._warn_of(allocation, "AddressContested", f"{_address(allocation)}: {reason}")

    def tell_failure(self, work: str, error: Exception) -> None:
        """Something that is tried again."""
        log.warning("work failed, and is tried again", work=work, error=str(error))
        self._failures.labels(work).inc()

    def _tell_change(self, change: Change) -> None:
        allocation = change.after or change.before
        assert allocation is not None
        kind, message = _words(change, allocation)
        self._changes.labels(kind).inc()
        log.info(
            "changed an allocation",
            change=kind,
            address=str(allocation.address),
            scope=allocation.scope,
            slot=str(allocation.slot),
            cause=change.cause,
        )
        if kind != "RetentionChanged":
            self._say(allocation.slot.owner, kind, message)

    def _tell_blocked(self, blocked: Blocked) -> None:
        reservation, by = blocked.reservation, blocked.by
        message = (
            f"{reservation.address} is mapped for {reservation.slot.owner},"
            f" but {by.phase.value} for {by.slot.owner} ({by.slot.network}/{by.slot.ifname})"
        )
        self._say(reservation.slot.owner, "AddressTaken", message, warning=True)

    def _say(self, owner: Owner | Workload, reason: str, message: str, *, warning: bool = False) -> None:
        """On the StatefulSet, where there is one; on the pod of any other owner."""
        ref, kind, api_version = _subject(owner)
        if ref is not None:
            self._emit(
                Event(
                    pod=ref,
                    pod_uid="",
                    kind=kind,
                    api_version=api_version,
                    reason=reason,
                    message=message,
                    warning=warning,
                )
            )

    def _warn_of(self, allocation: Allocation, reason: str, message: str) -> None:
        log.warning("an allocation is in doubt", address=str(allocation.address), reason=message)
        self._say(allocation.slot.owner, reason, message, warning=True)


def _words(change: Change, allocation: Allocation) -> tuple[str, str]:
    """What happened in one word, and in a sentence."""
    address = _address(allocation)
    if change.before is None:
        return "AddressReserved", f"{address} is kept: {change.cause}"
    if change.after is None:
        if change.before.phase is Phase.RESERVED:
            return "ReservationWithdrawn", f"{address} is free: {change.cause}"
        return "AddressReleased", f"{address} is free: {change.cause}"
    if change.after.phase is not change.before.phase:
        return "AddressRetained", f"{address} is kept without a user: {change.cause}"
    return "RetentionChanged", f"{address}: {change.cause}"


def _address(allocation: Allocation) -> str:
    slot = allocation.slot
    return f"{allocation.address} of {slot.owner} ({slot.network}/{slot.ifname})"


def _subject(owner: Owner | Workload) -> tuple[PodRef | None, str, str]:
    """Name, kind and API version of the object; no name where there is none in the cluster."""
    workload = owner.workload if isinstance(owner, Replica) else owner
    if isinstance(workload, Workload) and workload.kind == STATEFUL_SETS.kind:
        return PodRef(workload.namespace, workload.name), workload.kind, "apps/v1"
    if isinstance(owner, Replica | PodOwner):
        return pod_of(owner), "Pod", "v1"
    return None, "", ""
