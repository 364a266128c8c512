"""What Whereabouts asks of the API server for one address, request by request: the alternative of `benchmarks.cluster`.

It is our own re-enactment of its requests (its lock, the list that tries the connection, the pool with every address in
one object, the reservation), sent by our client; its program is not run. Only the time its requests take is counted.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, cast

import msgspec
from tests.stand_ins_whereabouts import WhereaboutsNode

from homeport.model.addresses import IPAddress
from homeport.ports import ApiObject, ObjectChanged, ObjectExists, Objects, Resource

LEASES = Resource(group="coordination.k8s.io", version="v1", plural="leases", kind="Lease", namespaced=True)
NAMESPACE = "kube-system"
NAME = "whereabouts"
_LEASE_SECONDS, _RETRY_SECONDS, _JITTER = 1.5, 0.5, 1.2  # client-go's, with Whereabouts' values
_ADD_SECONDS = 120.0


class Lost(Exception):
    """The lock was not had in the time an ADD is given."""


class Timed:
    """`Objects` whose calls are timed: `seconds` is what they took together."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self.seconds = 0.0

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._objects, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return method(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - began

        return call


class LeasedNode:
    """ADD and DEL of one network under the cluster's one lock, as `holder`."""

    def __init__(self, objects: Objects, range_: str, holder: str) -> None:
        self.timed = Timed(objects)
        self._objects = cast(Objects, self.timed)
        self._node = WhereaboutsNode(self._objects, range_, namespace=NAMESPACE)
        self._holder = holder

    def add(self, container_id: str, podref: str) -> list[IPAddress]:
        with self._locked():
            return self._node.add(container_id, podref)

    def delete(self, container_id: str) -> None:
        with self._locked():
            self._node.delete(container_id)

    def requests_ms(self, act: Callable[[], object]) -> float:
        """Does it; milliseconds its requests took."""
        before = self.timed.seconds
        act()
        return (self.timed.seconds - before) * 1000

    @contextmanager
    def _locked(self) -> Iterator[None]:
        held = self._acquire()
        try:
            yield
        finally:
            with suppress(ObjectChanged):  # it took longer than the lock lasts, and another has it
                self._objects.patch(LEASES, NAME, _spec("", 1), namespace=NAMESPACE, version=held.version)

    def _acquire(self) -> ApiObject:
        until = time.monotonic() + _ADD_SECONDS
        while time.monotonic() < until:
            held = self._try()
            if held is not None:
                return held
            time.sleep(_RETRY_SECONDS * (1 + random.random() * _JITTER))
        raise Lost

    def _try(self) -> ApiObject | None:
        found = self._objects.get(LEASES, NAME, namespace=NAMESPACE)
        body = _spec(self._holder, _LEASE_SECONDS)
        try:
            if found is None:
                return self._objects.create(LEASES, {"metadata": {"name": NAME}, **body}, namespace=NAMESPACE)
            spec = msgspec.json.decode(found.body)["spec"]
            if spec.get("holderIdentity") and not _is_over(spec):
                return None
            return self._objects.patch(LEASES, NAME, body, namespace=NAMESPACE, version=found.version)
        except (ObjectExists, ObjectChanged):
            return None


def pool_object(range_: str, taken: int) -> tuple[str, bytes]:
    """Key and value for etcd of the pool with its lowest addresses taken."""
    name = range_.replace("/", "-")
    allocations = {
        str(n): {"id": f"{n:064x}", "podref": f"bench/filler-{n}", "ifname": "net1"} for n in range(1, taken + 1)
    }
    body = {
        "apiVersion": "whereabouts.cni.cncf.io/v1alpha1",
        "kind": "IPPool",
        "metadata": {"name": name, "namespace": NAMESPACE, "uid": f"pool-{taken}"},
        "spec": {"range": range_, "allocations": allocations},
    }
    return f"/registry/whereabouts.cni.cncf.io/ippools/{NAMESPACE}/{name}", msgspec.json.encode(body)


def _spec(holder: str, seconds: float) -> Mapping[str, Any]:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {"spec": {"holderIdentity": holder, "leaseDurationSeconds": max(1, int(seconds)), "renewTime": now}}


def _is_over(spec: Mapping[str, Any]) -> bool:
    renewed = datetime.fromisoformat(spec["renewTime"].replace("Z", "+00:00"))
    return (datetime.now(UTC) - renewed).total_seconds() > _LEASE_SECONDS
