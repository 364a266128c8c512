"""Rules about the links that networks stand on, and their MTU. No I/O."""

from __future__ import annotations

from collections.abc import Iterator

from homeport.cni.documents import shown
from homeport.lint import wishes
from homeport.lint.findings import Found, Severity
from homeport.lint.links import Standing, conflict, is_version_of, standings
from homeport.lint.manifests import Manifests, Network, Workload
from homeport.lint.nodes import Node
from homeport.lint.pools import families, subnets
from homeport.lint.rules.checks import network_rule, rule
from homeport.lint.wishes import Choice

_IPV6_LEAST = 1280  # RFC 8200 section 5; below it the kernel takes IPv6 from the interface
_ONE_OF = ("bridge", "dummy", "ipvlan", "macvlan", "ptp", "tuning", "vlan")  # an mtu of theirs is the pod's interface's
_NO_VETH = ("ipvlan", "macvlan", "vlan")
_RATES = ("ingressRate", "egressRate")
_BOUNDED = ("macvlan", "vlan")  # refuse an mtu above their master's


@rule("master-conflict", Severity.WARNING)
def master_conflict(manifests: Manifests) -> Iterator[Found]:
    """Two networks stand on one link in ways that exclude each other.

    A link carries either macvlan or ipvlan interfaces, and in macvlan's mode passthru a single one. Wherever pods of
    both networks meet on a node, the second does not start (`device or resource busy`). Give one of them another
    link, such as a VLAN of it, or the other one's type.
    """
    first: dict[str, dict[str, tuple[Network, Standing]]] = {}
    for network, standing in _stacked(manifests):
        ways = first.setdefault(standing.parent, {})
        ways.setdefault(_way(standing), (network, standing))
        for other, earlier in ways.values():
            # Two in mode passthru are meant for two nodes, as often as not.
            why = (
                "" if _way(earlier) == _way(standing) or is_version_of(other, network) else conflict(earlier, standing)
            )
            if why:
                yield network.found(
                    standing.place.span,
                    f'{_way(standing)} on {standing.described}, where network "{other.name}" has {_way(earlier)}',
                    f"{why}; expected another link, or one kind for both",
                )
                break


@rule("ipvlan-mode-conflict", Severity.WARNING)
def ipvlan_mode_conflict(manifests: Manifests) -> Iterator[Found]:
    """Two ipvlan networks on one link have different modes.

    The kernel keeps one mode for all ipvlan interfaces of a link: whichever is made last changes it for the pods that
    run already.
    """
    first: dict[str, tuple[Network, Standing]] = {}
    for network, standing in _stacked(manifests):
        if standing.kind != "ipvlan":
            continue
        other, earlier = first.setdefault(standing.parent, (network, standing))
        if earlier.mode != standing.mode and not is_version_of(other, network):
            yield network.found(
                standing.place.span,
                f'mode {standing.mode} on {standing.described}, where network "{other.name}" has {earlier.mode}',
                "expected one mode for a link: the last one made changes it for all",
            )


@rule("pod-master-conflict", Severity.ERROR)
def pod_master_conflict(manifests: Manifests) -> Iterator[Found]:
    """A pod selects two networks whose interfaces cannot both be made on one node.

    As `master-conflict`, but certain: the two meet in every pod. The same holds for one VLAN ID or one device twice.
    """
    for workload, text, chosen in wishes.together(manifests):
        made: list[tuple[Choice, Standing]] = []
        for choice in chosen:
            for standing in standings(choice.network):
                for other, earlier in made:
                    if other is not choice and (why := conflict(earlier, standing)):
                        yield workload.found(
                            wishes.place(text, choice.wish),
                            f'network "{choice.network.name}" cannot be attached beside "{other.network.name}"',
                            f"{why}; expected networks on different links",
                        )
                made.append((choice, standing))


@rule("one-pod-a-node", Severity.WARNING)
def one_pod_a_node(manifests: Manifests) -> Iterator[Found]:
    """Several pods of a workload select a network that one pod of a node can have.

    A link takes each VLAN ID once, and one macvlan in mode passthru; a device is in one pod. Where two of the pods
    meet on a node, the second does not start. Keep them apart by `podAntiAffinity`, or put a bridge or macvlan on a
    VLAN interface of the node.
    """
    told: set[tuple[int, int]] = set()
    for workload, text, chosen in wishes.together(manifests):
        for choice in chosen:
            several = choice.wish.ordinal is None and choice.wish.replicas > 1 and not _is_spread(workload)
            why = next((why for s in standings(choice.network) if not s.inside and (why := conflict(s, s))), "")
            if several and why and (id(workload), choice.wish.entry) not in told:
                told.add((id(workload), choice.wish.entry))
                yield workload.found(
                    wishes.place(text, choice.wish),
                    f'{choice.wish.replicas} pods on network "{choice.network.name}", of which a node can have one',
                    f"{why}; expected pods that are kept apart, or a network for several",
                )


@network_rule("mtu-below-ipv6", Severity.ERROR)
def mtu_below_ipv6(network: Network) -> Iterator[Found]:
    """The MTU is below 1280, and the network gives IPv6 addresses.

    IPv6 needs 1280 (RFC 8200 section 5). The kernel refuses an IPv6 address on such an interface, or takes it away.
    """
    if 6 not in families(network):
        return
    for plugin in network.plugins:
        mtu = plugin.get("mtu")
        bad = mtu is not None and isinstance(mtu.value, int) and mtu.kind == "number" and 0 < mtu.value < _IPV6_LEAST
        if mtu is not None and bad and plugin.text("type") in _ONE_OF:
            yield network.found(
                mtu.span,
                f"mtu {mtu.value} on a network with IPv6 addresses",
                f"expected {_IPV6_LEAST} or more, or none to have the link's own",
            )


