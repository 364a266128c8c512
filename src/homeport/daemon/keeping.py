"""The daemon's background work on this node's addresses in the cluster: telling, comparing, probing. I/O: theirs."""

from __future__ import annotations

from functools import partial

from homeport.daemon import holding, squatting
from homeport.daemon.holding import Holding, recorded_addresses, recorded_netns
from homeport.daemon.metrics import Metrics
from homeport.daemon.repeating import Repeating
from homeport.daemon.squatting import Squatters
from homeport.wiring import Node

_TELL_SECONDS = 1.0
_GATHER_SECONDS = 0.02


def address_work(node: Node, metrics: Metrics) -> tuple[Repeating, ...]:
    """What is to be done again and again; nothing where addresses are kept in a file."""
    store, kubernetes, shells = node.allocations, node.kubernetes, node.shells
    if store is None or kubernetes is None:
        return ()
    telling = Repeating("claims", store.deliver, seconds=_TELL_SECONDS, gather_seconds=_GATHER_SECONDS)
    store.wake = telling.wake
    metrics.watch_claims(store)
    compared = Holding(
        store,
        kubernetes.objects,
        kubernetes,
        node=shells.node,
        netns_exists=node.host.namespace_exists,
        recorded=partial(recorded_addresses, node.meta.results(), node.host.namespace_exists),
        netns_of=partial(recorded_netns, node.meta.results()),
        emit=kubernetes.emit,
        now=shells.clock.now,
        monotonic=shells.clock.monotonic,
        count=metrics.count_repair,
    )
    metrics.watch_holding(compared)
    comparing = Repeating("addresses in the cluster", compared.go_through, seconds=holding.ROUND_SECONDS)
    compared.wake = comparing.wake
    compared.start()
    squatters = Squatters(
        store.remote,
        compared.seen,
        shells.probe,
        node=shells.node,
        link_of=store.claims.link,
        emit=kubernetes.emit,
        now=shells.clock.now,
        monotonic=shells.clock.monotonic,
        count=metrics.count_repair,
    )
    probing = Repeating("strangers", squatters.step, seconds=squatting.STEP_SECONDS)
    return telling, comparing, probing
