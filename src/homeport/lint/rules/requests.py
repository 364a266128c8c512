"""Rules about the addresses that pods ask for themselves, by `ips` of their network selection. No I/O."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from homeport.ipam.ranges import Range, Span, free_spans
from homeport.lint import wishes
from homeport.lint.findings import Found, Severity
from homeport.lint.links import is_of_pod_alone, is_version_of, wires
from homeport.lint.manifests import NETWORKS, Embedded, Manifests, Network, Workload
from homeport.lint.pools import pools, statics
from homeport.lint.rules.checks import rule
from homeport.lint.rules.wording import called
from homeport.lint.spans import SpanIndex
from homeport.lint.wishes import Wish
from homeport.model.addresses import IPAddress

_RECORDS = "host-local"  # gives the address asked for in place of its own choice, and writes it down
_IPAM = ("host-local", "static", "whereabouts")


class Asked(msgspec.Struct, frozen=True):
    """An address that a pod asks for on a network. `pods` is how many ask for it by this very entry."""

    workload: Workload
    text: Embedded
    wish: Wish
    network: Network
    address: IPAddress
    pods: int

    def found(self, found: str, right: str) -> Found:
        return self.workload.found(wishes.place(self.text, self.wish, "ips"), found, right)


@rule("ips-outside", Severity.ERROR)
def ips_outside(manifests: Manifests) -> Iterator[Found]:
    """A pod asks host-local for an address that is in none of its ranges, or is the gateway.

    host-local gives addresses of its ranges only, and refuses the pod.
    """
    for asked in _asked(manifests):
        known = _ranges(asked.network)
        if known and not any(asked.address in whole for whole in known):
            spans = " and ".join(str(whole.span) for whole in known)
            yield asked.found(
                f'{asked.address} is not handed out by network "{asked.network.name}"', f"expected one of {spans}"
            )


@rule("ips-repeated", Severity.ERROR)
def ips_repeated(manifests: Manifests) -> Iterator[Found]:
    """Several replicas ask for one address.

    All pods of a workload have one annotation, so each of them wants the same address. In a StatefulSet an address may
    contain `{ordinal}`; or leave the choice to the network's range.
    """
    for asked in _asked(manifests):
        if asked.pods > 1:
            yield asked.found(f"{asked.pods} replicas ask for {asked.address}", "expected one of their own, or none")


@rule("ips-twice", Severity.WARNING)
def ips_twice(manifests: Manifests) -> Iterator[Found]:
    """A workload asks for an address that another one on the same link has too, or that a network says in full."""
    first: dict[tuple[object, IPAddress], tuple[str, object]] = {}
    for network in manifests.networks:
        for wire in wires(network):
            for static in statics(network):
                first.setdefault((wire, static.address.ip), (f'network "{network.name}"', network))
    for asked in _asked(manifests):
        if not asked.workload.replicas:
            continue
        places: frozenset[object] = wires(asked.network) or frozenset({id(asked.network)})
        for place in places:
            whose, owner = first.setdefault((place, asked.address), (called(asked.workload), asked.workload))
            if owner is not asked.workload and owner is not asked.network and not _is_version(owner, asked.workload):
                yield asked.found(f"{asked.address} is an address of {whose} too", "expected every address once")


@rule("ips-in-range", Severity.WARNING)
def ips_in_range(manifests: Manifests) -> Iterator[Found]:
    """A pod asks for an address that a network on the same link hands out to others.

    whereabouts takes `ips` as addresses beside the one of its range, and nothing records them: another pod gets the
    address as well. Exclude it from the range, or map it (`homeport.dev/addresses`).
    """
    asking = tuple(_asked(manifests))
    dealt: dict[object, list[tuple[Span, tuple[Network, Range]]]] = {}
    for network in manifests.networks if asking else ():
        for pool in pools(network):
            whole = pool.parsed()
            for span in free_spans(whole.span, whole.withheld) if whole is not None else ():
                for wire in (id(network), *wires(network)):
                    if whole is not None:
                        dealt.setdefault(wire, []).append((span, (network, whole)))
    indexes = {wire: SpanIndex(spans) for wire, spans in dealt.items()}
    for asked in asking:
        near = [indexes[w] for w in (id(asked.network), *wires(asked.network)) if w in indexes]
        given = (what for index in near for _, what in index.meeting(Span(asked.address, asked.address)))
        for network, whole in given:
            own = network is asked.network
            if _ipam_of(network) == _RECORDS if own else is_version_of(network, asked.network):
                continue
            yield asked.found(
                f'{asked.address} is one of {whole.span}, which network "{network.name}" hands out',
                "expected an address that is excluded there, or outside",
            )
            break


def _asked(manifests: Manifests) -> Iterator[Asked]:
    """Every address asked for on a known network whose IPAM plugin reads requests, once for each entry."""
    named = wishes.by_name(manifests.networks)
    for workload in manifests.workloads:
        text = workload.annotations.get(NETWORKS)
        found: dict[tuple[int, int, IPAddress], Asked] = {}
        for wish in wishes.of(workload) if text is not None else ():
            network = wishes.chosen(workload, wish, named) if wish.selection.ips else None
            if text is None or network is None or _ipam_of(network) not in _IPAM or is_of_pod_alone(network):
                continue
            for ip in wish.selection.ips:
                address = getattr(ip, "ip", ip)
                key = (wish.entry, id(network), address)
                before = found[key].pods if key in found else 0
                found[key] = Asked(workload, text, wish, network, address, before + wish.replicas)
        yield from found.values()


def _ipam_of(network: Network) -> str:
    """The type of the only IPAM plugin, "" without one or with several."""
    found = [plugin.text("ipam", "type") or "" for plugin in network.plugins if plugin.get("ipam") is not None]
    return found[0] if len(found) == 1 else ""


def _ranges(network: Network) -> tuple[Range, ...]:
    """What host-local hands out; nothing where somebody else does, or a range is not right."""
    if _ipam_of(network) != _RECORDS:
        return ()
    parsed = [pool.parsed() for pool in pools(network)]
    whole = tuple(one for one in parsed if one is not None)
    return whole if len(whole) == len(parsed) else ()


def _is_version(owner: object, workload: Workload) -> bool:
    """Whether the owner is the same workload of another overlay."""
    return (
        isinstance(owner, Workload)
        and (owner.kind, owner.name) == (workload.kind, workload.name)
        and (owner.namespace is None or workload.namespace in (None, owner.namespace))
    )
