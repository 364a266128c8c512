"""Which of several controllers acts: the one that holds a Lease. I/O: through `ports.Objects`.

coordination.k8s.io/v1 Lease, as client-go uses it. A rival takes over when it has seen no renewal for the lease's whole
duration by its own clock; a leader counts itself out earlier, by its own. Clocks need not agree, only run alike.
Leading spares double work and is no more than that: every write is a compare-and-swap (docs/identity.md E22).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from homeport.kube.resources import LEASES
from homeport.model.errors import DecodeFailure, TryAgainLater
from homeport.ports import (
    USUAL_DELETION,
    ApiObject,
    Clock,
    Deletion,
    ObjectChanged,
    ObjectExists,
    Objects,
    Resource,
    Watching,
)


class LeaseSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the lease is, who we are, and how patient everybody is.

    `identity` is of this process alone, and of no other ever.
    """

    namespace: str
    identity: str
    name: str = "homeport-controller"
    duration_seconds: float = 15.0
    renew_seconds: float = 10.0  # without a renewal we lead no longer
    retry_seconds: float = 2.0


class _Spec(msgspec.Struct, rename="camel"):
    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    lease_transitions: int | None = None


class _Lease(msgspec.Struct):
    spec: _Spec = msgspec.field(default_factory=_Spec)


_LEASE = msgspec.json.Decoder(_Lease)


class Elector:
    """For one thread; `is_leader` may be asked from any."""

    def __init__(self, objects: Objects, clock: Clock, settings: LeaseSettings) -> None:
        self.problem = ""  # why the last attempt told nothing
        self._objects = objects
        self._clock = clock
        self._settings = settings
        self._leading_until = -math.inf
        self._ours = ""  # the version of the lease that we wrote last
        self._seen = ""  # the version that somebody else has, and when it was first seen
        self._seen_at = 0.0

    def is_leader(self) -> bool:
        return self._clock.monotonic() < self._leading_until

    def step(self) -> None:
        """One attempt to stay or to become the leader. What fails is no renewal, and nothing more."""
        try:
            if not self._renew():
                self._acquire()
        except TryAgainLater as e:
            self.problem = str(e)  # it may be written or not: the next attempt looks first
        except (ObjectChanged, ObjectExists):
            return  # somebody else was faster
        else:
            self.problem = ""

    def resign(self) -> None:
        """Leads no longer, and says so where it can, that nobody needs to wait."""
        self._leading_until = -math.inf
        ours, self._ours = self._ours, ""
        if ours:
            try:
                self._patch({"holderIdentity": ""}, ours)
            except (TryAgainLater, ObjectChanged):
                return  # then it runs out

    def _renew(self) -> bool:
        """False where the lease is not as we left it: somebody has it, or has edited it."""
        ours, self._ours = self._ours, ""
        if not ours:
            return False
        try:
            self._hold({}, ours)
        except ObjectChanged:
            return False
        return True

    def _acquire(self) -> None:
        settings = self._settings
        lease = self._objects.get(LEASES, settings.name, namespace=settings.namespace)
        if lease is None:
            self._create()
            return
        spec = _decode(lease)
        if spec.holder_identity == settings.identity:
            self._hold({}, lease.version)
            return
        self._leading_until = -math.inf
        now = self._clock.monotonic()
        if lease.version != self._seen:
            self._seen, self._seen_at = lease.version, now
        patience = max(settings.duration_seconds, spec.lease_duration_seconds or 0)
        if not spec.holder_identity or now - self._seen_at >= patience:
            taking = {
                "holderIdentity": settings.identity,
                "leaseDurationSeconds": math.ceil(settings.duration_seconds),
                "acquireTime": _micro_time(self._clock.now()),
                "leaseTransitions": (spec.lease_transitions or 0) + 1,
            }
            self._hold(taking, lease.version)

    def _hold(self, changes: Mapping[str, Any], version: str) -> None:
        """Leads from when the request was sent: it can have been done no earlier."""
        sent = self._clock.monotonic()
        self._patch({**changes, "renewTime": _micro_time(self._clock.now())}, version)
        self._leading_until = sent + self._settings.renew_seconds

    def _patch(self, changes: Mapping[str, Any], version: str) -> None:
        settings = self._settings
        written = self._objects.patch(
            LEASES, settings.name, {"spec": changes}, namespace=settings.namespace, version=version
        )
        self._ours = written.version

    def _create(self) -> None:
        settings, now = self._settings, _micro_time(self._clock.now())
        sent = self._clock.monotonic()
        spec = {
            "holderIdentity": settings.identity,
            "leaseDurationSeconds": math.ceil(settings.duration_seconds),
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": 0,
        }
        written = self._objects.create(
            LEASES, {"metadata": {"name": settings.name}, "spec": spec}, namespace=settings.namespace
        )
        self._ours = written.version
        self._leading_until = sent + settings.renew_seconds


