"""Kubernetes manifests as values: networks, StatefulSets, Deployments. No I/O.

Only what bears on networks is read. A document of another kind is named and left out; a mistake in one of ours
raises with the file, the line and the key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from homeport.ipam.identities import Workload
from homeport.lab.objects import Network, Template, WorkloadKind, WorkloadSpec
from homeport.model.errors import DecodeFailure, InvalidNetConf
from homeport.model.names import is_label, is_subdomain

_NAD = ("k8s.cni.cncf.io/v1", "NetworkAttachmentDefinition")
_WORKLOADS: Mapping[tuple[str, str], WorkloadKind] = {
    ("apps/v1", "StatefulSet"): "StatefulSet",
    ("apps/v1", "Deployment"): "Deployment",
}
_MAX_REPLICAS = 10_000


class Skipped(msgspec.Struct, frozen=True):
    """A document the lab has no use for."""

    kind: str
    name: str
    where: str


class Manifests(msgspec.Struct, frozen=True, kw_only=True):
    """What the given files ask for, each in the order it was read."""

    networks: tuple[Network, ...] = ()
    workloads: tuple[WorkloadSpec, ...] = ()
    skipped: tuple[Skipped, ...] = ()

    def __add__(self, other: Manifests) -> Manifests:
        return Manifests(
            networks=self.networks + other.networks,
            workloads=self.workloads + other.workloads,
            skipped=self.skipped + other.skipped,
        )


class _Section:
    """A YAML mapping with the place it stands at; every getter names key and line in its error."""

    def __init__(self, source: str, mapping: CommentedMap, path: str = "") -> None:
        self._source = source
        self._mapping = mapping
        self._path = path

    def where(self, key: str | None = None) -> str:
        line = self._mapping.lc.line if key is None or key not in self._mapping else self._mapping.lc.key(key)[0]
        return f"{self._source}:{line + 1}"

    def _name(self, key: str) -> str:
        return f"{self._path}.{key}" if self._path else key

    def wrong(self, key: str, expected: str) -> DecodeFailure:
        if key not in self._mapping:
            return DecodeFailure(f"read {self.where()}: {self._name(key)}: missing, expected {expected}")
        found = self._mapping[key]
        return DecodeFailure(f"read {self.where(key)}: {self._name(key)}: found {_shown(found)}, expected {expected}")

    def text(self, key: str, default: str | None = None) -> str:
        value = self._mapping.get(key, default)
        if not isinstance(value, str):
            raise self.wrong(key, "a string")
        return str(value)

    def choice(self, key: str, *allowed: str) -> str:
        """One of `allowed`; the first when the key is missing."""
        value = self._mapping.get(key, allowed[0])
        if value not in allowed:
            raise self.wrong(key, " or ".join(f'"{a}"' for a in allowed))
        return str(value)

    def count(self, key: str, default: int, most: int = _MAX_REPLICAS) -> int:
        value = self._mapping.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
            raise self.wrong(key, f"a whole number from 0 to {most}")
        return int(value)

    def under(self, key: str, *, required: bool = False) -> _Section:
        """The mapping below `key`; an empty one stands for a missing or null value that is not required."""
        value = self._mapping.get(key)
        if value is None and not required:
            value = CommentedMap()
            value.lc.line = self._mapping.lc.line
        if not isinstance(value, CommentedMap):
            raise self.wrong(key, "a mapping")
        return _Section(self._source, value, self._name(key))

    def strings(self, key: str) -> Mapping[str, str]:
        """A mapping of strings to strings, as labels and annotations are."""
        below = self.under(key)
        return {str(k): below.text(k) for k in below._mapping}

    def items(self, key: str) -> Iterator[_Section]:
        value = self._mapping.get(key)
        if not isinstance(value, CommentedSeq):
            raise self.wrong(key, "a list")
        for index, item in enumerate(value):
            if not isinstance(item, CommentedMap):
                line = value.lc.item(index)[0] + 1
                raise DecodeFailure(
                    f"read {self._source}:{line}: {key}[{index}]: found {_shown(item)}, expected a mapping"
                )
            yield _Section(self._source, item)


def parse(text: str, source: str) -> Manifests:
    """Every document of one file, `List`s opened. `source` is how messages name the file."""
    found = Manifests()
    for document in _documents(text, source):
        for item in _objects(document):
            found += _object(item)
    return found


def _documents(text: str, source: str) -> Iterator[_Section]:
    try:
        documents = list(YAML(typ="rt").load_all(text))
    except MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        place = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
        raise DecodeFailure(f"read {place}: not YAML: {e.problem or e.context}") from e
    except YAMLError as e:
        raise DecodeFailure(f"read {source}: not YAML: {' '.join(str(e).split())}") from e
    for document in documents:
        if document is None:  # an empty document between two `---`
            continue
        if not isinstance(document, CommentedMap):
            raise DecodeFailure(f"read {source}: found {_shown(document)}, expected a Kubernetes object")
        yield _Section(source, document)


def _objects(document: _Section) -> Iterator[_Section]:
    if document.text("kind").endswith("List"):
        for item in document.items("items"):
            yield from _objects(item)
    else:
        yield document


def _object(section: _Section) -> Manifests:
    api_version, kind = section.text("apiVersion"), section.text("kind")
    if (api_version, kind) == _NAD:
        return Manifests(networks=(_network(section),))
    if workload_kind := _WORKLOADS.get((api_version, kind)):
        return Manifests(workloads=(_workload(section, workload_kind),))
    if kind in (_NAD[1], *_WORKLOADS.values()):
        expected = next(v for v, k in (_NAD, *_WORKLOADS) if k == kind)
        raise section.wrong("apiVersion", f'"{expected}" for a {kind}')
    name = section.under("metadata")._mapping.get("name", "")
    return Manifests(skipped=(Skipped(kind, str(name), section.where()),))


def _names(section: _Section) -> tuple[str, str]:
    """(namespace, name) of an object."""
    metadata = section.under("metadata", required=True)
    if not is_subdomain(metadata.text("name")):
        raise metadata.wrong("name", "lower-case letters, digits, '-' and '.', such as web-1")
    if not is_label(metadata.text("namespace", "default")):
        raise metadata.wrong("namespace", "lower-case letters, digits and '-'")
    return metadata.text("namespace", "default"), metadata.text("name")


def _network(section: _Section) -> Network:
    namespace, name = _names(section)
    spec = section.under("spec", required=True)
    config = spec.text("config", "")
    if not config.strip():
        raise InvalidNetConf(
            f'read {spec.where("config")}: spec.config of "{namespace}/{name}": empty, expected a CNI configuration',
            "the lab's nodes have no configuration files of their own to look the network up in",
        )
    return Network(namespace=namespace, name=name, config=config)


def _workload(section: _Section, kind: WorkloadKind) -> WorkloadSpec:
    namespace, name = _names(section)
    spec = section.under("spec", required=True)
    metadata = spec.under("template", required=True).under("metadata")
    strategy = spec.under("updateStrategy")
    pod_management = spec.choice("podManagementPolicy", "OrderedReady", "Parallel")
    update_strategy = strategy.choice("type", "RollingUpdate", "OnDelete")
    return WorkloadSpec(
        workload=Workload(namespace, kind, name),
        replicas=spec.count("replicas", 1),
        ordinals_start=spec.under("ordinals").count("start", 0, 2**31 - 1),
        pod_management="Parallel" if pod_management == "Parallel" else "OrderedReady",
        update_strategy="OnDelete" if update_strategy == "OnDelete" else "RollingUpdate",
        partition=strategy.under("rollingUpdate").count("partition", 0, 2**31 - 1),
        annotations=section.under("metadata").strings("annotations"),
        template=Template(labels=metadata.strings("labels"), annotations=metadata.strings("annotations")),
    )


def _shown(value: Any) -> str:
    """A value as it may stand in a message: short, and telling its type."""
    match value:
        case None:
            return "nothing"
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case str():
            return f'"{value[:40]}"'
    return str(value)
