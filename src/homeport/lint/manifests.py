"""Texts as the networks and workloads they describe. No I/O.

A NetworkAttachmentDefinition (k8s.cni.cncf.io/v1) holds its CNI configuration as JSON text inside YAML; a `.conf` or
`.conflist` file is that JSON itself. Both become a `Network` whose `config` has its places in the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from homeport.lint import jsontext, scalars, yamltext
from homeport.lint.findings import Edit, Found, Span
from homeport.lint.nodes import Node, moved
from homeport.lint.scalars import ScalarText

NETWORKS = "k8s.v1.cni.cncf.io/networks"
DEFAULT_NETWORK = "v1.multus-cni.io/default-network"
ADDRESSES = "homeport.dev/addresses"
RETENTION = "homeport.dev/retention"

NAD_API = "k8s.cni.cncf.io/"
NAD_KIND = "NetworkAttachmentDefinition"
_OF_PODS = (NETWORKS, DEFAULT_NETWORK)  # read from pods alone
_OF_WORKLOADS = (ADDRESSES, RETENTION)  # read from the workload as well
_TEMPLATED = ("StatefulSet", "Deployment", "DaemonSet", "ReplicaSet", "Job", "ReplicationController")

MAX_TEXT = 8 * 1024 * 1024
"""Characters of a file; more would take half a minute to read and is no hand-written manifest."""

_REPEATED = 1024 * 1024  # characters of embedded JSON that aliases may bring in again


class Embedded(msgspec.Struct, frozen=True, kw_only=True):
    """JSON text, in a YAML scalar or a file of its own. `root` is None if it cannot be read; spans are the file's."""

    file: str
    source: str
    scalar: ScalarText
    root: Node | None
    slips: tuple[jsontext.Slip, ...]

    def edit(self, span: Span, text: str) -> Edit:
        """Replaces a stretch by plain JSON text, written as the surrounding scalar needs it."""
        return Edit(span.start, span.end, self.scalar.encode(text))

    def written(self, span: Span) -> str:
        """The file's own text of a stretch, quoting and all: it can be moved within the scalar as it is."""
        return self.source[span.start : span.end]


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """A network definition. `name` is the NAD's, or the configuration's own in a file that is nothing else."""

    file: str
    source: str
    name: str
    namespace: str | None = None
    manifest: Node | None = None
    given: Node | None = None  # what stands at spec.config
    text: Embedded | None = None

    @property
    def config(self) -> Node | None:
        """The configuration's object; None where there is none or it is something else."""
        root = self.text.root if self.text else None
        return root if root is not None and root.kind == "object" else None

    @property
    def plugins(self) -> tuple[Node, ...]:
        """The plugin objects in order; of a single configuration, that one."""
        if self.config is None:
            return ()
        listed = self.config.get("plugins")
        if listed is None:
            return (self.config,) if self.config.get("type") else ()
        return tuple(item for item in listed.items if item.kind == "object")

    @property
    def is_list(self) -> bool:
        return self.config is not None and self.config.get("plugins") is not None

    def found(self, span: Span, found: str, right: str, edits: tuple[Edit, ...] = ()) -> Found:
        return Found(file=self.file, span=span, found=found, right=right, edits=edits)


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """A pod, or what makes pods; `pod` is it or its template.

    `first` is the lowest ordinal of a StatefulSet; a DaemonSet counts as one replica.
    """

    file: str
    kind: str
    name: str
    namespace: str | None
    manifest: Node
    pod: Node | None
    replicas: int
    first: int
    annotations: Mapping[str, Embedded]

    def found(self, span: Span, found: str, right: str) -> Found:
        return Found(file=self.file, span=span, found=found, right=right)


class Manifests(msgspec.Struct, frozen=True, kw_only=True):
    """Everything of all files. `troubles` are documents that are not YAML; `objects` every Kubernetes object."""

    networks: tuple[Network, ...]
    workloads: tuple[Workload, ...]
    objects: tuple[tuple[str, Node], ...]
    troubles: tuple[Found, ...]


def read(texts: Mapping[str, str]) -> Manifests:
    """The manifests in texts keyed by file name."""
    networks: list[Network] = []
    workloads: list[Workload] = []
    objects: list[tuple[str, Node]] = []
    troubles: list[Found] = []
    for file, text in texts.items():
        inner = 0
        if len(text) > MAX_TEXT:
            size = f"{len(text):,} characters"
            troubles.append(
                Found(file=file, span=Span(0, 0), found=size, right=f"at most {MAX_TEXT:,} in a file; split it")
            )
            continue
        if _is_cni_file(file):
            networks.append(_network_file(file, text))
            continue
        for root in yamltext.documents(text):
            if isinstance(root, yamltext.Trouble):
                troubles.append(Found(file=file, span=root.span, found=root.found, right=root.right))
                continue
            for node in _listed(root):
                inner += _inner_size(node)
                if inner > max(len(text), _REPEATED):
                    troubles.append(
                        Found(file=file, span=node.span, found="aliases that repeat too much text", right="plain text")
                    )
                    break
                objects.append((file, node))
                if (network := _network(file, text, node)) is not None:
                    networks.append(network)
                elif (workload := _workload(file, text, node)) is not None:
                    workloads.append(workload)
    return Manifests(
        networks=tuple(networks), workloads=tuple(workloads), objects=tuple(objects), troubles=tuple(troubles)
    )


