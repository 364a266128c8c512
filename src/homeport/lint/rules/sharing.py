"""Rules about addresses that two networks have in common. No I/O."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from homeport.ipam.ranges import Range, Span, free_spans
from homeport.lint.findings import Found, Severity
from homeport.lint.links import is_version_of, standings, wires
from homeport.lint.manifests import Manifests, Network
from homeport.lint.nodes import Node
from homeport.lint.pools import Pool, pools, statics
from homeport.lint.rules.checks import rule
from homeport.lint.rules.wording import called
from homeport.lint.spans import SpanIndex, common
from homeport.lint.wishes import Ask, asks, is_on_one_node
from homeport.model.addresses import IPAddress, IPNetwork

_FLAT = ("ipvlan", "macvlan", "vlan")  # one broadcast domain for the pods of all nodes
_ROUTED = ("l3", "l3s")


class Dealt(msgspec.Struct, frozen=True):
    """A range that a network hands out on a wire; `number` is the network's place among all."""

    number: int
    network: Network
    pool: Pool
    range: Range
    wire: str


@rule("overlapping-ranges", Severity.WARNING)
def overlapping_ranges(manifests: Manifests) -> Iterator[Found]:
    """Two networks on one link hand out the same addresses, and do not know of one another.

    Whereabouts and Homeport give an address once in a `network_name`, over all ranges that contain it; with another
    `network_name`, with `enable_overlapping_ranges` false, or from host-local, it is given out twice. Networks that
    are apart need links, such as VLANs, that are apart.
    """
    for wire, dealt in _by_wire(manifests).items():
        first: dict[tuple[str, bool, Span], Dealt] = {}
        for one in dealt:
            for span in free_spans(one.range.span, one.range.withheld):
                first.setdefault((one.pool.scope, one.pool.of_node, span), one)
        index = SpanIndex((span, one) for (_, _, span), one in first.items())
        told: set[int] = set()
        for (_, _, span), one in first.items():
            for theirs, other in index.meeting(span):
                if other.number < one.number and _are_apart(one, other) and id(one.pool.range) not in told:
                    told.add(id(one.pool.range))
                    yield one.network.found(
                        one.pool.range.span,
                        f'{common(span, theirs)} is handed out by network "{other.network.name}" too, on '
                        f"{_link(wire)}, and they are counted apart",
                        _apart_right(one, other),
                    )


@rule("subnet-mismatch", Severity.WARNING)
def subnet_mismatch(manifests: Manifests) -> Iterator[Found]:
    """Two networks on one link have subnets one inside the other.

    Their pods disagree on who is a neighbour: those of the larger subnet ask for the others on the link, those of the
    smaller one send to a gateway. Write the same prefix in both, and bound what is handed out by `range_start` and
    `range_end`.
    """
    for wire, dealt in _by_wire(manifests).items():
        by_scope: dict[tuple[str, bool], dict[IPNetwork, Dealt]] = {}
        for one in dealt:
            if not _is_routed(one.network):
                by_scope.setdefault((one.pool.scope, one.pool.of_node), {}).setdefault(one.range.subnet, one)
        for found in by_scope.values():
            index = SpanIndex((Span(subnet[0], subnet[-1]), one) for subnet, one in found.items())
            for subnet, one in found.items():
                for _, other in index.meeting(Span(subnet[0], subnet[-1])):
                    if other.number < one.number and not is_version_of(one.network, other.network):
                        yield one.network.found(
                            one.pool.range.span,
                            f'subnet {subnet} on {_link(wire)}, where network "{other.network.name}" has '
                            f"{other.range.subnet}",
                            "expected one prefix for all neighbours; range_start and range_end bound what is given",
                        )
                        break


@rule("shared-range", Severity.INFO)
def shared_range(manifests: Manifests) -> Iterator[Found]:
    """Two networks hand out addresses of one subnet between bounds that differ but meet.

    No address is given twice, since they are counted together; but each has less than it seems.
    """
    first: dict[tuple[str, IPNetwork], dict[Span, tuple[Network, Pool]]] = {}
    for network in manifests.networks:
        for pool in pools(network):
            whole = pool.parsed()
            if whole is not None and not pool.of_node:
                first.setdefault((pool.scope, whole.subnet), {}).setdefault(whole.span, (network, pool))
    for spans in first.values():
        order = {span: n for n, span in enumerate(spans)}
        index = SpanIndex((span, span) for span in spans)
        for span, (network, pool) in spans.items():
            meeting = [s for s, _ in index.meeting(span) if order[s] < order[span]]
            other = next((spans[s][0] for s in meeting if not is_version_of(spans[s][0], network)), None)
            if other is not None:
                yield network.found(
                    pool.last_word.span,
                    f'{span} meets a range of network "{other.name}"',
                    "addresses of both are counted together",
                )


