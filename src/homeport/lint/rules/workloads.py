"""Rules across files: what workloads ask of networks. No I/O.

A namespace that a manifest leaves out is the one it will be applied to: it matches any.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import msgspec

from homeport.cni import conflists
from homeport.cni.documents import shown
from homeport.ipam import policies
from homeport.ipam.ranges import Range
from homeport.lint import wishes
from homeport.lint.catalogue import nearest
from homeport.lint.findings import Found, Severity, Span
from homeport.lint.manifests import (
    ADDRESSES,
    DEFAULT_NETWORK,
    NETWORKS,
    RETENTION,
    Embedded,
    Manifests,
    Network,
    Workload,
)
from homeport.lint.nodes import Node, plain
from homeport.lint.pools import pools
from homeport.lint.rules.checks import network_rule, rule
from homeport.lint.rules.wording import said
from homeport.lint.wishes import Wish
from homeport.model.errors import CniError
from homeport.multinet import capabilities, selections


class Ask(msgspec.Struct, frozen=True):
    """What all replicas of a workload want of one network of the files by one entry of their annotation.

    `ips`: they say which addresses.
    """

    workload: Workload
    network: Network
    replicas: int
    ips: bool


@rule("annotation-syntax", Severity.ERROR)
def annotation_syntax(manifests: Manifests) -> Iterator[Found]:
    """An annotation about networks cannot be read.

    The network selection is `[NAMESPACE/]NAME[@IFNAME],...` or a JSON list of objects, the default network exactly one
    such; `homeport.dev/addresses` and `homeport.dev/retention` are JSON objects. A pod with a bad one does not start.
    `{ordinal}` stands for a replica's number, so it is right in a StatefulSet and wrong anywhere else.
    """
    for workload in manifests.workloads:
        for key in (NETWORKS, DEFAULT_NETWORK):
            text = workload.annotations.get(key)
            if text is not None:
                yield from _unreadable_selection(workload, key, text)
        for key in (ADDRESSES, RETENTION):
            text = workload.annotations.get(key)
            if text is None:
                continue
            for slip in text.slips:
                yield workload.found(slip.span, f"found {slip.found}", f"expected {slip.right}")
            if text.root is not None and text.root.kind != "object":
                yield workload.found(text.root.span, f'annotation "{key}" is no object', "expected a JSON object")


@rule("unknown-network", Severity.WARNING)
def unknown_network(manifests: Manifests) -> Iterator[Found]:
    """A workload asks for a network that is not in the files.

    It may be in the cluster already; then its pods start, but nothing between the two could be checked here.
    """
    named = wishes.by_name(manifests.networks)
    for workload in manifests.workloads:
        text = workload.annotations.get(NETWORKS)
        missing: dict[Span, list[Wish]] = {}
        for wish in wishes.of(workload):
            if text is not None and wishes.chosen(workload, wish, named) is None:
                missing.setdefault(wishes.place(text, wish), []).append(wish)
        for span, lost in missing.items():
            name = lost[0].selection.name
            elsewhere = [n.namespace for n in named.get(name, [])]
            near = nearest(name, tuple(named))
            right = "define it in these files, or lint it together with them"
            if elsewhere:
                right = f'it is defined in namespace "{elsewhere[0]}"'
            elif near and lost[0].ordinal is None:
                right = f'did you mean "{near}"?'
            yield workload.found(span, f"{_missing(workload, lost)} not in these files", right)


@rule("unhonoured-request", Severity.ERROR)
def unhonoured_request(manifests: Manifests) -> Iterator[Found]:
    """A network selection asks for something that no plugin of the network takes, such as `ips`.

    A plugin that takes it says so by `"capabilities": {"ips": true}` in its configuration. Those that read `ips` or
    `mac` without, such as whereabouts and macvlan, are known (docs/networks.md). Pods with such a request do not start,
    unless the nodes are told to drop it (`unhonouredRequests`).
    """
    named = wishes.by_name(manifests.networks)
    for workload in manifests.workloads:
        text = workload.annotations.get(NETWORKS)
        told: set[tuple[int, int]] = set()
        for wish in wishes.of(workload):
            network = wishes.chosen(workload, wish, named)
            if text is None or network is None or (wish.entry, id(network)) in told:
                continue
            told.add((wish.entry, id(network)))
            asked = _unhonoured(network, wish)
            if asked:
                yield workload.found(
                    wishes.place(text, wish),
                    f'a request for {", ".join(map(shown, asked))}, which no plugin of network "{network.name}" takes',
                    f'expected "capabilities": {{"{asked[0]}": true}} in one of them',
                )


@rule("pool-too-small", Severity.ERROR)
def pool_too_small(manifests: Manifests) -> Iterator[Found]:
    """The workloads in these files ask for more addresses than a network has.

    Counted are the usable addresses of every range, without the first and last of the subnet, the exclusions and the
    gateway, against all replicas of all workloads that select the network. One static address serves one pod.
    host-local is not counted, since its pool exists once a node.
    """
    asks: dict[int, list[Ask]] = {}
    for ask in _asks(manifests):
        asks.setdefault(id(ask.network), []).append(ask)
    for network in manifests.networks:
        asking = asks.get(id(network), [])
        counted = [ask for ask in asking if not ask.ips]
        total = sum(ask.replicas for ask in counted)
        if not total:
            continue
        who = ", ".join(f"{_named(ask.workload)} asks for {ask.replicas}" for ask in counted)
        for pool in pools(network):
            whole = pool.parsed()
            if pool.ipam == "whereabouts" and whole is not None and whole.usable < total:
                yield network.found(
                    pool.last_word.span,
                    f"{whole.span} has {_counted(whole.usable)}, {who}",
                    f"expected {total} at least",
                )
        for addresses in _static_addresses(network):
            if total > 1:
                yield network.found(
                    addresses.span, f"static addresses serve one pod, {who}", "expected an IPAM plugin with a range"
                )


@network_rule("sticky-map", Severity.ERROR)
def sticky_map(network: Network) -> Iterator[Found]:
    """An explicit map of addresses (`sticky.replicas`) has an entry that can never be handed out, or one twice.

    Every entry must be an address of the ranges, not excluded, not the gateway, and stand once in all maps of the
    network (E16). Replicas with such an entry do not start.
    """
    whole = [parsed for pool in pools(network) if (parsed := pool.parsed()) is not None]
    seen: dict[str, Node] = {}
    for _, listed in _maps(network):
        if len(whole) == len(list(pools(network))):
            for entry in listed.items:
                yield from _bad_entries(network, entry, whole, seen)


@rule("map-too-short", Severity.ERROR)
def map_too_short(manifests: Manifests) -> Iterator[Found]:
    """An explicit map has fewer entries than its workload has replicas.

    A replica without an entry gets no address at all rather than a foreign one (R3), so it does not start. The first
    entry belongs to the lowest ordinal.
    """
    for network in manifests.networks:
        for key, listed in _maps(network):
            namespace, _, name = key.partition("@")[0].rpartition("/")
            for workload in manifests.workloads:
                same = workload.name == name and workload.namespace in (None, namespace)
                if same and len(listed.items) < workload.replicas:
                    yield network.found(listed.span, *_too_short(listed, workload))
    for workload in manifests.workloads:
        for _, listed in _annotated_maps(workload):
            if len(listed.items) < workload.replicas:
                yield workload.found(listed.span, *_too_short(listed, workload))


@rule("annotated-map", Severity.ERROR)
def annotated_map(manifests: Manifests) -> Iterator[Found]:
    """An explicit map in `homeport.dev/addresses` has an entry that can never be handed out, or one twice.

    As `sticky-map`, against the ranges of the network it names.
    """
    for workload in manifests.workloads:
        for key, listed in _annotated_maps(workload):
            name = key.partition("@")[0]
            named = [
                n
                for n in manifests.networks
                if name in (n.name, n.config.text("name") if n.config else None)
                and (n.namespace is None or workload.namespace in (None, n.namespace))
            ]
            seen: dict[str, Node] = {}
            for network in named[:1]:
                whole = [parsed for pool in pools(network) if (parsed := pool.parsed()) is not None]
                for entry in listed.items if whole else ():
                    yield from _bad_entries(workload, entry, whole, seen)


@rule("bad-duration", Severity.ERROR)
def bad_duration(manifests: Manifests) -> Iterator[Found]:
    """`retainFor` is not a duration.

    Write whole numbers with d, h, m or s: `72h`, `1h30m`, `7d`.
    """
    holders: list[tuple[Network | Workload, Node | None]] = [
        *((n, plugin.get("ipam", "sticky")) for n in manifests.networks for plugin in n.plugins),
        *((w, w.annotations[RETENTION].root) for w in manifests.workloads if RETENTION in w.annotations),
    ]
    for subject, holder in holders:
        node = holder.get("retainFor") if holder is not None else None
        if node is None or node.kind != "string":
            continue
        try:
            policies.parse_policy({"retainFor": str(node.value)}, [])
        except CniError as e:
            yield subject.found(node.span, *said(e))


def _unreadable_selection(workload: Workload, key: str, text: Embedded) -> Iterator[Found]:
    try:
        for ordinal in wishes.ordinals(workload, text):
            wishes.parse(workload, key, text, ordinal)
    except CniError as e:
        if selections.is_json(text.scalar.text) and text.slips:
            for slip in text.slips:
                yield workload.found(slip.span, f"found {slip.found}", f"expected {slip.right}")
        else:
            yield workload.found(text.scalar.span(Span(0, len(text.scalar.text))), *said(e))


def _unhonoured(network: Network, wish: Wish) -> tuple[str, ...]:
    """The requests, under the names of capabilities; none of a network that other rules find fault with."""
    try:
        parsed = conflists.parse(plain(network.config) if network.config else {}, default_name=network.name)
    except CniError:
        return ()
    return capabilities.unhonoured(parsed, wish.selection)


def _asks(manifests: Manifests) -> Iterator[Ask]:
    """One for each entry and network, its replicas added up."""
    named = wishes.by_name(manifests.networks)
    for workload in manifests.workloads:
        asks: dict[tuple[int, int], Ask] = {}
        for wish in wishes.of(workload):
            network = wishes.chosen(workload, wish, named)
            if network is not None:
                before = asks.get((wish.entry, id(network)))
                replicas = wish.replicas + (before.replicas if before else 0)
                asks[wish.entry, id(network)] = Ask(workload, network, replicas, bool(wish.selection.ips))
        yield from asks.values()


def _static_addresses(network: Network) -> Iterator[Node]:
    for plugin in network.plugins:
        ipam = plugin.get("ipam")
        addresses = ipam.get("addresses") if ipam is not None and ipam.text("type") == "static" else None
        if addresses is not None and addresses.items:
            yield addresses


def _maps(network: Network) -> Iterator[tuple[str, Node]]:
    """Every explicit map of the configuration, by its key `NAMESPACE/WORKLOAD[@IFNAME]`."""
    for plugin in network.plugins:
        replicas = plugin.get("ipam", "sticky", "replicas")
        for member in replicas.members if replicas is not None else ():
            if member.value.kind == "array":
                yield member.name, member.value


def _annotated_maps(workload: Workload) -> Iterator[tuple[str, Node]]:
    text = workload.annotations.get(ADDRESSES)
    for member in text.root.members if text is not None and text.root is not None else ():
        if member.value.kind == "array":
            yield member.name, member.value


def _bad_entries(
    subject: Network | Workload, entry: Node, whole: Sequence[Range], seen: dict[str, Node]
) -> Iterator[Found]:
    """The addresses of one entry (a string, or a list with one a range) that no replica can have."""
    for node in entry.items if entry.kind == "array" else (entry,):
        value: Any = plain(node)
        try:
            parsed = policies.parse_policy({"replicas": {"map": [value]}}, whole)
        except CniError as e:
            yield subject.found(node.span, *said(e))
            continue
        for address in chain(*parsed.maps["map"].entries) if parsed is not None else ():
            first = seen.setdefault(str(address), node)
            if first is not node:
                yield subject.found(node.span, f"{address} is mapped twice", "expected every address once")


def _too_short(listed: Node, workload: Workload) -> tuple[str, str]:
    entries = "1 entry" if len(listed.items) == 1 else f"{len(listed.items)} entries"
    return f"the map has {entries}, {_named(workload)} has {workload.replicas} replicas", "expected one entry a replica"


def _named(workload: Workload) -> str:
    return f"{workload.kind} {shown(workload.name)}"


def _missing(workload: Workload, lost: Sequence[Wish]) -> str:
    """The networks of one place in an annotation, with their verb."""
    name, ordinal = wishes.full_name(workload, lost[0]), lost[0].ordinal
    if ordinal is None:
        return f'network "{name}" is'
    if len(lost) == 1:
        return f'network "{name}" of replica {ordinal} is'
    return f'network "{name}" of replica {ordinal}, and those of {len(lost) - 1} more, are'


def _counted(usable: int) -> str:
    return "1 usable address" if usable == 1 else f"{usable} usable addresses"
