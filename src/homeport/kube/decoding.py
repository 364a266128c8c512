"""Kubernetes objects out of JSON: only the keys that are needed, straight into values. No I/O.

core/v1 Pod and Node, apps/v1 StatefulSet, k8s.cni.cncf.io/v1 NetworkAttachmentDefinition. What cannot be read raises
`DecodeFailure` and is never "absent".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar

import msgspec

from homeport.ipam.identities import Workload
from homeport.ipam.objects import NodeState, OwnerReference, Pod, WorkloadState
from homeport.model.errors import DecodeFailure
from homeport.model.names import PodRef
from homeport.ports import ApiObject, NetworkDefinition, Resource

T = TypeVar("T")
Bytes = bytes | bytearray | msgspec.Raw

_PHASES: dict[str, Literal["Pending", "Running", "Succeeded", "Failed", "Unknown"]] = {
    "": "Pending",
    "Pending": "Pending",
    "Running": "Running",
    "Succeeded": "Succeeded",
    "Failed": "Failed",
}
_OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"


class _Owner(msgspec.Struct, rename="camel"):
    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None


class _Metadata(msgspec.Struct, rename="camel"):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    annotations: dict[str, str] | None = None
    labels: dict[str, str] | None = None
    owner_references: list[_Owner] | None = None
    deletion_timestamp: str | None = None


class _PodSpec(msgspec.Struct, rename="camel"):
    node_name: str = ""


class _PodStatus(msgspec.Struct):
    phase: str = ""


class _Pod(msgspec.Struct):
    metadata: _Metadata
    spec: _PodSpec = msgspec.field(default_factory=_PodSpec)
    status: _PodStatus = msgspec.field(default_factory=_PodStatus)


class _DefinitionSpec(msgspec.Struct):
    config: str | None = None


class _Definition(msgspec.Struct):
    metadata: _Metadata
    spec: _DefinitionSpec | None = None


class _TemplateMetadata(msgspec.Struct):
    annotations: dict[str, str] | None = None


class _Template(msgspec.Struct):
    metadata: _TemplateMetadata = msgspec.field(default_factory=_TemplateMetadata)


class _Ordinals(msgspec.Struct):
    start: int = 0


class _StatefulSetSpec(msgspec.Struct):
    replicas: int | None = None
    ordinals: _Ordinals | None = None
    template: _Template = msgspec.field(default_factory=_Template)


class _StatefulSet(msgspec.Struct):
    metadata: _Metadata
    spec: _StatefulSetSpec


class _Pods(msgspec.Struct):
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)


class _WorkloadSpec(_StatefulSetSpec):
    instances: int | None = None
    pods: list[_Pods] | None = None


class _Workload(msgspec.Struct):
    metadata: _Metadata
    spec: _WorkloadSpec


class _GroupVersion(msgspec.Struct):
    version: str = ""


class _Group(msgspec.Struct, rename="camel"):
    versions: list[_GroupVersion]
    preferred_version: _GroupVersion = msgspec.field(default_factory=_GroupVersion)


class _Resource(msgspec.Struct):
    name: str
    kind: str
    namespaced: bool = False


class _Resources(msgspec.Struct, rename="camel"):
    group_version: str
    resources: list[_Resource]


class _Condition(msgspec.Struct):
    type: str = ""
    status: str = ""


class _NodeStatus(msgspec.Struct):
    conditions: list[_Condition] | None = None


class _Taint(msgspec.Struct):
    key: str = ""


class _NodeSpec(msgspec.Struct):
    taints: list[_Taint] | None = None


class _Node(msgspec.Struct):
    metadata: _Metadata
    spec: _NodeSpec = msgspec.field(default_factory=_NodeSpec)
    status: _NodeStatus = msgspec.field(default_factory=_NodeStatus)


class _ListMetadata(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(name="continue", default="")


class _List(msgspec.Struct):
    metadata: _ListMetadata
    items: list[msgspec.Raw] | None


class _Column(msgspec.Struct):
    name: str


class _Row(msgspec.Struct):
    cells: list[msgspec.Raw]


class _Table(msgspec.Struct, rename="camel"):
    column_definitions: list[_Column]
    rows: list[_Row] | None = None


class _Named(msgspec.Struct):
    metadata: _Metadata


class _Change(msgspec.Struct):
    type: str
    object: msgspec.Raw


class Page(msgspec.Struct, frozen=True):
    """Part of a list. `version` is the list's resourceVersion; `continue_token` is "" on the last page."""

    items: tuple[msgspec.Raw, ...]
    version: str
    continue_token: str


