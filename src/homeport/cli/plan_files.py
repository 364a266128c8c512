"""Manifests as what their pods will ask for: the input of a plan."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from homeport.cni import documents
from homeport.ipam.allocations import Allocation
from homeport.ipam.identities import PodOwner, Replica, Workload
from homeport.ipam.objects import WorkloadState
from homeport.ipam.planning import Ask, Crowd, Demand, written
from homeport.ipam.pools import Pool
from homeport.ipam.replicas import workload_kind
from homeport.ipam.reservations import Reservation
from homeport.ipam.rooms import surge_of
from homeport.lint import manifests
from homeport.lint.nodes import plain
from homeport.model.errors import CniError, DecodeFailure, InvalidNetConf
from homeport.multinet import selections, templates
from homeport.ports import Cluster, NetworkDefinition
from homeport.runtime import mapping, pooling
from homeport.runtime.pooling import Find, FindClaim, Interface

_APPS = "apps"
_SUFFIX = r"[a-z0-9]{5}"
_OTHER = {"": "no addresses: it has no ipam section", "host-local": "host-local chooses it on the node"}
_MOST_PODS = 100_000


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What the files ask for, what their maps keep, and `problems` of pods that cannot start whatever is allocated."""

    demands: tuple[Demand, ...]
    crowds: tuple[Crowd, ...]
    reservations: tuple[Reservation, ...]
    problems: tuple[str, ...]


class Files(msgspec.Struct, frozen=True, kw_only=True):
    """The definitions and the workloads of some manifests, as plain objects."""

    definitions: Mapping[tuple[str, str], NetworkDefinition]
    workloads: tuple[Mapping[str, Any], ...]


def read(texts: Mapping[str, str], namespace: str) -> Files:
    """`texts` by file name; `namespace` is the one of what names none. Raises for the first that is no YAML."""
    found = manifests.read(texts)
    for trouble in found.troubles:
        line = texts[trouble.file].count("\n", 0, trouble.span.start) + 1
        raise DecodeFailure(f"read {trouble.file}:{line}: found {trouble.found}, expected {trouble.right}")
    definitions = {}
    for network in found.networks:
        if network.manifest is None:  # a node's own file, which no pod can select
            continue
        definition = NetworkDefinition(
            namespace=network.namespace or namespace,
            name=network.name,
            config=network.manifest.text("spec", "config") or "",
        )
        definitions[definition.namespace, definition.name] = definition
    workloads = []
    for workload in found.workloads:
        body = plain(workload.manifest)
        body["metadata"] = {**_under(body, "metadata"), "namespace": workload.namespace or namespace}
        workloads.append(body)
    return Files(definitions=definitions, workloads=tuple(workloads))


def ask(
    files: Files,
    find: Find | None,
    allocated: Sequence[Allocation],
    *,
    find_claim: FindClaim | None = None,
    cluster: Cluster | None = None,
    nodes: int = 1,
) -> Asked:
    """What the workloads ask of networks, those of the files before those that `find` knows.

    `nodes` is how many pods a DaemonSet has; `find_claim` looks up IPAMClaims. `cluster` tells which object of a name a
    workload is now.
    """
    demands: list[Demand] = []
    crowds: list[Crowd] = []
    reservations: list[Reservation] = []
    problems: dict[str, None] = {}

    def definition(namespace: str, name: str) -> NetworkDefinition | None:
        return files.definitions.get((namespace, name)) or (find(namespace, name) if find is not None else None)

    seen: set[Workload] = set()
    remembered = _remembering(definition)
    for body in files.workloads:
        reader = _Workload(body, remembered, find_claim, nodes)
        if reader.workload in seen:
            problems[f"{written(reader.workload)} stands twice in these files"] = None
            continue
        seen.add(reader.workload)
        try:
            if reader.is_replicated():
                demands += reader.demands(cluster, problems)
                reservations += reader.reservations()
            else:
                crowds.append(reader.crowd(allocated))
        except CniError as error:
            problems[f"{written(reader.workload)} is not planned: {error}"] = None
    return Asked(
        demands=tuple(demands), crowds=tuple(crowds), reservations=tuple(reservations), problems=tuple(problems)
    )


