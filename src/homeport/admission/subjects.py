"""An object of the cluster as lint reads it. No I/O.

Only what may speak of networks stays of it: two objects with one text say the same of them.
"""

from __future__ import annotations

from typing import Any

import msgspec

from homeport.kube.resources import DEFINITIONS
from homeport.lint import manifests
from homeport.lint.manifests import Manifests
from homeport.model.errors import DecodeFailure
from homeport.ports import Resource

_KEPT = ("name", "generateName", "namespace", "annotations")
_COPY = "kubectl.kubernetes.io/last-applied-configuration"  # the whole object once more
_BULKY = frozenset(  # what is long in a pod's template, and read by no rule
    (
        *("args", "command", "env", "envFrom", "lifecycle", "livenessProbe", "readinessProbe", "startupProbe"),
        *("volumeClaimTemplates", "volumeDevices", "volumeMounts", "volumes"),
    )
)
_SPOKEN_OF = ("cni", "cncf", "multus", "homeport", "network")  # no rule finds anything where none of these stands


class _Owner(msgspec.Struct):
    kind: str = ""
    controller: bool | None = None


class _Metadata(msgspec.Struct, rename="camel"):
    name: str = ""
    namespace: str = ""
    generate_name: str = ""
    resource_version: str = ""
    uid: str = ""
    deletion_timestamp: str | None = None
    owner_references: list[_Owner] | None = None


class _Object(msgspec.Struct):
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)


_objects = msgspec.json.Decoder(_Object)
_parts = msgspec.json.Decoder(dict[str, msgspec.Raw])
_any = msgspec.json.Decoder(Any)
_texts = msgspec.json.Decoder(dict[str, str] | None)


class Subject(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One object. `file` is lint's name of it, `text` its JSON; `controller` the kind of what owns it, "" for none."""

    resource: Resource
    namespace: str
    name: str
    version: str
    deleting: bool
    controller: str
    text: str
    manifests: Manifests

    @property
    def key(self) -> tuple[str, str]:
        return self.namespace, self.name

    @property
    def file(self) -> str:
        return file_name(self.resource, self.namespace, self.name)

    @property
    def replicas(self) -> int:
        """How many pods it asks for; 0 for what asks for none on any network."""
        return sum(workload.replicas for workload in self.manifests.workloads)

    def __str__(self) -> str:
        return f"{self.resource.kind} {self.namespace}/{self.name}"


def read(
    resource: Resource,
    body: bytes | msgspec.Raw,
    *,
    namespace: str = "",
    replicas: int | None = None,
    known: Subject | None = None,
) -> Subject:
    """Reads an object's JSON; `namespace` is for one that says none, `replicas` is put in place of its own.

    `known`, an earlier reading, spares the work where nothing changed that people write. Raises `DecodeFailure` for
    what is no object at all. Whatever else is wrong with it, lint says.
    """
    try:
        meta = _objects.decode(body).metadata
        text = _text(resource, body, meta.namespace or namespace, replicas)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise DecodeFailure(f"decode {resource.kind}: {e}") from e
    space, name = meta.namespace or namespace, meta.name or f"{meta.generate_name}*"
    if known is not None and known.text == text:
        parsed = known.manifests
    else:
        spoken_of = any(word in text for word in _SPOKEN_OF)
        parsed = manifests.read({file_name(resource, space, name): text} if spoken_of else {})
    return Subject(
        resource=resource,
        namespace=space,
        name=name,
        version=meta.resource_version,
        deleting=meta.deletion_timestamp is not None,
        controller=next((o.kind for o in meta.owner_references or () if o.controller), ""),
        text=text,
        manifests=parsed,
    )


def file_name(resource: Resource, namespace: str, name: str) -> str:
    """Lint's name of an object of the cluster."""
    return f"{resource.plural}/{namespace}/{name}"


def _text(resource: Resource, body: bytes | msgspec.Raw, namespace: str, replicas: int | None) -> str:
    whole = _parts.decode(body)
    given = _parts.decode(whole["metadata"]) if "metadata" in whole else {}
    metadata: dict[str, Any] = {key: given[key] for key in _KEPT if key in given}
    annotations = _texts.decode(given["annotations"]) if "annotations" in given else None
    if annotations is not None and annotations.pop(_COPY, None) is not None:
        metadata["annotations"] = annotations
    # Items of a list have neither kind nor version; a namespace may be left to the request.
    api_version = f"{resource.group}/{resource.version}" if resource.group else resource.version
    kept: dict[str, Any] = {"apiVersion": api_version, "kind": resource.kind}
    kept["metadata"] = {**metadata, "namespace": namespace}
    kept |= {key: part for key, part in whole.items() if key not in ("apiVersion", "kind", "metadata", "status")}
    if resource != DEFINITIONS and "spec" in whole:
        spec = _without_bulk(_any.decode(whole["spec"]))
        kept["spec"] = spec if replicas is None or not isinstance(spec, dict) else {**spec, "replicas": replicas}
    return msgspec.json.encode(kept).decode()


def _without_bulk(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_bulk(inner) for key, inner in value.items() if key not in _BULKY}
    return [_without_bulk(inner) for inner in value] if isinstance(value, list) else value
