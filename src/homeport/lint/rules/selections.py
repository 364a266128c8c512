"""Rules about network selections: what one pod asks for, entry by entry, and whether it can all be had. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Interface, IPv6Interface

from homeport.lint import wishes
from homeport.lint.catalogue import KINDS, Role, nearest
from homeport.lint.findings import Found, Severity, Span
from homeport.lint.manifests import ADDRESSES, NETWORKS, Embedded, Manifests, Network, Workload
from homeport.lint.nodes import Node
from homeport.lint.rules.checks import rule
from homeport.lint.wishes import Wish

_OF_ANY_POD = {"lo": "the loopback interface", "eth0": "the cluster's network"}
_NUMBER = re.compile(r"[0-9]+$")
OLD_IFNAME = "interfaceRequest"


@rule("interface-reserved", Severity.ERROR)
def interface_reserved(manifests: Manifests) -> Iterator[Found]:
    """A network selection asks for an interface name that every pod has already.

    `lo` and `eth0` are there before any network is attached. To replace the network behind `eth0`, use the annotation
    `v1.multus-cni.io/default-network`.
    """
    for workload, text, pod in pods(manifests):
        for wish in pod:
            ifname = wish.selection.ifname
            if ifname in _OF_ANY_POD:
                yield workload.found(
                    _ifname_place(text, wish),
                    f'interface name "{ifname}" is that of {_OF_ANY_POD[ifname]}',
                    "expected another name",
                )


@rule("interface-twice", Severity.ERROR)
def interface_twice(manifests: Manifests) -> Iterator[Found]:
    """Two entries of a network selection ask for the same interface name.

    A pod can have it once. The same network may well be selected twice, under two names.
    """
    for workload, text, pod in pods(manifests):
        first: dict[str, Wish] = {}
        for wish in pod:
            ifname = wish.selection.ifname
            if ifname and first.setdefault(ifname, wish) is not wish:
                yield workload.found(
                    _ifname_place(text, wish),
                    f'interface name "{ifname}" is asked for twice',
                    "expected every name once in a pod",
                )


@rule("interface-numbered", Severity.WARNING)
def interface_numbered(manifests: Manifests) -> Iterator[Found]:
    """A network selection gives one entry the name that another one gets.

    Entries without a name are called net1, net2 and so on, by their number in the list, counting the named ones as
    well. (Networks that the cluster gives to every pod come first and shift the numbers.)
    """
    for workload, text, pod in pods(manifests):
        unnamed = {f"net{wish.entry + 1}": wish for wish in pod if not wish.selection.ifname}
        for wish in pod:
            other = unnamed.get(wish.selection.ifname or "")
            if other is not None:
                yield workload.found(
                    _ifname_place(text, wish),
                    f'interface name "{wish.selection.ifname}" is also that of entry {other.entry + 1}, "'
                    f'{other.selection.name}", which has none of its own',
                    "name both, or choose a name other than net and a number",
                )


@rule("ips-without-prefix", Severity.ERROR)
def ips_without_prefix(manifests: Manifests) -> Iterator[Found]:
    """A network selection asks the IPAM plugin static for an address without its prefix length.

    static knows no subnet of its own, so `ips` must say it: `10.1.2.3/24`. Plugins that have a range
    (whereabouts, host-local) take the prefix from there.
    """
    for workload, text, wish, network in wishes.selections_of(manifests):
        bare = [ip for ip in wish.selection.ips if not isinstance(ip, IPv4Interface | IPv6Interface)]
        if bare and _static(network) is not None:
            yield workload.found(
                wishes.place(text, wish, "ips"),
                f"address {bare[0]} for the IPAM plugin static has no prefix length",
                f"expected one, such as {bare[0]}/{24 if bare[0].version == 4 else 64}",
            )


@rule("no-address", Severity.ERROR)
def no_address(manifests: Manifests) -> Iterator[Found]:
    """Nobody says which address a pod is to have on a network whose IPAM plugin is static.

    static gives what the configuration (`addresses`) or the pod (`ips` of its network selection) says, and nothing of
    its own. Without either the interface plugin refuses: it was told to set addresses and got none.
    """
    for workload, text, wish, network in wishes.selections_of(manifests):
        ipam = _static(network)
        asked = wish.selection.ips or wish.selection.cni_args
        if ipam is not None and not asked and not _has_items(ipam.get("addresses")):
            yield workload.found(
                wishes.place(text, wish),
                f'network "{network.name}" has the IPAM plugin static without "addresses", and no "ips" are asked for',
                "expected either",
            )


@rule("mac-repeated", Severity.WARNING)
def mac_repeated(manifests: Manifests) -> Iterator[Found]:
    """Several replicas ask for one MAC address.

    Every pod of the workload gets the same one, so switches and neighbours mix them up; on one macvlan master the
    second is refused. In a StatefulSet the address may contain `{ordinal}`.
    """
    for workload, text, wish, network in wishes.selections_of(manifests):
        if wish.selection.mac and wish.replicas > 1:
            yield workload.found(
                wishes.place(text, wish, "mac"),
                f'{wish.replicas} replicas ask for MAC address {wish.selection.mac} on network "{network.name}"',
                "expected one of their own, or none",
            )


@rule("map-unselected", Severity.WARNING, fix="writes the name of the network that is selected")
def map_unselected(manifests: Manifests) -> Iterator[Found]:
    """A map of addresses names a network that the pods do not select, and is close to one that they do.

    The keys of `homeport.dev/addresses` are names of networks, `NAME` or `NAME@IFNAME`. A map for another network has
    no effect: the replicas get their addresses from the range.
    """
    named = wishes.by_name(manifests.networks)
    for workload in manifests.workloads:
        text = workload.annotations.get(ADDRESSES)
        if text is None or text.root is None:
            continue
        wished = list(wishes.of(workload))
        known = (wishes.chosen(workload, wish, named) for wish in wished)
        own = {n.config.text("name") for n in known if n is not None and n.config is not None}
        selected = {wish.selection.name for wish in wished} | {name for name in own if name}
        for member in text.root.members:
            name, sign, ifname = member.name.partition("@")
            near = nearest(name, tuple(selected)) if name not in selected else None
            if near is None or _numbered_alike(name, near):
                continue
            right = f"{near}{sign}{ifname}"
            edits = (text.edit(member.key.span, f'"{right}"'),) if text.root.member(right) is None else ()
            yield Found(
                file=workload.file,
                span=member.key.span,
                found=f'a map for network "{name}", which the pods do not select',
                right=f'did you mean "{right}"?',
                edits=edits,
            )


def pods(manifests: Manifests) -> Iterator[tuple[Workload, Embedded, Sequence[Wish]]]:
    """What one pod wants at a time; of replicas that want different things the lowest alone."""
    for workload in manifests.workloads:
        text = workload.annotations.get(NETWORKS)
        if text is None:
            continue
        wished = list(wishes.of(workload))
        lowest = wished[0].ordinal if wished else None
        yield workload, text, [wish for wish in wished if wish.ordinal == lowest]


def _static(network: Network) -> Node | None:
    """The ipam section of the interface plugin, if that is static and the plugin one that insists on addresses."""
    for plugin in network.plugins:
        kind = KINDS.get(plugin.text("type") or "")
        ipam = plugin.get("ipam")
        if kind is not None and kind.role is Role.INTERFACE and kind.keys is not None and ipam is not None:
            is_static = ipam.text("type") == "static" and plugin.get("args") is None
            return ipam if is_static else None
    return None


def _numbered_alike(one: str, other: str) -> bool:
    """Whether two names differ in the number at their end alone: then both are meant."""
    return _NUMBER.sub("", one) == _NUMBER.sub("", other) and all(map(_NUMBER.search, (one, other)))


def _has_items(node: Node | None) -> bool:
    return node is not None and bool(node.items)


def _element(text: Embedded, wish: Wish) -> Node | None:
    """The wish's entry where the annotation is a JSON list."""
    items = text.root.items if text.root is not None else ()
    return items[wish.entry] if wish.entry < len(items) else None


def _ifname_place(text: Embedded, wish: Wish) -> Span:
    """Where an entry gives its interface's name: in the short form what follows the sign."""
    element = _element(text, wish)
    if element is not None:
        return wishes.place(text, wish, "interface" if element.get("interface") is not None else OLD_IFNAME)
    start = 0
    for number, item in enumerate(text.scalar.text.split(",")):
        if number == wish.entry and "@" in item:
            sign = start + item.index("@") + 1
            return text.scalar.span(Span(sign, start + len(item.rstrip())))
        start += len(item) + 1
    return wishes.place(text, wish)