class Change(msgspec.Struct, frozen=True):
    """One line of a watch. `type` is ADDED, MODIFIED, DELETED, BOOKMARK or ERROR."""

    type: str
    object: msgspec.Raw


class Identity(msgspec.Struct, frozen=True):
    """What every object carries."""

    namespace: str
    name: str
    uid: str
    version: str


# Built now, by the thread that imports: msgspec must not first learn a type in two threads at once.
_POD = msgspec.json.Decoder(_Pod)
_DEFINITION = msgspec.json.Decoder(_Definition)
_STATEFUL_SET = msgspec.json.Decoder(_StatefulSet)
_WORKLOAD = msgspec.json.Decoder(_Workload)
_GROUP = msgspec.json.Decoder(_Group)
_RESOURCES = msgspec.json.Decoder(_Resources)
_NODE = msgspec.json.Decoder(_Node)
_LIST = msgspec.json.Decoder(_List)
_TABLE = msgspec.json.Decoder(_Table)
_CHANGE = msgspec.json.Decoder(_Change)
_NAME = msgspec.json.Decoder(str)
_NAMED = msgspec.json.Decoder(_Named)


def decode_pod(body: Bytes) -> Pod:
    """A phase we do not know is Unknown; only the controlling owner counts."""
    wire = _decode(_POD.decode, body, "pod")
    meta = wire.metadata
    _require(meta, "pod")
    return Pod(
        ref=PodRef(meta.namespace, meta.name),
        uid=meta.uid,
        node=wire.spec.node_name,
        phase=_PHASES.get(wire.status.phase, "Unknown"),
        owner=next((_owner(o) for o in meta.owner_references or () if o.controller), None),
        labels=meta.labels or {},
        annotations=meta.annotations or {},
        deleting=meta.deletion_timestamp is not None,
    )


def decode_definition(body: Bytes) -> NetworkDefinition:
    """`spec` may be absent, as the schema in wide use allows."""
    wire = _decode(_DEFINITION.decode, body, "network-attachment-definition")
    meta = wire.metadata
    _require(meta, "network-attachment-definition")
    return NetworkDefinition(
        namespace=meta.namespace,
        name=meta.name,
        config=(wire.spec.config or "") if wire.spec is not None else "",
        annotations=meta.annotations or {},
    )


def decode_stateful_set(body: Bytes) -> WorkloadState:
    """Annotations of the pod template are below the workload's own."""
    wire = _decode(_STATEFUL_SET.decode, body, "statefulset")
    meta, spec = wire.metadata, wire.spec
    _require(meta, "statefulset")
    replicas = 1 if spec.replicas is None else spec.replicas  # the API's default
    start = spec.ordinals.start if spec.ordinals is not None else 0
    return _state(Workload(meta.namespace, "StatefulSet", meta.name), meta, spec, start, replicas)


def decode_workload(body: Bytes, workload: Workload) -> WorkloadState:
    """Of any other kind. How many replicas are wanted is in `spec.replicas`, `spec.instances` or `spec.pods`.

    The ordinals begin at `spec.ordinals.start`, else at 1 with `instances` (CloudNativePG) and at 0 with `replicas`;
    with `pods` (Strimzi) they are those in the pods' names, and a gap counts as wanted. Without any of the three
    nothing is known, and that is a `DecodeFailure`: nobody is to be taken for scaled away.
    """
    wire = _decode(_WORKLOAD.decode, body, f'"{workload.kind}"')
    meta, spec = wire.metadata, wire.spec
    _require(meta, f'"{workload.kind}"')
    if spec.replicas is not None:
        start, replicas = 0, spec.replicas
    elif spec.instances is not None:
        start, replicas = 1, spec.instances
    elif spec.pods is not None:
        start, replicas = _ordinals(meta.name, spec.pods)
    else:
        raise DecodeFailure(f"decode {workload}: found none of spec.replicas, spec.instances and spec.pods")
    if spec.ordinals is not None:
        start = spec.ordinals.start
    return _state(workload, meta, spec, start, replicas)


def _ordinals(name: str, pods: list[_Pods]) -> tuple[int, int]:
    """The lowest ordinal, and how many there are up to the highest."""
    texts = [pod.metadata.name.removeprefix(f"{name}-") for pod in pods]
    found = [int(text) for text in texts if text.isascii() and text.isdigit() and len(text) <= 10]
    if len(found) < len(pods) or not found:
        return 0, len(pods)
    return min(found), max(found) - min(found) + 1


