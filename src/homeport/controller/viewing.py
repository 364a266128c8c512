"""Pods, workloads, nodes and networks as watches told of them: as much as calls for a look. No I/O.

As a `ports.Cluster` its answers are a guess: what they say was true a while ago. Whoever frees something on them asks
the API server itself (docs/identity.md R12).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from homeport.ipam.allocations import Allocation
from homeport.ipam.identities import Workload
from homeport.ipam.objects import STATIC_HASH, NodeState, Pod, WorkloadState
from homeport.ipam.policies import ADDRESSES, RETENTION
from homeport.ipam.pools import KnownPools, Pool
from homeport.kube import decoding
from homeport.model.errors import CniError, DecodeFailure
from homeport.model.names import PodRef
from homeport.multinet import selections
from homeport.ports import ApiObject, Cluster, NetworkDefinition
from homeport.runtime import pooling

_NOTHING: Mapping[str, str] = MappingProxyType({})
_FINISHED = {"Succeeded": "Succeeded", "Failed": "Failed"}

FillIpam = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""A plugin's ipam section, with what a flat file adds."""


class _PodNotes(msgspec.Struct, gc=False):
    config_hash: str = msgspec.field(name=STATIC_HASH, default="")


class _PodMetadata(msgspec.Struct, gc=False):
    uid: str
    annotations: _PodNotes | None = None


class _PodStatus(msgspec.Struct, gc=False):
    phase: str = ""


class _Pod(msgspec.Struct, gc=False):
    metadata: _PodMetadata
    status: _PodStatus = msgspec.field(default_factory=_PodStatus)


class _TemplateMetadata(msgspec.Struct):
    annotations: dict[str, str] | None = None


class _Template(msgspec.Struct):
    metadata: _TemplateMetadata = msgspec.field(default_factory=_TemplateMetadata)


class _WorkloadSpec(msgspec.Struct):
    template: _Template = msgspec.field(default_factory=_Template)


class _Workload(msgspec.Struct):
    spec: _WorkloadSpec = msgspec.field(default_factory=_WorkloadSpec)


_POD = msgspec.json.Decoder(_Pod)
_WORKLOAD = msgspec.json.Decoder(_Workload)


class WatchedWorkload(msgspec.Struct, frozen=True):
    """A workload, and the annotation of its pod template that selects networks."""

    state: WorkloadState
    networks: str = ""


def decode_pod(stored: ApiObject) -> Pod:
    """Name, UID, and whether it ran to its end."""
    try:
        wire = _POD.decode(stored.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise DecodeFailure(f"decode pod {stored.namespace}/{stored.name}: {e}") from e
    notes = wire.metadata.annotations
    return Pod(
        ref=PodRef(sys.intern(stored.namespace), stored.name),
        uid=sys.intern(wire.metadata.uid),
        phase=_FINISHED.get(wire.status.phase, "Running"),  # type: ignore[arg-type]
        labels=_NOTHING,
        annotations={STATIC_HASH: notes.config_hash} if notes is not None and notes.config_hash else _NOTHING,
    )


def decode_workload(stored: ApiObject) -> WatchedWorkload:
    """A StatefulSet, with those of its annotations that are Homeport's."""
    state = decoding.decode_stateful_set(stored.body)
    try:
        wire = _WORKLOAD.decode(stored.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise DecodeFailure(f"decode statefulset {stored.namespace}/{stored.name}: {e}") from e
    notes = {key: state.annotations[key] for key in (ADDRESSES, RETENTION) if key in state.annotations}
    networks = (wire.spec.template.metadata.annotations or {}).get(selections.ANNOTATION, "")
    return WatchedWorkload(msgspec.structs.replace(state, annotations=notes or _NOTHING), networks)


class ClusterView:
    """Written by the watches' threads, each its own part; read by one.

    `elsewhere` answers for workloads of a kind that is not watched. `fill_ipam` as in `pooling.pool_of`.
    """

    def __init__(self, elsewhere: Cluster, fill_ipam: FillIpam) -> None:
        self._elsewhere = elsewhere
        self._fill_ipam = fill_ipam
        self.pods: dict[PodRef, Pod] = {}
        self.workloads: dict[Workload, WatchedWorkload] = {}
        self.nodes: dict[str, NodeState] = {}
        self.pools: dict[str, Pool] = {}  # by namespace/name of their definition
        self.unreadable: dict[str, str] = {}  # definitions, and why
        self._known = KnownPools()

    # --- ports.Cluster ---

    def pod(self, ref: PodRef) -> Pod | None:
        return self.pods.get(ref)

    def pod_now(self, ref: PodRef) -> Pod | None:
        return self.pods.get(ref)

    def workload(self, workload: Workload) -> WorkloadState | None:
        if workload.kind != "StatefulSet":
            return self._elsewhere.workload(workload)
        known = self.workloads.get(workload)
        return known.state if known is not None else None

    def node(self, name: str) -> NodeState | None:
        return self.nodes.get(name)

    # --- networks ---

    def pool_of(self, allocation: Allocation) -> Pool | None:
        """See `KnownPools`."""
        return self._known.of(allocation)

    def put_definition(self, definition: NetworkDefinition) -> None:
        """One that cannot be read has no pool, and its reason stands in `unreadable`."""
        key = str(definition)
        self.unreadable.pop(key, None)
        pool = None
        try:
            if definition.config.strip():  # else it is in a file of every node
                pool = pooling.pool_of(pooling.network_of(definition), self._fill_ipam)
        except CniError as e:
            self.unreadable[key] = str(e)
        if pool is None:
            self.pools.pop(key, None)
        else:
            self.pools[key] = pool
        self._join()

    def put_unreadable(self, key: str, reason: str) -> None:
        """An object that is no definition at all."""
        self.pools.pop(key, None)
        self.unreadable[key] = reason
        self._join()

    def remove_definition(self, key: str) -> None:
        self.pools.pop(key, None)
        self.unreadable.pop(key, None)
        self._join()

    def _join(self) -> None:
        self._known = KnownPools(tuple(self.pools.values()))