class _Workload:
    """One workload's manifest."""

    def __init__(self, body: Mapping[str, Any], find: Find, find_claim: FindClaim | None, nodes: int) -> None:
        self._spec = _under(body, "spec")
        self._find = find
        self._find_claim = find_claim
        self._nodes = nodes
        metadata = body["metadata"]
        self._metadata = metadata
        group = str(body.get("apiVersion", "")).rpartition("/")[0]
        self._group = group
        self._kind = str(body["kind"])
        kind = self._kind if group in ("", _APPS, "batch") else f"{self._kind}.{group}"
        self.workload = Workload(metadata["namespace"], kind, str(metadata.get("name", "")))

    # --- replicas ---

    def is_replicated(self) -> bool:
        """Whether its pods are replicas: of a StatefulSet, or of a kind that a network it selects says is one."""
        if self._kind == "StatefulSet" and self._group == _APPS:
            return True
        if self._group in ("", _APPS, "batch") or templates.is_template(self._annotation):
            return False
        pools = [i.pool for i in self._interfaces(None) if i.pool is not None]
        kinds = [k for pool in pools if pool.policy is not None for k in pool.policy.kinds]
        return self.workload.kind in map(workload_kind, kinds)

    def demands(self, cluster: Cluster | None, problems: dict[str, None]) -> Iterator[Demand]:
        """One a replica. What keeps one of them from starting is added to `problems`."""
        state = self._state(cluster)
        same = None if templates.is_template(self._annotation) else self._interfaces(state.ordinals_start)
        for ordinal in range(state.ordinals_start, state.ordinals_start + state.replicas):
            replica = Replica(self.workload, ordinal)
            try:
                interfaces = same if same is not None else self._interfaces(ordinal)
            except CniError as error:
                problems[f"{replica} is not planned: {error}"] = None
                continue
            yield Demand(replica=replica, state=state, asks=tuple(_ask(i) for i in interfaces))

    def reservations(self) -> Sequence[Reservation]:
        """What its maps keep; nothing of one that cannot be right, which its replicas are told."""

        def pool_at(name: str) -> Pool | None:
            definition = self._find(*name.split("/", 1))
            return pooling.pool_of(pooling.network_of(definition)) if definition is not None else None

        try:
            return tuple(mapping.reservations_for(self._state(None), self._annotation, pool_at))
        except CniError:
            return ()

    def _state(self, cluster: Cluster | None) -> WorkloadState:
        now = cluster.workload(self.workload) if cluster is not None else None
        return WorkloadState(
            workload=self.workload,
            uid=now.uid if now is not None else "",
            replicas=self._count("replicas"),
            ordinals_start=self._count("ordinals", "start", default=0),
            annotations={**self._template_annotations, **self._own},
        )

    # --- the others ---

    def crowd(self, allocated: Sequence[Allocation]) -> Crowd:
        count = self._pods()
        name = re.escape(self.workload.name)
        pattern = re.compile(
            {"Pod": name, "Deployment": rf"{name}-[a-z0-9]+-{_SUFFIX}", "CronJob": rf"{name}-[0-9]+-{_SUFFIX}"}.get(
                self._kind, rf"{name}-{_SUFFIX}"
            )
        )
        theirs = [
            a
            for a in allocated
            if isinstance(a.slot.owner, PodOwner)
            and a.slot.owner.namespace == self.workload.namespace
            and pattern.fullmatch(a.slot.owner.name)
        ]
        asks = tuple(_ask(i) for i in self._interfaces(None))
        surge = surge_of(self._kind, self._spec, at=f"maxSurge of {written(self.workload)}")
        return Crowd(workload=self.workload, count=count, surge=surge, asks=asks, theirs=tuple(theirs))

    def _pods(self) -> int:
        match self._kind:
            case "Pod":
                return 1
            case "DaemonSet":
                return self._nodes
            case "Job":
                return self._count("parallelism")
            case "CronJob":
                return self._count("jobTemplate", "spec", "parallelism")
        return self._count("replicas")

    # --- both ---

    def _count(self, *path: str, default: int = 1) -> int:
        value = _under(self._spec, *path[:-1]).get(path[-1])
        if value is None:
            return default
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MOST_PODS:
            key, name = ".".join(path), written(self.workload)
            raise InvalidNetConf(f"{key} of {name}: found {value}, expected a whole number up to {_MOST_PODS}")
        return value

    @property
    def _own(self) -> Mapping[str, str]:
        return self._strings(_under(self._metadata, "annotations"))

    @property
    def _template_annotations(self) -> Mapping[str, str]:
        if self._kind == "Pod":
            return self._own
        spec = _under(self._spec, "jobTemplate", "spec") if self._kind == "CronJob" else self._spec
        return self._strings(_under(spec, "template", "metadata", "annotations"))

    def _strings(self, annotations: Mapping[str, Any]) -> Mapping[str, str]:
        for key, value in annotations.items():
            if not isinstance(value, str):
                name, found = written(self.workload), documents.shown(value)
                raise InvalidNetConf(f'annotation "{key}" of {name}: found {found}, expected a string')
        return annotations

    @property
    def _annotation(self) -> str:
        return str(self._template_annotations.get(selections.ANNOTATION, ""))

    def _interfaces(self, ordinal: int | None) -> tuple[Interface, ...]:
        namespace = self.workload.namespace
        return pooling.interfaces_of(self._annotation, namespace, ordinal, self._find, self._find_claim)


def _under(value: Any, *path: str) -> Mapping[str, Any]:
    """The object at a path of keys; an empty one where it is missing or something else."""
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def _ask(interface: Interface) -> Ask:
    """What a claim gives is fixed: it belongs to the claim's name, and to whichever pod refers to it."""
    pool, claimed = interface.pool, interface.claimed
    unknown = _OTHER.get(interface.ipam, f"{interface.ipam} gives it")
    fixed = interface.fixed
    if claimed is not None and pool is not None:
        ranges = pool.plain_ranges
        fixed += tuple(r.interface(a) for a in claimed.addresses for r in ranges if a in r.subnet)
    if interface.claim:
        unknown = f'IPAMClaim "{interface.claim}" gives it'
    return Ask(
        network=interface.network.name,
        ifname=interface.ifname,
        pool=pool if pool is not None and pool.ranges and claimed is None and not interface.claim else None,
        fixed=fixed,
        wire=interface.wire,
        unknown=unknown,
    )


def _remembering(find: Find) -> Find:
    """One question a name: the replicas of a workload mostly ask for the same networks."""
    known: dict[tuple[str, str], NetworkDefinition | None] = {}

    def remembered(namespace: str, name: str) -> NetworkDefinition | None:
        if (namespace, name) not in known:
            known[namespace, name] = find(namespace, name)
        return known[namespace, name]

    return remembered
