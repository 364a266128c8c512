"""A run's namespace as the API server shows it, and waiting for what is to come. I/O: `ports.Objects`.

Every wait has a deadline, looks at every pod of the run each time, and fails the row at once when two of them have one
address. An API server that is away for a moment is asked again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from homeport.conformance import manifests, observing
from homeport.conformance.observing import Kept, Seen, View
from homeport.conformance.reports import Interrupted, NotRun, RowFailed
from homeport.conformance.templates import Room, Template, window_of
from homeport.kube import resources
from homeport.model.addresses import IPAddress
from homeport.model.errors import DecodeFailure, IOFailure, TryAgainLater
from homeport.ports import (
    USUAL_DELETION,
    AllocationStore,
    ApiObject,
    Clock,
    Conflict,
    Deletion,
    ObjectChanged,
    ObjectExists,
    Objects,
    Resource,
)
from homeport.stores.kubernetes import wire
from homeport.stores.kubernetes.resources import IPALLOCATIONS

_POOLS_MAX = 3  # of one row, all of one size
_POLL_SECONDS = 0.25
_REST = 4  # times as long as a look took, for whoever has much to list
_REFUSED = "FailedCreatePodSandBox"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How a run is to be. `nodes` are the only ones its pods may run on, none for any. `timeout_seconds` is for each
    wait.
    """

    image: str = "registry.k8s.io/pause:3.10"
    nodes: tuple[str, ...] = ()
    timeout_seconds: float = 120.0
    replicas: int = 20  # of E24
    rounds: int = 20  # of E19
    disruptive: bool = False


class Records:
    """Homeport's allocations in the cluster."""

    def __init__(self, objects: Objects, store: AllocationStore) -> None:
        self._objects = objects
        self._store = store

    def of(self, namespace: str) -> Sequence[Kept]:
        """Those of that namespace's pods, whichever else there are."""
        return [kept for kept, _ in self._stored(namespace)]

    def every(self) -> frozenset[IPAddress]:
        """The address of each allocation there is, of those that can be read."""
        found = set()
        for stored in self._objects.list(IPALLOCATIONS):
            with suppress(DecodeFailure):
                found.add(observing.kept_of(stored).address)
        return frozenset(found)

    def causes(self, address: IPAddress) -> Sequence[str]:
        """Why allocations of it went, oldest first, by the ledger."""
        return [entry.cause for entry in self._store.ledger(address=address) if entry.after is None]

    def release(self, namespace: str, *, every: bool = False) -> None:
        """What its deleted workloads were told to keep (docs/identity.md R11), or `every` address it has not in use.

        One that changes meanwhile is left as it is.
        """
        for kept, stored in self._stored(namespace):
            if kept.phase == "Retained":
                allocation = wire.decode(stored)
                if every or allocation.retention.when_deleted == "Retain":
                    with suppress(Conflict):
                        self._store.delete(allocation, cause=f"conformance run {namespace} has ended")

    def _stored(self, namespace: str) -> list[tuple[Kept, ApiObject]]:
        # One of others that cannot be read is theirs to mend; one that names this namespace is not passed over.
        named = [stored for stored in self._objects.list(IPALLOCATIONS) if namespace.encode() in stored.body]
        found = [(observing.kept_of(stored), stored) for stored in named]
        return [(kept, stored) for kept, stored in found if kept.namespace == namespace]


