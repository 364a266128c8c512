"""What workloads ask of networks, replica by replica. No I/O.

A namespace that a manifest leaves out is the one it will be applied to: it matches any.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import takewhile

import msgspec

from homeport.lint.findings import Span
from homeport.lint.manifests import DEFAULT_NETWORK, NETWORKS, Embedded, Manifests, Network, Workload
from homeport.model.errors import CniError
from homeport.multinet import selections, templates
from homeport.multinet.selections import NetworkSelection

_MOST_REPLICAS = 10_000  # looked at one by one
_JSON_NAME = re.compile(r'"name"\s*:\s*"([^"]*)"')
_WORD = re.compile(r"""[^\s,:"'/@\[\]]+""")
ANY_NAMESPACE = "default"  # what a selection without a namespace gets when its workload has none


class Wish(msgspec.Struct, frozen=True):
    """What replicas want by one entry of their annotation. Where it is a template it is one replica's, `ordinal`."""

    entry: int
    selection: NetworkSelection
    replicas: int
    ordinal: int | None = None

    @property
    def ifname(self) -> str:
        """What the interface is called where no cluster-wide networks come before."""
        return self.selection.ifname or f"net{self.entry + 1}"


class Choice(msgspec.Struct, frozen=True):
    """A wish of one pod and the definition it selects."""

    wish: Wish
    network: Network


class Ask(msgspec.Struct, frozen=True):
    """What all replicas of a workload want of one network of the files by one entry of their annotation.

    `ips`: they say which addresses.
    """

    workload: Workload
    network: Network
    replicas: int
    ips: bool


def of(workload: Workload) -> Iterator[Wish]:
    """What the annotation asks for, each entry's replicas apart if it is a template.

    Nothing for pods of the node's own network: no plugin runs for them.
    """
    for wished in _by_pod(workload):
        yield from wished


def choices(workload: Workload, named: Mapping[str, Sequence[Network]]) -> Iterator[tuple[Choice, ...]]:
    """The known networks of one pod together, once for all pods that select the same ones."""
    seen: set[tuple[int, ...]] = set()
    for wished in _by_pod(workload):
        found = tuple(Choice(w, network) for w in wished if (network := chosen(workload, w, named)) is not None)
        key = tuple(id(choice.network) for choice in found)
        if key not in seen:
            seen.add(key)
            yield found


def asks(manifests: Manifests) -> Iterator[Ask]:
    """One for each entry and network, its replicas added up; of several overlays of a workload the one with most."""
    named = by_name(manifests.networks)
    most: dict[tuple[str, str | None, str, int, int], Ask] = {}
    for workload in manifests.workloads:
        added: dict[tuple[int, int], Ask] = {}
        for wish in of(workload):
            network = chosen(workload, wish, named)
            if network is not None:
                before = added.get((wish.entry, id(network)))
                replicas = wish.replicas + (before.replicas if before else 0)
                added[wish.entry, id(network)] = Ask(workload, network, replicas, bool(wish.selection.ips))
        for at, ask in added.items():
            known = most.setdefault((workload.kind, workload.namespace, workload.name, *at), ask)
            if known.replicas < ask.replicas:
                most[workload.kind, workload.namespace, workload.name, *at] = ask
    yield from most.values()


def node_of(workload: Workload) -> str:
    """The node that all its pods are told to run on by its name; "" when they may run on any."""
    spec = workload.pod.get("spec") if workload.pod is not None else None
    if spec is None:
        return ""
    return spec.text("nodeName") or spec.text("nodeSelector", "kubernetes.io/hostname") or ""


def is_on_one_node(workload: Workload) -> bool:
    """Whether all its pods are on one node, whichever that is."""
    return workload.kind == "Pod" or node_of(workload) != ""


def _by_pod(workload: Workload) -> Iterator[tuple[Wish, ...]]:
    text = workload.annotations.get(NETWORKS)
    host_network = workload.pod.get("spec", "hostNetwork") if workload.pod is not None else None
    if text is None or (host_network is not None and host_network.value is True):
        return
    for ordinal in ordinals(workload, text):
        try:
            wanted = parse(workload, NETWORKS, text, ordinal)
        except CniError:
            return  # annotation-syntax says it
        replicas = workload.replicas if ordinal is None else 1
        yield tuple(Wish(entry, selection, replicas, ordinal) for entry, selection in enumerate(wanted))


def ordinals(workload: Workload, text: Embedded) -> Iterable[int | None]:
    """The replicas that read the annotation differently; None for all of them at once."""
    if workload.kind != "StatefulSet" or not templates.is_template(text.scalar.text):
        return (None,)
    return range(workload.first, workload.first + min(max(workload.replicas, 1), _MOST_REPLICAS))


