"""Rules about whether there are addresses enough. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec

from homeport.ipam.ranges import Range, Span, free_spans, merge_spans
from homeport.ipam.rooms import NO_SURGE, surge_of
from homeport.lint import wishes
from homeport.lint.findings import Found, Severity
from homeport.lint.links import is_of_pod_alone, is_version_of
from homeport.lint.manifests import NETWORKS, Manifests, Network
from homeport.lint.nodes import Node, plain
from homeport.lint.pools import Pool, pools
from homeport.lint.rules.checks import rule
from homeport.lint.rules.wording import called
from homeport.lint.spans import SpanIndex
from homeport.lint.wishes import Ask, asks
from homeport.model.errors import InvalidNetConf

_NAMED = 4  # of those who ask


class Drawn(msgspec.Struct, frozen=True):
    """A range of a network, and what is asked of it."""

    network: Network
    pool: Pool
    range: Range
    asking: tuple[Ask, ...]


class Store(msgspec.Struct, frozen=True):
    """Ranges that nobody draws from but those listed: what is inside the first one's span, or meets it by others."""

    drawn: tuple[Drawn, ...]

    @property
    def asking(self) -> tuple[Ask, ...]:
        return tuple(ask for one in self.drawn for ask in one.asking)

    @property
    def asked(self) -> int:
        return sum(ask.replicas for ask in self.asking)

    @property
    def usable(self) -> int:
        """Addresses that at least one of the ranges hands out."""
        free = [span for one in self.drawn for span in free_spans(one.range.span, one.range.withheld)]
        return sum(span.size for span in merge_spans(free))

    @property
    def span(self) -> str:
        return " and ".join(dict.fromkeys(str(one.range.span) for one in self.drawn[:2]))


@rule("pool-too-small", Severity.ERROR)
def pool_too_small(manifests: Manifests) -> Iterator[Found]:
    """The workloads in these files ask for more addresses than a network has.

    Counted are the usable addresses of every range, without the first and last of the subnet, the exclusions and the
    gateway, against all replicas of all workloads that select the network, or another one that hands out the same
    addresses. One static address serves one pod. host-local is not counted here, since its pool exists once a node, and
    a range with no address at all has a rule of its own (`range-empty`).
    """
    for store in _stores(manifests, lambda store: 0 < store.usable < store.asked):
        first = store.drawn[0]
        yield first.network.found(
            first.pool.last_word.span,
            f"{store.span} has {_counted(store.usable)}, {_who(store.asking)}",
            f"expected {store.asked} at least",
        )
    for network, asking in _asked(manifests):
        total = sum(ask.replicas for ask in asking)
        for addresses in _static_addresses(network) if total > 1 else ():
            found = f"static addresses serve one pod, {_who(asking)}"
            yield network.found(addresses.span, found, "expected an IPAM plugin with a range")


@rule("pool-too-small-for-update", Severity.WARNING)
def pool_too_small_for_update(manifests: Manifests) -> Iterator[Found]:
    """A network has addresses for all replicas, but not for those that a rolling update adds.

    A Deployment starts new pods before it ends old ones, by default a quarter of its replicas, rounded up. They wait
    for addresses that the old pods have; with `maxUnavailable: 0`, as a quarter of three replicas rounded down is,
    the update never ends. Two networks that share addresses are counted together, one workload at a time is updated.
    """

    def is_short(store: Store) -> bool:
        return store.asked <= store.usable < store.asked + max(map(_surge, store.asking), default=0)

    for store in _stores(manifests, is_short):
        first, most = store.drawn[0], max(store.asking, key=_surge)
        more = f"{called(most.workload)} for {_surge(most)} more in a rolling update"
        yield first.network.found(
            first.pool.last_word.span,
            f"{store.span} has {_counted(store.usable)}, {_who(store.asking)} and {more}",
            f"expected {store.asked + _surge(most)} at least, or maxSurge 0",
        )


@rule("one-address-for-update", Severity.WARNING)
def one_address_for_update(manifests: Manifests) -> Iterator[Found]:
    """A Deployment's only pod has an address of its own, and a rolling update starts the new pod before the old ends.

    Both have the address for a while, or the new one waits for ever. Use `strategy: {type: Recreate}` or
    `maxSurge: 0`, or a StatefulSet.
    """
    named = wishes.by_name(manifests.networks)
    for workload in manifests.workloads:
        text = workload.annotations.get(NETWORKS)
        for wish in wishes.of(workload) if workload.kind == "Deployment" and text is not None else ():
            network = wishes.chosen(workload, wish, named)
            if text is None or network is None or wish.replicas != 1:
                continue
            only = (bool(wish.selection.ips) and not is_of_pod_alone(network)) or any(_static_addresses(network))
            surge = _surge(Ask(workload, network, wish.replicas, only))
            if only and surge:
                yield workload.found(
                    wishes.place(text, wish),
                    f'{called(workload)} has one address of network "{network.name}", and {surge + 1} pods in a '
                    "rolling update",
                    'expected strategy type "Recreate", or maxSurge 0',
                )