@rule("mtu-mismatch", Severity.WARNING)
def mtu_mismatch(manifests: Manifests) -> Iterator[Found]:
    """Two networks of one subnet on one link have different MTUs.

    Between neighbours no router tells the sender that a packet is too large: it is lost.
    """
    first: dict[tuple[str, object], tuple[Network, int]] = {}
    for network, standing in _all(manifests):
        mtu = standing.mtu
        if standing.mtu_bytes is None or standing.wire is None or mtu is None:
            continue
        for subnet in subnets(network) or ():
            other, theirs = first.setdefault((standing.wire, subnet), (network, standing.mtu_bytes))
            if theirs != standing.mtu_bytes and not is_version_of(other, network):
                yield network.found(
                    mtu.span,
                    f'mtu {standing.mtu_bytes} in {subnet} on {standing.described}, where network "{other.name}" '
                    f"has {theirs}",
                    "expected one MTU for all neighbours",
                )
                break


@rule("pod-master", Severity.WARNING)
def pod_master(manifests: Manifests) -> Iterator[Found]:
    """A network with `linkInContainer` has a master that no network of the pod makes before it.

    Its master is looked up inside the pod, so the network that makes it must be selected, and stand before it, under
    that interface name. eth0 is the cluster's own.
    """
    for workload, text, chosen in wishes.together(manifests):
        for choice in chosen:
            entry = choice.wish.entry
            made = {"eth0", "lo", *(wish.ifname for wish in wishes.of(workload) if wish.entry < entry)}
            lost = [s for s in standings(choice.network) if s.inside and s.parent and s.parent not in made]
            if lost:
                yield workload.found(
                    wishes.place(text, choice.wish),
                    f'network "{choice.network.name}" stands on {shown(lost[0].parent)} inside the pod',
                    f"expected a network before it with that interface name; before it are {', '.join(sorted(made))}",
                )


@rule("bandwidth-without-veth", Severity.ERROR)
def bandwidth_without_veth(manifests: Manifests) -> Iterator[Found]:
    """The plugin bandwidth is to limit an interface that is no veth pair.

    It sets its limits on the node's end of the pair. ipvlan, macvlan and vlan interfaces have none, and pods do not
    start.
    """
    for network in manifests.networks:
        shaper = _shaper(network)
        rate = next((m.key for m in shaper.members if m.name in _RATES and m.value.value), None) if shaper else None
        if rate is not None:
            yield network.found(
                rate.span,
                f"{shown(rate.value)} for an interface of {shown(network.plugins[0].text('type'))}, which is no veth",
                "expected bridge or ptp, or no limits",
            )
    for workload, text, chosen in wishes.together(manifests):
        for choice in chosen:
            if choice.wish.selection.bandwidth is not None and _shaper(choice.network) is not None:
                yield workload.found(
                    wishes.place(text, choice.wish, "bandwidth"),
                    f'a limit for network "{choice.network.name}", whose interface is no veth',
                    "expected no limits, or a network of type bridge or ptp",
                )


@rule("pod-master-mtu", Severity.ERROR)
def pod_master_mtu(manifests: Manifests) -> Iterator[Found]:
    """A network with `linkInContainer` has a larger MTU than the interface of the pod that it stands on.

    macvlan and vlan refuse an MTU above their master's.
    """
    for workload, text, chosen in wishes.together(manifests):
        known: dict[str, int] = {}
        for choice in chosen:
            for standing in standings(choice.network):
                mtu, most = standing.mtu_bytes, known.get(standing.parent) if standing.inside else None
                if mtu is not None and most is not None and mtu > most and standing.kind in _BOUNDED:
                    yield workload.found(
                        wishes.place(text, choice.wish),
                        f'network "{choice.network.name}" has mtu {mtu}, above {most} of "{standing.parent}"',
                        f"expected {most} at most",
                    )
                if mtu is not None:
                    known[choice.wish.ifname] = mtu


def _is_spread(workload: Workload) -> bool:
    """Whether something is said about which nodes its pods run on."""
    spec = workload.pod.get("spec") if workload.pod is not None else None
    return spec is not None and (
        spec.get("affinity", "podAntiAffinity") is not None or spec.get("topologySpreadConstraints") is not None
    )


def _shaper(network: Network) -> Node | None:
    """The plugin bandwidth of a network whose interface it cannot limit."""
    if not network.plugins or network.plugins[0].text("type") not in _NO_VETH:
        return None
    return next((plugin for plugin in network.plugins if plugin.text("type") == "bandwidth"), None)


def _all(manifests: Manifests) -> Iterator[tuple[Network, Standing]]:
    yield from ((network, standing) for network in manifests.networks for standing in standings(network))


def _stacked(manifests: Manifests) -> Iterator[tuple[Network, Standing]]:
    """The macvlan and ipvlan interfaces on links of the node."""
    for network, standing in _all(manifests):
        if standing.kind in ("macvlan", "ipvlan") and not standing.inside:
            yield network, standing


def _way(standing: Standing) -> str:
    return "macvlan in mode passthru" if standing.mode == "passthru" else standing.kind