def _state(workload: Workload, meta: _Metadata, spec: _StatefulSetSpec, start: int, replicas: int) -> WorkloadState:
    return WorkloadState(
        workload=workload,
        uid=meta.uid,
        replicas=replicas,
        ordinals_start=start,
        annotations={**(spec.template.metadata.annotations or {}), **(meta.annotations or {})},
        deleting=meta.deletion_timestamp is not None,
    )


def decode_group(body: Bytes) -> tuple[str, ...]:
    """The versions of an API group, the preferred one first."""
    wire = _decode(_GROUP.decode, body, "API group")
    preferred = wire.preferred_version.version
    others = [v.version for v in wire.versions if v.version != preferred]
    return tuple(v for v in (preferred, *others) if v)


def decode_resources(body: Bytes) -> tuple[Resource, ...]:
    """The resources of one version of an API group, without subresources."""
    wire = _decode(_RESOURCES.decode, body, "API resources")
    group, _, version = wire.group_version.rpartition("/")
    return tuple(
        Resource(group=group, version=version, plural=r.name, kind=r.kind, namespaced=r.namespaced)
        for r in wire.resources
        if "/" not in r.name
    )


def decode_node(body: Bytes) -> NodeState:
    """A node that does not say that it is ready is not."""
    wire = _decode(_NODE.decode, body, "node")
    _require(wire.metadata, "node", namespaced=False)
    return NodeState(
        name=wire.metadata.name,
        ready=any(c.type == "Ready" and c.status == "True" for c in wire.status.conditions or ()),
        out_of_service=any(t.key == _OUT_OF_SERVICE for t in wire.spec.taints or ()),
    )


def decode_page(body: Bytes) -> Page:
    """The items stay as they came, so that one that cannot be read does not hide the others."""
    wire = _decode(_LIST.decode, body, "list")
    if not wire.metadata.resource_version:
        raise DecodeFailure("decode list: found no resourceVersion, expected one to watch from")
    return Page(tuple(wire.items or ()), wire.metadata.resource_version, wire.metadata.continue_)


def decode_names(body: Bytes) -> tuple[str, ...]:
    """Of a list as a table, whose first column is the name."""
    wire = _decode(_TABLE.decode, body, "table")
    if not wire.column_definitions or wire.column_definitions[0].name != "Name":
        raise DecodeFailure("decode table of the API server: found no names in it, expected them in its first column")
    return tuple(_decode(_NAME.decode, row.cells[0] if row.cells else b"", "table") for row in wire.rows or ())


def decode_change(line: Bytes) -> Change:
    """One line of a watch."""
    wire = _decode(_CHANGE.decode, line, "watch event")
    return Change(wire.type, wire.object)


def decode_identity(body: Bytes) -> Identity:
    """Of an object whatever its kind; a bookmark's name and UID are ""."""
    meta = _decode(_NAMED.decode, body, "object").metadata
    return Identity(meta.namespace, meta.name, meta.uid, meta.resource_version)


def decode_identified(body: Bytes) -> Identity:
    """Of one object that is there: it has a name, a UID and a version."""
    identity = decode_identity(body)
    if not identity.name or not identity.uid or not identity.version:
        raise DecodeFailure("decode object of the API server: found no name, UID or resourceVersion")
    return identity


def decode_object(body: Bytes) -> ApiObject:
    """Of any resource."""
    found = decode_identified(body)
    return ApiObject(namespace=found.namespace, name=found.name, uid=found.uid, version=found.version, body=bytes(body))


def _decode(decode: Callable[[Any], T], body: Bytes, what: str) -> T:
    try:
        return decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise DecodeFailure(f"decode {what} of the API server: not what its API promises", str(e)) from e


def _require(meta: _Metadata, what: str, *, namespaced: bool = True) -> None:
    missing = [key for key in ("name", "uid") if not getattr(meta, key)]
    if namespaced and not meta.namespace:
        missing.append("namespace")
    if missing:
        raise DecodeFailure(f'decode {what} of the API server: key "metadata.{missing[0]}" is missing')


def _owner(wire: _Owner) -> OwnerReference:
    return OwnerReference(api_version=wire.api_version, kind=wire.kind, name=wire.name, uid=wire.uid, controller=True)