@rule("static-in-range", Severity.WARNING)
def static_in_range(manifests: Manifests) -> Iterator[Found]:
    """A static address is one that a network on the same link hands out.

    Nothing records static addresses, so a pod gets it as well. Exclude it from the range, or bound the range.
    """
    by_wire = _by_wire(manifests)
    indexes = {
        wire: SpanIndex((span, one) for one in dealt for span in free_spans(one.range.span, one.range.withheld))
        for wire, dealt in by_wire.items()
    }
    for network in manifests.networks:
        for static in statics(network):
            ip = static.address.ip
            given = (
                one
                for wire in wires(network) & indexes.keys()
                for _, one in indexes[wire].meeting(Span(ip, ip))
                if one.network is network or not is_version_of(one.network, network)
            )
            one = next(given, None)
            if one is not None:
                yield network.found(
                    static.place.span,
                    f'{ip} is one of {one.range.span}, which network "{one.network.name}" hands out',
                    "expected an address that is excluded there, or outside",
                )


@rule("address-twice", Severity.WARNING)
def address_twice(manifests: Manifests) -> Iterator[Found]:
    """Two static addresses on one link are the same."""
    first: dict[tuple[str, IPAddress], tuple[Network, Node]] = {}
    for network in manifests.networks:
        for static in statics(network):
            for wire in wires(network):
                other, place = first.setdefault((wire, static.address.ip), (network, static.place))
                if place is not static.place and (other is network or not is_version_of(other, network)):
                    yield network.found(
                        static.place.span,
                        f'{static.address.ip} is an address of network "{other.name}" too, on {_link(wire)}',
                        "expected every address once",
                    )


@rule("definition-twice", Severity.WARNING)
def definition_twice(manifests: Manifests) -> Iterator[Found]:
    """A file defines one network twice.

    Applied to a cluster, the later definition takes the earlier one's place.
    """
    seen: set[tuple[str, str | None, str]] = set()
    for network in manifests.networks:
        name = network.manifest.get("metadata", "name") if network.manifest is not None else None
        key = (network.file, network.namespace, network.name)
        if name is not None and network.name and key in seen:
            yield network.found(
                name.span,
                f'network "{network.name}" is defined above already',
                "expected one: applied, the last takes the place of the others",
            )
        seen.add(key)


@rule("host-local-replicas", Severity.WARNING)
def host_local_replicas(manifests: Manifests) -> Iterator[Found]:
    """Several pods select a network in which host-local hands out addresses of one link.

    host-local counts on every node for itself, from the same first address: pods on two nodes get the same address,
    and meet on the link. whereabouts counts for the whole cluster.
    """
    several = _of_several_nodes(manifests)
    for network, place in _flat_host_local(manifests):
        asking = several.get(id(network), [])
        if asking:
            more = len({id(ask.workload) for ask in asking}) - 1
            others = f" and of {more} more" if more else ""
            yield network.found(
                place.span,
                f"host-local hands out the same addresses on every node, and the pods of {called(asking[0].workload)}"
                f"{others} may run on several",
                'expected "whereabouts", or a range for each node',
            )


@rule("host-local-flat", Severity.INFO)
def host_local_flat(manifests: Manifests) -> Iterator[Found]:
    """host-local hands out addresses of a link that all nodes share.

    Right on one node. On several, each counts for itself from the same first address; where workloads tell that there
    are several, `host-local-replicas` says so.
    """
    several = _of_several_nodes(manifests)
    for network, place in _flat_host_local(manifests):
        if id(network) not in several:
            yield network.found(
                place.span,
                "host-local hands out the same addresses on every node",
                "whereabouts counts for the whole cluster",
            )


def _by_wire(manifests: Manifests) -> dict[str, list[Dealt]]:
    """What is handed out on every wire that can be told, in order."""
    found: dict[str, list[Dealt]] = {}
    for number, network in enumerate(manifests.networks):
        for wire in wires(network):
            for pool in pools(network):
                whole = pool.parsed()
                if whole is not None:
                    found.setdefault(wire, []).append(Dealt(number, network, pool, whole, wire))
    return found


def _are_apart(one: Dealt, other: Dealt) -> bool:
    """Whether neither knows what the other has given out."""
    if is_version_of(one.network, other.network):
        return False
    return (one.pool.scope, one.pool.ipam) != (other.pool.scope, other.pool.ipam)


def _apart_right(one: Dealt, other: Dealt) -> str:
    if one.pool.of_node or other.pool.of_node:
        return "expected ranges that do not meet"
    return "expected one network_name for both, or ranges that do not meet"


def _of_several_nodes(manifests: Manifests) -> dict[int, list[Ask]]:
    """By network, what workloads ask whose pods may be on several nodes."""
    found: dict[int, list[Ask]] = {}
    for ask in asks(manifests):
        several = ask.replicas > 1 or ask.workload.kind == "DaemonSet"
        if several and not ask.ips and not is_on_one_node(ask.workload):
            found.setdefault(id(ask.network), []).append(ask)
    return found


def _flat_host_local(manifests: Manifests) -> Iterator[tuple[Network, Node]]:
    """Networks whose host-local addresses are on a link of several nodes, with the place that says host-local."""
    for network in manifests.networks:
        if not any(s.kind in _FLAT and not s.inside for s in standings(network)):
            continue
        for plugin in network.plugins:
            kind = plugin.get("ipam", "type")
            if kind is not None and kind.value == "host-local" and plugin.text("type") in _FLAT:
                yield network, kind


def _is_routed(network: Network) -> bool:
    """Whether pods reach no neighbour but through the node, whatever their prefix."""
    return any(standing.mode in _ROUTED for standing in standings(network))


def _link(wire: str) -> str:
    return f'link "{wire}"' if wire else "the link of the default route"