def parse(workload: Workload, key: str, text: Embedded, ordinal: int | None) -> tuple[NetworkSelection, ...]:
    """What the annotation `key` says to the replica; raises what pods would be told."""
    return _parsed(key, text.scalar.text, workload.namespace or ANY_NAMESPACE, ordinal)


@lru_cache(maxsize=4096)
def _parsed(key: str, text: str, namespace: str, ordinal: int | None) -> tuple[NetworkSelection, ...]:
    """Remembered, since most rules over workloads ask."""
    if key == DEFAULT_NETWORK:
        return (selections.parse_default(text, namespace, ordinal=ordinal),)
    return selections.parse(text, namespace, ordinal=ordinal)


def by_name(networks: Iterable[Network]) -> dict[str, list[Network]]:
    """The definitions that pods can select."""
    named: dict[str, list[Network]] = {}
    for network in networks:
        if network.manifest is not None:
            named.setdefault(network.name, []).append(network)
    return named


def chosen(workload: Workload, wish: Wish, named: Mapping[str, Sequence[Network]]) -> Network | None:
    """The definition that the wish selects, of those `by_name` gave; of several overlays' the nearest one."""
    unsaid = workload.namespace is None and wish.selection.namespace == ANY_NAMESPACE
    named_so = named.get(wish.selection.name, ())
    found = [n for n in named_so if unsaid or n.namespace in (None, wish.selection.namespace)]
    return nearest(workload, found) if found else None


def nearest(workload: Workload, networks: Sequence[Network]) -> Network:
    """Of versions of one network, as overlays have them, the one for this workload; there must be one."""
    if len(networks) == 1:
        return networks[0]
    return max(networks, key=lambda network: _nearness(network.file, workload.file))


def _nearness(one: str, other: str) -> tuple[bool, int]:
    """How much of their way two files have in common."""
    ways = zip(one.split("/")[:-1], other.split("/")[:-1], strict=False)
    return one == other, sum(1 for _ in takewhile(lambda way: way[0] == way[1], ways))


def full_name(workload: Workload, wish: Wish) -> str:
    """The network's name, with its namespace where that is said."""
    unsaid = workload.namespace is None and wish.selection.namespace == ANY_NAMESPACE
    return wish.selection.name if unsaid else f"{wish.selection.namespace}/{wish.selection.name}"


def selections_of(manifests: Manifests) -> Iterator[tuple[Workload, Embedded, Wish, Network]]:
    """Every wish with the definition it selects, once for each entry and definition."""
    named = by_name(manifests.networks)
    for workload in manifests.workloads:
        text = workload.annotations.get(NETWORKS)
        told: set[tuple[int, int]] = set()
        for wish in of(workload):
            network = chosen(workload, wish, named)
            if text is None or network is None or (wish.entry, id(network)) in told:
                continue
            told.add((wish.entry, id(network)))
            yield workload, text, wish, network


def together(manifests: Manifests) -> Iterator[tuple[Workload, Embedded, tuple[Choice, ...]]]:
    """What pods select together, as `choices`, with the annotation that says so."""
    named = by_name(manifests.networks)
    for workload in manifests.workloads:
        text = workload.annotations.get(NETWORKS)
        for chosen_ones in choices(workload, named) if text is not None else ():
            if text is not None and chosen_ones:
                yield workload, text, chosen_ones


def selected(manifests: Manifests) -> Iterator[tuple[Workload, Embedded, tuple[Wish, ...]]]:
    """What pods ask for together, whether their networks are known or not; of several readings the first."""
    for workload in manifests.workloads:
        text = workload.annotations.get(NETWORKS)
        wished = next(_by_pod(workload), ())
        if text is not None and wished:
            yield workload, text, wished


def place(text: Embedded, wish: Wish, key: str = "name") -> Span:
    """Where the wish's entry says `key`; its network's name, as it is written there, when it does not say it."""
    if key != "name" and text.root is not None and wish.entry < len(text.root.items):
        said = text.root.items[wish.entry].get(key)
        if said is not None:
            return said.span
    written = text.scalar.text
    if selections.is_json(written):
        words = [Span(*word.span(1)) for word in _JSON_NAME.finditer(written)]
        ordered = [*words[wish.entry : wish.entry + 1], *words]
    else:
        start = 0
        for _ in range(wish.entry):
            start = written.find(",", start) + 1
        end = written.find(",", start) if "," in written[start:] else len(written)
        ordered = [Span(*word.span()) for word in _WORD.finditer(written, start, end)]
    for span in ordered:
        try:
            named = templates.expand(written[span.start : span.end], wish.ordinal, "")
        except CniError:
            continue
        if named == wish.selection.name:
            return text.scalar.span(span)
    return text.scalar.span(Span(0, len(written)))
