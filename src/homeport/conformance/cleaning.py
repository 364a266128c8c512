"""Everything a run made goes, and is proven gone. I/O: `ports.Objects`.

A run's namespace has a name nobody else has, and a label; what is of pods in it is the run's. Nothing else is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from homeport.conformance import manifests
from homeport.conformance.worlds import Records
from homeport.ipam.identities import Replica
from homeport.kube.resources import DEPLOYMENTS, NAMESPACES, PODS, STATEFUL_SETS
from homeport.model.errors import CniError, NoSuchObject, TryAgainLater
from homeport.ports import Clock, ObjectChanged, Objects
from homeport.stores.kubernetes.hints import decode_range
from homeport.stores.kubernetes.resources import IPRANGES, IPSLOTS
from homeport.stores.kubernetes.slots import decode_slot

PREFIX = "homeport-conformance-"
_POLL_SECONDS = 0.25


class Cleaner:
    """Of one namespace. `remove` may be called again, also by another process than the one that made it.

    `wait` sleeps; it raises to break the clean-up off.
    """

    def __init__(
        self,
        objects: Objects,
        namespace: str,
        records: Records | None,
        *,
        clock: Clock,
        wait: Callable[[float], object],
        seconds: float,
        tell: Callable[[str], None],
    ) -> None:
        self._objects = objects
        self._namespace = namespace
        self._records = records
        self._clock = clock
        self._wait = wait
        self._seconds = seconds
        self._tell = tell

    def remove(self) -> tuple[str, ...]:
        """What could not be removed, a line each.

        Pods go first, by their nodes: an address is free when a DEL said so. What is retained for them is released, and
        only then the namespace goes, with the networks that a DEL may have to read.
        """
        left: list[str] = []
        self._try(left, "its pods go", self._remove_pods)
        self._try(left, "its addresses are free", self._free)
        self._try(left, "its namespace goes", self._remove_namespace)
        if not left:
            self._try(left, "what names its replicas goes", self._remove_slots)
            self._try(left, "its ranges are forgotten", self._ranges_are_gone)
        return tuple(left)

    def _try(self, left: list[str], what: str, step: Callable[[], str]) -> None:
        """Does the step until it has nothing left; an API server that is away for a moment is asked again."""
        self._tell(what)
        deadline = self._clock.monotonic() + self._seconds
        while True:
            try:
                found = step()
            except TryAgainLater as e:
                found = str(e)
            except CniError as e:
                left.append(str(e))
                return
            if not found:
                return
            if self._clock.monotonic() >= deadline:
                left.append(found)
                return
            self._wait(_POLL_SECONDS)

    def _remove_pods(self) -> str:
        for resource in (STATEFUL_SETS, DEPLOYMENTS, PODS):
            for stored in self._objects.list(resource, namespace=self._namespace):
                with suppress(ObjectChanged):
                    self._objects.delete(resource, stored.name, namespace=self._namespace)
        pods = self._objects.list(PODS, namespace=self._namespace)
        return f"pods of namespace {self._namespace}: {_listed([pod.name for pod in pods])}" if pods else ""

    def _free(self) -> str:
        if self._records is None:
            return ""
        self._records.release(self._namespace, every=True)
        kept = [f"{k.address} ({k.phase}, {k.pod})" for k in self._records.of(self._namespace)]
        return f"allocations of namespace {self._namespace}: {_listed(kept)}" if kept else ""

    def _remove_namespace(self) -> str:
        found = self._objects.get(NAMESPACES, self._namespace)
        if found is None:
            return ""
        with suppress(ObjectChanged):
            self._objects.delete(NAMESPACES, self._namespace, uid=found.uid)
        return f"namespace {self._namespace}: kubectl delete namespace {self._namespace}"

    def _remove_slots(self) -> str:
        """Where a replica had its addresses. Its namespace is gone, so nobody can come to rely on it any more."""
        if self._records is None:
            return ""
        for stored in self._objects.list(IPSLOTS):
            if self._namespace.encode() not in stored.body:
                continue
            owner = decode_slot(stored).slot.owner
            if isinstance(owner, Replica) and owner.workload.namespace == self._namespace:
                with suppress(ObjectChanged):
                    self._objects.delete(IPSLOTS, stored.name, version=stored.version)
        return ""

    def _ranges_are_gone(self) -> str:
        """The controller's work, once it has seen the networks go."""
        if self._records is None:
            return ""
        mine = [stored for stored in self._objects.list(IPRANGES) if f"{self._namespace}/".encode() in stored.body]
        of_ours = [s.name for s in mine if any(n.startswith(f"{self._namespace}/") for n in decode_range(s).networks)]
        return f"ipranges {_listed(of_ours)}: no controller has removed them yet" if of_ours else ""


def abandoned(objects: Objects) -> Sequence[str]:
    """Namespaces of runs that could not clean up, or are still at work."""
    found = objects.list(NAMESPACES, labels=manifests.MANAGER)
    return sorted(stored.name for stored in found if stored.name.startswith(PREFIX))


def require_abandoned(objects: Objects, namespace: str) -> None:
    """`NoSuchObject` unless it is a run's."""
    if namespace not in abandoned(objects):
        raise NoSuchObject(f'clean up namespace "{namespace}": found no conformance run of that name')


def _listed(things: Sequence[str]) -> str:
    return ", ".join(things[:10]) + (f" and {len(things) - 10} more" if len(things) > 10 else "")
