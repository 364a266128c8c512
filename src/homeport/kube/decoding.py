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
from homeport.ports import NetworkDefinition

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
_NODE = msgspec.json.Decoder(_Node)
_LIST = msgspec.json.Decoder(_List)
_CHANGE = msgspec.json.Decoder(_Change)
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
    return WorkloadState(
        workload=Workload(meta.namespace, "StatefulSet", meta.name),
        uid=meta.uid,
        replicas=1 if spec.replicas is None else spec.replicas,  # the API's default
        ordinals_start=spec.ordinals.start if spec.ordinals is not None else 0,
        annotations={**(spec.template.metadata.annotations or {}), **(meta.annotations or {})},
        deleting=meta.deletion_timestamp is not None,
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


def decode_change(line: Bytes) -> Change:
    """One line of a watch."""
    wire = _decode(_CHANGE.decode, line, "watch event")
    return Change(wire.type, wire.object)


def decode_identity(body: Bytes) -> Identity:
    """Of an object whatever its kind; a bookmark's name and UID are ""."""
    meta = _decode(_NAMED.decode, body, "object").metadata
    return Identity(meta.namespace, meta.name, meta.uid, meta.resource_version)


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
