"""What the controller watches, and whom it tells of each change. I/O: `ports.Objects`' watches, a thread each."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from homeport.controller.agenda import Agenda
from homeport.controller.caching import AllocationCache, pod_of
from homeport.controller.ledgering import LedgerKeeper
from homeport.controller.ranging import RangeBook
from homeport.controller.reporting import Reporter
from homeport.controller.reserving import Reserver
from homeport.controller.slots import SlotKeeper
from homeport.controller.viewing import ClusterView, decode_pod, decode_workload
from homeport.ipam.allocations import Allocation, Phase
from homeport.ipam.identities import Workload
from homeport.ipam.objects import Pod
from homeport.kube import decoding
from homeport.kube.resources import DEFINITIONS, NODES, PODS, STATEFUL_SETS
from homeport.model.errors import DecodeFailure
from homeport.model.names import PodRef
from homeport.ports import ApiObject, Objects, Resource, Watching
from homeport.stores.kubernetes.resources import IPALLOCATIONS, IPRANGES
from homeport.stores.kubernetes.wire import decode_record


class Watches:
    """From `start` to `stop`. What comes is put into caches, and on the agenda what it may change.

    An object that cannot be read changes nothing and is told of; what it said last, where that is known, still stands.
    """

    def __init__(
        self,
        objects: Objects,
        *,
        agenda: Agenda,
        cache: AllocationCache,
        view: ClusterView,
        ledger: LedgerKeeper,
        ranges: RangeBook,
        slots: SlotKeeper,
        reserver: Reserver,
        reporter: Reporter,
    ) -> None:
        self._objects = objects
        self._agenda, self._cache, self._view = agenda, cache, view
        self._ledger, self._ranges, self._slots, self._reserver = ledger, ranges, slots, reserver
        self._reporter = reporter
        self._unreadable: dict[Resource, set[tuple[str, str]]] = {}
        self._watches: dict[Resource, Watching] = {}
        self._allocating = threading.Lock()
        self.pools_changed = threading.Event()

    def start(self) -> None:
        """Raises what the API server raises when it is asked for the ledger's end."""
        since = self._ledger.begin()
        self._watch(NODES, self._node, self._node_gone)
        self._watch(DEFINITIONS, self._definition, self._definition_gone)
        self._watch(STATEFUL_SETS, self._workload, self._workload_gone)
        self._watch(PODS, self._pod, self._pod_gone)
        self._watch(IPRANGES, self._ranges.stored, self._ranges.gone)
        self._watch(IPALLOCATIONS, self._allocation, self._allocation_gone, on_listed=self._listed, since=since)
        self._ledger.progress = self._watches[IPALLOCATIONS].version

    def stop(self) -> None:
        for watch in self._watches.values():
            watch.stop()

    def missing(self) -> tuple[str, ...]:
        """What has never been listed to its end; until then nothing is known about it."""
        return tuple(r.plural for r, watch in self._watches.items() if not watch.wait_listed(0))

    def behind(self) -> tuple[str, ...]:
        """What may have changed without our knowing."""
        return tuple(r.plural for r, watch in self._watches.items() if not watch.is_current())

    def count_pools(self) -> None:
        """Counts the ranges of the networks there are now."""
        self.pools_changed.clear()
        with self._allocating:
            self._ranges.set_pools(dict(self._view.pools), lambda: (a for _, a in self._cache.items()))

    def _watch(
        self,
        resource: Resource,
        on_change: Callable[[ApiObject], None],
        on_gone: Callable[[ApiObject], None],
        *,
        on_listed: Callable[[str], None] | None = None,
        since: str = "",
    ) -> None:
        self._unreadable[resource] = set()

        def changed(found: ApiObject) -> None:
            try:
                on_change(found)
            except DecodeFailure as e:
                self._note_unreadable(resource, found, str(e))
            else:
                self._note_readable(resource, found)

        def gone(found: ApiObject) -> None:
            self._note_readable(resource, found)
            on_gone(found)

        def listed(version: str) -> None:
            if on_listed is not None:
                on_listed(version)
            self._agenda.wake()

        self._watches[resource] = self._objects.watch(
            resource, on_change=changed, on_gone=gone, on_listed=listed, since=since
        )

    def _note_unreadable(self, resource: Resource, found: ApiObject, reason: str) -> None:
        known = self._unreadable[resource]
        known.add((found.namespace, found.name))
        self._reporter.tell_unreadable(resource, found.namespace, found.name, found.uid, reason)
        self._reporter.count_unreadable(resource, len(known))

    def _note_readable(self, resource: Resource, found: ApiObject) -> None:
        known = self._unreadable[resource]
        if (found.namespace, found.name) in known:
            known.discard((found.namespace, found.name))
            self._reporter.count_unreadable(resource, len(known))

    # --- allocations ---

    def _allocation(self, found: ApiObject) -> None:
        record = decode_record(found)
        with self._allocating:
            before = self._cache.put(found.name, record.allocation)
            self._ledger.changed(before, record)
            self._noted(before, record.allocation)
        self._agenda.add_allocations([found.name])
        after = record.allocation
        if after.phase is Phase.BOUND and (before is None or before.phase is not Phase.BOUND):
            self._agenda.add_allocations(self._others_of(after))
        if after.phase is Phase.RESERVED and after.slot.workload is not None:
            # Whoever reserved it may have died since, and the map may have changed before this was told.
            self._agenda.add_workloads([after.slot.workload])

    def _others_of(self, taken_up: Allocation) -> Iterator[str]:
        """What the slot kept before, and may need no more now that it has something in use (E17)."""
        ref = pod_of(taken_up.slot.owner)
        for name in self._cache.of_pod(ref) if ref is not None else ():
            other = self._cache.get(name)
            if other is not None and other.slot == taken_up.slot and other.phase is Phase.RETAINED:
                yield name

    def _allocation_gone(self, found: ApiObject) -> None:
        with self._allocating:
            before = self._cache.remove(found.name)
            self._ledger.gone(before, found.version if found.body else "")
            if before is not None:
                self._noted(before, None)
        if before is not None:
            self._reserver.freed((before.scope, before.address))

    def _noted(self, before: Allocation | None, after: Allocation | None) -> None:
        self._ranges.note(before, after)
        self._slots.noted(before, after)
        self._agenda.wake()

    def _listed(self, version: str) -> None:
        self._ledger.listed(version, self._cache.items)

    # --- the rest of the cluster ---

    def _pod(self, found: ApiObject) -> None:
        pod = decode_pod(found)
        before = self._view.pods.get(pod.ref)
        self._view.pods[pod.ref] = pod
        if before is not None and (before.uid != pod.uid or before.finished != pod.finished):
            self._agenda.add_allocations(self._cache.of_pod(pod.ref))

    def _pod_gone(self, found: ApiObject) -> None:
        ref = PodRef(found.namespace, found.name)
        known: Pod | None = self._view.pods.get(ref)
        if known is not None and known.uid == found.uid:
            del self._view.pods[ref]
            self._agenda.add_allocations(self._cache.of_pod(ref))

    def _workload(self, found: ApiObject) -> None:
        watched = decode_workload(found)
        workload = watched.state.workload
        before = self._view.workloads.get(workload)
        self._view.workloads[workload] = watched
        if watched != before:
            self._agenda.add_workloads([workload])
            self._agenda.add_allocations(self._cache.of_workload(workload))

    def _workload_gone(self, found: ApiObject) -> None:
        workload = Workload(found.namespace, STATEFUL_SETS.kind, found.name)
        known = self._view.workloads.get(workload)
        if known is not None and known.state.uid == found.uid:
            del self._view.workloads[workload]
            self._agenda.add_workloads([workload])
            self._agenda.add_allocations(self._cache.of_workload(workload))

    def _node(self, found: ApiObject) -> None:
        node = decoding.decode_node(found.body)
        before = self._view.nodes.get(node.name)
        self._view.nodes[node.name] = node
        if node.out_of_service and (before is None or not before.out_of_service):
            self._agenda.add_allocations(self._cache.on_node(node.name))

    def _node_gone(self, found: ApiObject) -> None:
        if self._view.nodes.pop(found.name, None) is not None:
            self._agenda.add_allocations(self._cache.on_node(found.name))

    def _definition(self, found: ApiObject) -> None:
        try:
            self._view.put_definition(decoding.decode_definition(found.body))
        except DecodeFailure as e:
            self._view.put_unreadable(f"{found.namespace}/{found.name}", str(e))
            raise
        finally:
            self._pools_changed()
        reason = self._view.unreadable.get(f"{found.namespace}/{found.name}")
        if reason is not None:
            raise DecodeFailure(reason)

    def _definition_gone(self, found: ApiObject) -> None:
        self._view.remove_definition(f"{found.namespace}/{found.name}")
        self._pools_changed()

    def _pools_changed(self) -> None:
        self.pools_changed.set()
        self._agenda.wake()
