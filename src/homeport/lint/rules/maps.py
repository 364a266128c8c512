"""Rules about explicit maps of addresses, of networks and of workloads. No I/O."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import msgspec

from homeport.ipam import policies
from homeport.ipam.ranges import Range
from homeport.lint import wishes
from homeport.lint.findings import Found, Severity
from homeport.lint.links import is_version_of
from homeport.lint.manifests import ADDRESSES, Manifests, Network, Workload
from homeport.lint.nodes import Node, plain
from homeport.lint.pools import address_of, pools
from homeport.lint.rules.checks import network_rule, rule
from homeport.lint.rules.wording import called, said
from homeport.model.addresses import IPAddress
from homeport.model.errors import CniError


class Mapped(msgspec.Struct, frozen=True):
    """An address that a map of `holder` gives to a replica of `owner`: a workload, and the network's name."""

    holder: Network | Workload
    owner: tuple[str, str]
    place: Node
    address: IPAddress
    scope: str


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
    named = wishes.by_name(manifests.networks)
    workloads: dict[str, list[Workload]] = {}
    for workload in manifests.workloads:
        workloads.setdefault(workload.name, []).append(workload)
    for network in manifests.networks:
        for key, listed in _maps(network):
            namespace, _, name = key.partition("@")[0].rpartition("/")
            versions = [other for other in named.get(network.name, ()) if is_version_of(other, network)] or [network]
            for workload in workloads.get(name, ()):
                short = workload.namespace in (None, namespace) and len(listed.items) < workload.replicas
                if short and wishes.nearest(workload, versions) is network:
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
            if not named or not all(is_version_of(other, named[0]) for other in named):
                continue  # nobody can say which is meant
            seen: dict[str, Node] = {}
            meant = wishes.nearest(workload, named)
            whole = [parsed for pool in pools(meant) if (parsed := pool.parsed()) is not None]
            for entry in listed.items if whole else ():
                yield from _bad_entries(workload, entry, whole, seen)


@rule("map-clash", Severity.WARNING)
def map_clash(manifests: Manifests) -> Iterator[Found]:
    """Two explicit maps give one address to different replicas.

    Networks of one `network_name` share their addresses, so of two replicas that are mapped to one, the second does
    not start: it never gets another address (R3). A workload's `homeport.dev/addresses` goes before the network's map.
    """
    first: dict[tuple[str, IPAddress], Mapped] = {}
    for mapped in _mapped(manifests):
        before = first.setdefault((mapped.scope, mapped.address), mapped)
        if before.owner != mapped.owner and before.holder is not mapped.holder:
            yield mapped.holder.found(
                mapped.place.span,
                f'{mapped.address} is mapped to "{before.owner[0]}" on network "{before.owner[1]}" already',
                "expected every address in one map",
            )


def _mapped(manifests: Manifests) -> Iterator[Mapped]:
    """The addresses of all maps that hold, each with the scope that hands it out."""
    annotated: set[tuple[str, str]] = set()
    named = wishes.by_name(manifests.networks)
    for workload in manifests.workloads:
        for key, listed in _annotated_maps(workload):
            found = named.get(key.partition("@")[0], ())
            network = next((n for n in found if n.namespace is None or workload.namespace in (None, n.namespace)), None)
            if network is not None and workload.namespace is not None:
                owner = (f"{workload.namespace}/{workload.name}", network.name)
                annotated.add(owner)
                yield from _entries(workload, owner, listed, network)
    for network in manifests.networks:
        for key, listed in _maps(network):
            owner = (key.partition("@")[0], network.name)
            if owner not in annotated:
                yield from _entries(network, owner, listed, network)


def _entries(holder: Network | Workload, owner: tuple[str, str], listed: Node, network: Network) -> Iterator[Mapped]:
    for entry in listed.items:
        for node in entry.items if entry.kind == "array" else (entry,):
            address = address_of(node)
            scopes = (
                p.scope for p in pools(network) if (w := p.parsed()) is not None and address in w and not p.of_node
            )
            scope = next(scopes, None)
            if address is not None and scope is not None:
                yield Mapped(holder, owner, node, address, scope)


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
    return f"the map has {entries}, {called(workload)} has {workload.replicas} replicas", "expected one entry a replica"
