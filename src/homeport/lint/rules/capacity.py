"""Rules about whether there are addresses enough. No I/O."""

from __future__ import annotations

from collections.abc import Iterator

from homeport.lint.findings import Found, Severity
from homeport.lint.manifests import Manifests, Network
from homeport.lint.nodes import Node
from homeport.lint.pools import pools
from homeport.lint.rules.checks import rule
from homeport.lint.rules.wording import called
from homeport.lint.wishes import Ask, asks


@rule("pool-too-small", Severity.ERROR)
def pool_too_small(manifests: Manifests) -> Iterator[Found]:
    """The workloads in these files ask for more addresses than a network has.

    Counted are the usable addresses of every range, without the first and last of the subnet, the exclusions and the
    gateway, against all replicas of all workloads that select the network. One static address serves one pod.
    host-local is not counted, since its pool exists once a node.
    """
    by_network: dict[int, list[Ask]] = {}
    for ask in asks(manifests):
        by_network.setdefault(id(ask.network), []).append(ask)
    for network in manifests.networks:
        asking = by_network.get(id(network), [])
        counted = [ask for ask in asking if not ask.ips]
        total = sum(ask.replicas for ask in counted)
        if not total:
            continue
        who = ", ".join(f"{called(ask.workload)} asks for {ask.replicas}" for ask in counted)
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


def _static_addresses(network: Network) -> Iterator[Node]:
    for plugin in network.plugins:
        ipam = plugin.get("ipam")
        addresses = ipam.get("addresses") if ipam is not None and ipam.text("type") == "static" else None
        if addresses is not None and addresses.items:
            yield addresses


def _counted(usable: int) -> str:
    return "1 usable address" if usable == 1 else f"{usable} usable addresses"
