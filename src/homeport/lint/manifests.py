"""Texts as the networks and workloads they describe. No I/O.

A NetworkAttachmentDefinition (k8s.cni.cncf.io/v1) holds its CNI configuration as JSON text inside YAML; a `.conf` or
`.conflist` file is that JSON itself. Both become a `Network` whose `config` has its places in the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property, wraps
from typing import TypeVar

import msgspec

from homeport.lint import jsontext, jsontree, scalars, yamltext
from homeport.lint.findings import Edit, Found, Span
from homeport.lint.nodes import Node, moved
from homeport.lint.scalars import ScalarText

T = TypeVar("T")

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

_CNI_SUFFIXES = (".conf", ".conflist")
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


class Network(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """A network definition. `name` is the NAD's, or the configuration's own in a file that is nothing else."""

    file: str
    source: str
    name: str
    namespace: str | None = None
    manifest: Node | None = None
    given: Node | None = None  # what stands at spec.config
    text: Embedded | None = None

    @cached_property
    def config(self) -> Node | None:
        """The configuration's object; None where there is none or it is something else."""
        root = self.text.root if self.text else None
        return root if root is not None and root.kind == "object" else None

    @cached_property
    def plugins(self) -> tuple[Node, ...]:
        """The plugin objects in order; of a single configuration, that one."""
        if self.config is None:
            return ()
        listed = self.config.get("plugins")
        if listed is None:
            return (self.config,) if self.config.get("type") else ()
        return tuple(item for item in listed.items if item.kind == "object")

    @cached_property
    def is_list(self) -> bool:
        return self.config is not None and self.config.get("plugins") is not None

    def found(self, span: Span, found: str, right: str, edits: tuple[Edit, ...] = ()) -> Found:
        return Found(file=self.file, span=span, found=found, right=right, edits=edits)


def of_network(find: Callable[[Network], Iterable[T]]) -> Callable[[Network], tuple[T, ...]]:
    """What `find` finds in a network, kept with it: for what does not depend on anything that stands beside it."""
    kept = f"{find.__module__}.{find.__qualname__}"

    @wraps(find)
    def once(network: Network) -> tuple[T, ...]:
        known: tuple[T, ...] | None = vars(network).get(kept)
        if known is None:
            known = vars(network)[kept] = tuple(find(network))
        return known

    return once


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


class _Document(msgspec.Struct, frozen=True):
    """A file's text, and whether it is JSON throughout."""

    file: str
    text: str
    is_json: bool = False

    def embedded(self, given: Node) -> Embedded:
        """What a string of it holds."""
        value = str(given.value)
        if self.is_json:
            return _embedded(self.file, self.text, scalars.locate_json(self.text, given.span, value))
        return _embedded(self.file, self.text, scalars.locate(self.text, given.span, value, given.style))


class _Reading:
    """What has been found so far."""

    def __init__(self) -> None:
        self.networks: list[Network] = []
        self.workloads: list[Workload] = []
        self.objects: list[tuple[str, Node]] = []
        self.troubles: list[Found] = []

    def file(self, file: str, text: str) -> None:
        if len(text) > MAX_TEXT:
            self._trouble(file, Span(0, 0), f"{len(text):,} characters", f"at most {MAX_TEXT:,} in a file; split it")
        elif file.endswith(_CNI_SUFFIXES):
            self.networks.append(_network_file(file, text))
        elif (tree := jsontree.read(text, style='"') if text.lstrip()[:1] in ("{", "[") else None) is not None:
            for node in _listed(tree):
                self._object(_Document(file, text, is_json=True), node)
        else:
            self._yaml(_Document(file, text))

    def _yaml(self, document: _Document) -> None:
        inner, most = 0, max(len(document.text), _REPEATED)
        for root in yamltext.documents(document.text):
            if isinstance(root, yamltext.Trouble):
                self._trouble(document.file, root.span, root.found, root.right)
                continue
            for node in _listed(root):
                inner += _inner_size(node)
                if inner > most:
                    self._trouble(document.file, node.span, "aliases that repeat too much text", "plain text")
                    break
                self._object(document, node)

    def _object(self, document: _Document, node: Node) -> None:
        self.objects.append((document.file, node))
        if (network := _network(document, node)) is not None:
            self.networks.append(network)
        elif (workload := _workload(document, node)) is not None:
            self.workloads.append(workload)

    def _trouble(self, file: str, span: Span, found: str, right: str) -> None:
        self.troubles.append(Found(file=file, span=span, found=found, right=right))


def read(texts: Mapping[str, str]) -> Manifests:
    """The manifests in texts keyed by file name."""
    reading = _Reading()
    for file, text in texts.items():
        reading.file(file, text)
    return Manifests(
        networks=tuple(reading.networks),
        workloads=tuple(reading.workloads),
        objects=tuple(reading.objects),
        troubles=tuple(reading.troubles),
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


def _network(document: _Document, node: Node) -> Network | None:
    if node.text("kind") != NAD_KIND:
        if node.get("kind") is None and node.get("apiVersion") is None and _looks_like_cni(node):
            return _network_file(document.file, document.text)
        return None
    given = node.get("spec", "config")
    embedded = None
    if given is not None and given.kind == "string" and str(given.value).strip():
        embedded = document.embedded(given)
    return Network(
        file=document.file,
        source=document.text,
        name=node.text("metadata", "name") or "",
        namespace=node.text("metadata", "namespace"),
        manifest=node,
        given=given,
        text=embedded,
    )


def _looks_like_cni(node: Node) -> bool:
    return node.get("plugins") is not None or (node.get("type") is not None and node.get("cniVersion") is not None)


def _workload(document: _Document, node: Node) -> Workload | None:
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
                annotations[key] = document.embedded(value)
    if not annotations:
        return None
    return Workload(
        file=document.file,
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
    tree = jsontree.read(scalar.text, lambda start, end: Span(scalar.starts[start], scalar.ends[end - 1]))
    if tree is not None:
        return Embedded(file=file, source=source, scalar=scalar, root=tree, slips=())
    root, slips = jsontext.read(scalar.text)
    return Embedded(
        file=file,
        source=source,
        scalar=scalar,
        root=moved(root, scalar.span) if root is not None else None,
        slips=tuple(msgspec.structs.replace(slip, span=scalar.span(slip.span)) for slip in slips),
    )