class World:
    """What the rows of a run share: `room` is theirs alone, `records` None where the cluster has no allocations, or
    `is_blind` to those it has.

    `tell` gets what is waited for; `stop` is set to end the run.
    """

    def __init__(
        self,
        objects: Objects,
        namespace: str,
        template: Template,
        room: Room,
        settings: Settings,
        *,
        records: Records | None,
        is_blind: bool,
        clock: Clock,
        stop: threading.Event,
        tell: Callable[[str], None],
    ) -> None:
        self.objects = objects
        self.namespace = namespace
        self.template = template
        self.settings = settings
        self.records = records
        self.is_blind = is_blind
        self.clock = clock
        self.stop = stop
        self.tell = tell
        self._room = room
        self._next = 0  # of the room
        self._taken = 0  # by this row

    def begin(self) -> None:
        """Another row."""
        self._taken = 0

    def take(self, size: int) -> Room:
        """Addresses for one pool: never those of another pool of the row, and of the last row's only where it must."""
        there = len(self._room[0])
        if self._taken + size > there:
            needed = f"{self._taken + size} addresses in a row are needed"
            raise NotRun(f"{needed}, and {there} are free in {self.template.name}")
        if not self._taken and self._next + _POOLS_MAX * size > there:
            self._next = 0
        start = self._next
        self._next += size
        self._taken += size
        return window_of(self._room, start, size)

    # --- what is there ---

    def views(self) -> Sequence[View]:
        """Every pod of the run. Raises `RowFailed` for an address that two have."""
        found = self.objects.list(resources.PODS, namespace=self.namespace)
        views = [observing.view_of(stored, manifests.RUN) for stored in found]
        conflict = observing.twice(views)
        if conflict:
            raise RowFailed(conflict)
        return views

    def seen(self, workload: str) -> Seen:
        """What the pods of that workload have that are up."""
        return _up(self.views(), workload)

    def uids(self, *pods: str) -> frozenset[str]:
        """Of the pods of these names, or of all."""
        return frozenset(view.uid for view in self.views() if not pods or view.name in pods)

    def refusals(self, uids: Collection[str]) -> Mapping[str, str]:
        """By name, of pods with these UIDs: what the kubelet told of an ADD that failed."""
        found = {}
        for stored in self._listed(resources.EVENTS):
            told = observing.event_of(stored)
            if told.reason == _REFUSED and told.uid in uids:
                found[told.name] = told.message
        return found

    def nodes(self) -> Sequence[str]:
        """Where a pod of the run may go."""
        wanted = self.settings.nodes
        open_ones = [n.name for n in self.objects.list(resources.NODES) if observing.is_open(n)]
        return [name for name in open_ones if not wanted or name in wanted]

    def facts(self) -> Sequence[str]:
        """What there is now, for whoever reads of a row that failed."""
        views = [observing.view_of(one, manifests.RUN) for one in self._listed(resources.PODS)]
        lines = [
            f"pod {v.name} on {v.node or 'no node'}: {'ending' if v.going else v.phase}, {observing.told(v.addresses)}"
            for v in sorted(views, key=lambda v: v.name)
        ]
        for kept in self.records.of(self.namespace) if self.records is not None else ():
            lines.append(f"allocation {kept.address}: {kept.phase}, {kept.pod}, {kept.cause}")
        failed = self.refusals([view.uid for view in views])
        return [*lines, *(f"ADD of {pod} failed: {message}" for pod, message in sorted(failed.items()))]

    def _listed(self, resource: Resource) -> Sequence[ApiObject]:
        return self.objects.list(resource, namespace=self.namespace)

    # --- what is to come ---

    def wait(self, condition: Callable[[Sequence[View]], object], what: str) -> Sequence[View]:
        """Until it holds of the run's pods; `RowFailed` when that takes too long."""
        self.tell(what)
        deadline = self.clock.monotonic() + self.settings.timeout_seconds
        trouble = ""
        while True:
            if self.stop.is_set():
                raise Interrupted
            began = self.clock.monotonic()
            try:
                views = self.views()
                if condition(views):
                    return views
                trouble = ""
            except TryAgainLater as e:
                trouble = f" ({e.msg})"
            if self.clock.monotonic() >= deadline:
                raise RowFailed(f"still not so after {self.settings.timeout_seconds:g} s: {what}{trouble}")
            self.stop.wait(max(_POLL_SECONDS, _REST * (self.clock.monotonic() - began)))

    def await_up(self, workload: str, count: int) -> Seen:
        """Until so many pods of the workload are up; what they have. More are too many."""

        def are_up(views: Sequence[View]) -> bool:
            up = len(_up(views, workload))
            if up > count:
                raise RowFailed(f"{up} of {workload} run, expected no more than {count}")
            return up == count

        return _up(self.wait(are_up, f"{count} of {workload} run"), workload)

    def await_seen(self, expected: Seen, workload: str, but: Collection[str] = ()) -> None:
        """Until the pods of the workload are these, each up and none with a UID of `but`; they have these addresses."""

        def are_there(views: Sequence[View]) -> bool:
            mine = [view for view in views if view.workload == workload]
            if {view.name for view in mine} != expected.keys():
                return False
            return all(v.is_up and v.uid not in but and len(v.addresses) == len(expected[v.name]) for v in mine)

        names = ", ".join(sorted(expected)[:3])
        views = self.wait(are_there, f"{names}{' ...' if len(expected) > 3 else ''} run")
        wrong = observing.difference(_up(views, workload), expected)
        if wrong:
            raise RowFailed(wrong)

    def await_gone(self, workload: str = "") -> None:
        """Until there are no pods of that workload, or none at all."""
        what = f"the pods of {workload} are gone" if workload else "all pods are gone"
        self.wait(lambda views: not any(workload in ("", view.workload) for view in views), what)

    def await_refused(self, pod: str, words: str = "") -> None:
        """Until an ADD for that pod, or for one of that workload, failed with these words."""

        def is_refused(views: Sequence[View]) -> bool:
            asked = [view for view in views if pod in (view.name, view.workload)]
            for view in asked:
                if view.name == pod and view.is_up:
                    raise RowFailed(f"{pod} runs with {observing.told(view.addresses)}, expected its ADD to be refused")
            told = self.refusals([view.uid for view in asked])
            return any(words in message for message in told.values())

        self.wait(is_refused, f"an ADD of {pod} is refused{f' with {words}' if words else ''}")

    def await_kept(self, phase: str, addresses: Collection[IPAddress]) -> None:
        """Until exactly these addresses are in that phase. Nothing is known of phases without `records`."""
        records = self.records
        if records is None:
            return
        wanted = frozenset(addresses)

        def told(_: Sequence[View]) -> bool:
            return frozenset(k.address for k in records.of(self.namespace) if k.phase == phase) == wanted

        self.wait(told, f"{phase}: {', '.join(map(str, observing.ordered(wanted))) or 'none'}")

    def await_cause(self, address: IPAddress, words: str) -> None:
        """Until the ledger says with these words why the address became free. Nothing is known without `records`."""
        records = self.records
        if records is not None:
            self.wait(
                lambda _: any(words in cause for cause in records.causes(address)),
                f"the ledger says why {address} became free",
            )

    def require_no_leak(self) -> None:
        """In the end exactly what some pod has is Bound."""
        self.await_kept("Bound", observing.flat({view.name: view.addresses for view in self.views()}))

    # --- doing ---

    def put(self, resource: Resource, body: Mapping[str, Any]) -> None:
        """Makes the object, or what is there into this. All there is in the namespace is ours."""
        with suppress(ObjectExists):
            self.objects.create(resource, body, namespace=self.namespace)
            return
        self.objects.patch(resource, body["metadata"]["name"], body, namespace=self.namespace)

    def remove(self, resource: Resource, name: str, manner: Deletion = USUAL_DELETION) -> None:
        """What is gone already is gone."""
        with suppress(ObjectChanged):
            self.objects.delete(resource, name, namespace=self.namespace, manner=manner)


def records_of(objects: Objects, store: AllocationStore) -> tuple[Records | None, str]:
    """And why there are none, where that is not because the cluster lacks Homeport's resources."""
    try:
        if objects.get(resources.CUSTOM_RESOURCES, resources.definition_of(IPALLOCATIONS)) is None:
            return None, ""
        objects.names(IPALLOCATIONS)
    except IOFailure as e:
        return None, f"phases and the ledger were not looked at: {e.msg}"
    return Records(objects, store), ""


def _up(views: Sequence[View], workload: str) -> dict[str, Any]:
    return {view.name: view.addresses for view in views if view.workload == workload and view.is_up}