@rule("host-local-too-small", Severity.ERROR)
def host_local_too_small(manifests: Manifests) -> Iterator[Found]:
    """The pods of one node ask host-local for more addresses than its range has.

    host-local counts on every node for itself, and keeps the gateway free: the one configured, or else the subnet's
    first address. Counted are workloads whose pods are told to run on one node, and pods that select a network twice.
    """
    for network, asking in _asked(manifests):
        by_node: dict[str | int, list[Ask]] = {}
        for ask in asking:
            if wishes.is_on_one_node(ask.workload):
                # A pod that may run anywhere shares its node with none of which that is known.
                by_node.setdefault(wishes.node_of(ask.workload) or id(ask.workload), []).append(ask)
        for there in by_node.values():
            total = sum(ask.replicas for ask in there)
            for listed in _sets(network):
                usable = sum(whole.usable for _, whole in listed)
                if 0 < usable < total:
                    yield network.found(
                        listed[0][0].last_word.span,
                        f"{listed[0][1].span} has {_counted(usable)} on a node, {_who(there)} on one",
                        f"expected {total} at least",
                    )


def _stores(manifests: Manifests, is_short: Callable[[Store], bool]) -> Iterator[Store]:
    """The stores that are short, the smallest first, and none that has a smaller one that is short in it."""
    by_scope: dict[str, list[Drawn]] = {}
    for network, asking in _asked(manifests):
        for pool in pools(network):
            whole = pool.parsed()
            if whole is not None and not pool.of_node:
                by_scope.setdefault(pool.scope, []).append(Drawn(network, pool, whole, tuple(asking)))
    for drawn in by_scope.values():
        told: set[Span] = set()
        for store in map(_of_one_overlay, (*_nested(drawn), *_chained(drawn))):
            spans = {one.range.span for one in store.drawn}
            if told.isdisjoint(spans) and is_short(store):
                told |= spans
                yield store


def _of_one_overlay(store: Store) -> Store:
    """Without other versions of a network that is in it already: they are for another cluster."""
    kept: list[Drawn] = []
    known: dict[str, list[Network]] = {}
    for one in store.drawn:
        same = known.setdefault(one.network.name, [])
        if not any(other is not one.network and is_version_of(other, one.network) for other in same):
            kept.append(one)
            same.append(one.network)
    return Store(tuple(kept))


def _nested(drawn: Sequence[Drawn]) -> Iterator[Store]:
    """For every span what lies in it, its own ranges first."""
    index = SpanIndex((one.range.span, one) for one in drawn)
    order = {id(one): n for n, one in enumerate(drawn)}
    for span in sorted({one.range.span for one in drawn}, key=lambda span: span.size):
        inside = [one for theirs, one in index.meeting(span) if theirs.first in span and theirs.last in span]
        yield Store(tuple(sorted(inside, key=lambda one: (one.range.span != span, order[id(one)]))))


def _chained(drawn: Sequence[Drawn]) -> Iterator[Store]:
    """Ranges that meet, and those that meet these."""
    chain: list[Drawn] = []
    reach = (4, -1)  # family and last address
    for one in sorted(drawn, key=lambda one: (one.range.family, int(one.range.first))):
        if chain and (one.range.family, int(one.range.first)) > reach:
            yield Store(tuple(chain))
            chain = []
        chain.append(one)
        reach = max(reach, (one.range.family, int(one.range.last)))
    if chain:
        yield Store(tuple(chain))


def _asked(manifests: Manifests) -> Iterator[tuple[Network, list[Ask]]]:
    """The networks that are asked for addresses, without those of pods that say which they want."""
    found: dict[int, list[Ask]] = {}
    for ask in asks(manifests):
        if not ask.ips and ask.replicas:
            found.setdefault(id(ask.network), []).append(ask)
    yield from ((network, found[id(network)]) for network in manifests.networks if id(network) in found)


def _sets(network: Network) -> Iterator[list[tuple[Pool, Range]]]:
    """The range sets of host-local, each of which gives one address; none with a range that is not right."""
    listed: dict[int, list[tuple[Pool, Range | None]]] = {}
    for pool in pools(network):
        if pool.of_node:
            listed.setdefault(pool.set, []).append((pool, pool.parsed()))
    for found in listed.values():
        whole = [(pool, parsed) for pool, parsed in found if parsed is not None]
        if len(whole) == len(found):
            yield whole


def _surge(ask: Ask) -> int:
    """The pods that a rolling update adds; none where what is said about it is not right."""
    spec = ask.workload.manifest.get("spec")
    said = {m.name: plain(m.value) for m in spec.members if m.name.lower().endswith("strategy")} if spec else {}
    try:
        surge = surge_of(ask.workload.kind, said, at="maxSurge")
    except InvalidNetConf:
        surge = NO_SURGE
    return surge.of(ask.replicas)


def _who(asking: Sequence[Ask]) -> str:
    """All who ask, those beyond a few in one number."""
    listed = [f"{called(ask.workload)} asks for {ask.replicas}" for ask in asking[:_NAMED]]
    if others := asking[_NAMED:]:
        listed.append(f"{len(others)} others for {sum(ask.replicas for ask in others)}")
    return ", ".join(listed)


def _static_addresses(network: Network) -> Iterator[Node]:
    """The lists of addresses that one pod can have."""
    for plugin in network.plugins if not is_of_pod_alone(network) else ():
        ipam = plugin.get("ipam")
        addresses = ipam.get("addresses") if ipam is not None and ipam.text("type") == "static" else None
        if addresses is not None and addresses.items:
            yield addresses


def _counted(usable: int) -> str:
    return "1 usable address" if usable == 1 else f"{usable} usable addresses"