def join(parts: Iterable[Manifests]) -> Manifests:
    """What was read apart, looked at together."""
    listed = tuple(parts)
    return Manifests(
        networks=tuple(n for part in listed for n in part.networks),
        workloads=tuple(w for part in listed for w in part.workloads),
        objects=tuple(o for part in listed for o in part.objects),
        troubles=tuple(t for part in listed for t in part.troubles),
    )


def _is_cni_file(file: str) -> bool:
    return file.endswith((".conf", ".conflist"))


def _network_file(file: str, text: str) -> Network:
    embedded = _embedded(file, text, scalars.whole(text))
    name = embedded.root.text("name") if embedded.root is not None else None
    return Network(file=file, source=text, name=name or "", text=embedded)


def _listed(root: Node) -> Iterator[Node]:
    """The objects of a document: of kind List its items, each once however often an alias names it."""
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if id(node) in seen or node.kind != "object":
            continue
        seen.add(id(node))
        items = node.get("items")
        if (node.text("kind") or "").endswith("List") and items is not None:
            waiting.extend(reversed(items.items))
        else:
            yield node


def _network(file: str, text: str, node: Node) -> Network | None:
    if node.text("kind") != NAD_KIND:
        if node.get("kind") is None and node.get("apiVersion") is None and _looks_like_cni(node):
            return _network_file(file, text)
        return None
    given = node.get("spec", "config")
    embedded = None
    if given is not None and given.kind == "string" and str(given.value).strip():
        embedded = _embedded(file, text, scalars.locate(text, given.span, str(given.value), given.style))
    return Network(
        file=file,
        source=text,
        name=node.text("metadata", "name") or "",
        namespace=node.text("metadata", "namespace"),
        manifest=node,
        given=given,
        text=embedded,
    )


def _looks_like_cni(node: Node) -> bool:
    return node.get("plugins") is not None or (node.get("type") is not None and node.get("cniVersion") is not None)


def _workload(file: str, text: str, node: Node) -> Workload | None:
    kind = node.text("kind") or ""
    if kind == "Pod":
        pod: Node | None = node
    elif kind == "CronJob":
        pod = node.get("spec", "jobTemplate", "spec", "template")
    elif kind in _TEMPLATED:
        pod = node.get("spec", "template")
    else:
        return None
    annotations: dict[str, Embedded] = {}
    for place, keys in ((pod, _OF_PODS + _OF_WORKLOADS), (node, _OF_WORKLOADS)):
        for key in keys:
            value = place.get("metadata", "annotations", key) if place is not None else None
            if value is not None and value.kind == "string" and key not in annotations:
                annotations[key] = _embedded(
                    file, text, scalars.locate(text, value.span, str(value.value), value.style)
                )
    if not annotations:
        return None
    return Workload(
        file=file,
        kind=kind,
        name=node.text("metadata", "name") or "",
        namespace=node.text("metadata", "namespace"),
        manifest=node,
        pod=pod,
        replicas=_replicas(kind, node),
        first=_count(node.get("spec", "ordinals", "start"), 0),
        annotations=annotations,
    )


def _inner_size(node: Node) -> int:
    config = node.text("spec", "config")
    return len(config) if config is not None else 0


def _replicas(kind: str, node: Node) -> int:
    if kind in ("StatefulSet", "Deployment", "ReplicaSet", "ReplicationController"):
        return _count(node.get("spec", "replicas"), 1)
    if kind == "Job":
        return _count(node.get("spec", "parallelism"), 1)
    return 1


def _count(node: Node | None, default: int) -> int:
    value = node.value if node is not None and node.kind == "number" else default
    return max(0, int(value)) if isinstance(value, int) else default


def _embedded(file: str, source: str, scalar: ScalarText) -> Embedded:
    """Also for texts that need not be JSON, as a selection's short form: then `slips` tell nothing of interest."""
    root, slips = jsontext.read(scalar.text)
    return Embedded(
        file=file,
        source=source,
        scalar=scalar,
        root=moved(root, scalar.span) if root is not None else None,
        slips=tuple(msgspec.structs.replace(slip, span=scalar.span(slip.span)) for slip in slips),
    )