class LeadersObjects:
    """`ports.Objects` that write only while `is_leader`; a write that comes too late is refused, and never sent."""

    def __init__(self, objects: Objects, is_leader: Callable[[], bool]) -> None:
        self._objects = objects
        self._is_leader = is_leader

    def get(self, resource: Resource, name: str, *, namespace: str = "") -> ApiObject | None:
        return self._objects.get(resource, name, namespace=namespace)

    def create(self, resource: Resource, body: Mapping[str, Any], *, namespace: str = "") -> ApiObject:
        self._require(resource)
        return self._objects.create(resource, body, namespace=namespace)

    def patch(
        self, resource: Resource, name: str, body: Mapping[str, Any], *, namespace: str = "", version: str = ""
    ) -> ApiObject:
        self._require(resource)
        return self._objects.patch(resource, name, body, namespace=namespace, version=version)

    def patch_json(
        self, resource: Resource, name: str, operations: Sequence[Mapping[str, Any]], *, namespace: str = ""
    ) -> ApiObject:
        self._require(resource)
        return self._objects.patch_json(resource, name, operations, namespace=namespace)

    def delete(
        self,
        resource: Resource,
        name: str,
        *,
        namespace: str = "",
        version: str = "",
        uid: str = "",
        manner: Deletion = USUAL_DELETION,
    ) -> None:
        self._require(resource)
        self._objects.delete(resource, name, namespace=namespace, version=version, uid=uid, manner=manner)

    def list(
        self, resource: Resource, *, namespace: str = "", labels: Mapping[str, str] | None = None
    ) -> Sequence[ApiObject]:
        return self._objects.list(resource, namespace=namespace, labels=labels)

    def names(
        self, resource: Resource, *, namespace: str = "", labels: Mapping[str, str] | None = None
    ) -> Sequence[str]:
        return self._objects.names(resource, namespace=namespace, labels=labels)

    def watch(
        self,
        resource: Resource,
        *,
        namespace: str = "",
        labels: Mapping[str, str] | None = None,
        on_change: Callable[[ApiObject], None],
        on_gone: Callable[[ApiObject], None],
        on_listed: Callable[[str], None] = lambda _version: None,
        since: str = "",
    ) -> Watching:
        return self._objects.watch(
            resource,
            namespace=namespace,
            labels=labels,
            on_change=on_change,
            on_gone=on_gone,
            on_listed=on_listed,
            since=since,
        )

    def _require(self, resource: Resource) -> None:
        if not self._is_leader():
            raise NotLeading(f"write {resource.plural}: another controller may lead by now")


class NotLeading(TryAgainLater):
    """The lease was not renewed in time."""


def _decode(lease: ApiObject) -> _Spec:
    try:
        return _LEASE.decode(lease.body).spec
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise DecodeFailure(f"decode lease {lease.namespace}/{lease.name}: {e}") from e


def _micro_time(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
