"""Checks of a node's links and settings against what its networks need. No I/O.

What a pod of this node needs is an error where it is missing; what only some network in the cluster names is a warning,
since not every node has to have every link.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from homeport.doctor.cluster_facts import Seen, Unseen
from homeport.doctor.facts import HostLink, KernelFacts, SeenPod, Use
from homeport.doctor.findings import Diagnosis, Severity, Sure
from homeport.doctor.repairs import RemoveLink
from homeport.plugins.registry import LINK_KINDS

_HALF_MADE = re.compile(r"veth[0-9a-f]{8}")  # containernetworking/plugins ip.RandomVethName, for links of any kind


class Wanted:
    """Which networks pods of this node select; none where that is not known."""

    def __init__(self, pods: Seen[tuple[SeenPod, ...]]) -> None:
        seen = () if isinstance(pods, Unseen) else pods
        self._networks = {n for pod in seen if not pod.pod.finished for n in pod.networks or ()}

    def is_needed(self, use: Use) -> bool:
        return use.network in self._networks

    def severity(self, uses: Iterable[Use]) -> Severity:
        """Of what any of these uses fails by."""
        return Severity.ERROR if any(map(self.is_needed, uses)) else Severity.WARNING


def kinds(kernel: KernelFacts, uses: tuple[Use, ...], wanted: Wanted) -> Iterator[Diagnosis]:
    """The kernel can make every kind of link that a network asks for."""
    for kind in (kind for kind, is_known in kernel.kinds.items() if not is_known):
        asking = [use for use in uses if kind in (LINK_KINDS.get(use.plugin), use.plugin)]
        yield Diagnosis(
            id="kind-missing",
            severity=wanted.severity(asking),
            sure=Sure.CERTAIN,
            place=f"kernel module {kind}",
            found=f"this kernel has no links of kind {kind}",
            expected=f"the module, for {_networks(asking)}",
            why="their pods do not start on this node",
            run=(f"modprobe {kind}", f"grep -i {kind} /boot/config-$(uname -r)"),
        )


def _networks(uses: Iterable[Use]) -> str:
    """`network a/b`, or `network a/b and 2 more`."""
    first, *more = dict.fromkeys(use.network for use in uses)
    return f"network {first} and {len(more)} more" if more else f"network {first}"


def masters(kernel: KernelFacts, uses: tuple[Use, ...], wanted: Wanted) -> Iterator[Diagnosis]:
    """Every master is there, up, free to be one, and carries what is asked of it. Each is told of once."""
    by_name = {host.link.name: host for host in kernel.links}
    standing: dict[str, list[Use]] = {}
    for use in uses:
        if use.master is not None and not use.is_in_pod:
            standing.setdefault(use.master or kernel.uplink, []).append(use)
    for name, those in standing.items():
        if name in by_name:
            yield from _master(by_name[name], those, kernel, wanted)
            yield from _shared(name, those, wanted)
        else:
            yield _no_master(name, those, wanted)


def _no_master(name: str, uses: list[Use], wanted: Wanted) -> Diagnosis:
    return Diagnosis(
        id="master-missing",
        severity=wanted.severity(uses),
        sure=Sure.CERTAIN,
        place=f'link "{name}"' if name else "default route",
        found="not on this node",
        expected=f"the master of {_networks(uses)}" + ("" if name else ", which names none"),
        why="their pods do not start on this node",
        run=("ip -br link", "ip route show default"),
    )


def _master(host: HostLink, uses: list[Use], kernel: KernelFacts, wanted: Wanted) -> Iterator[Diagnosis]:
    link = host.link
    place = f'link "{link.name}"'
    if not link.up or not link.running:
        yield Diagnosis(
            id="master-down",
            severity=wanted.severity(uses),
            sure=Sure.CERTAIN,
            place=place,
            found="down" if not link.up else "up, without a carrier",
            expected=f"up and running, as {_networks(uses)} stands on it",
            why="pods of the network start and reach nobody; no address can be probed for strangers",
            run=(f"ip link set {link.name} up", f"ethtool {link.name}"),
        )
    above = [use for use in uses if use.plugin in ("macvlan", "ipvlan")]
    if link.master is not None and above:
        bridge = next((h.link.name for h in kernel.links if h.link.index == link.master), str(link.master))
        yield Diagnosis(
            id="master-enslaved",
            severity=wanted.severity(above),
            sure=Sure.CERTAIN,
            place=place,
            found=f'a port of "{bridge}"',
            expected=f"free for the {above[0].plugin} of {_networks(above)}",
            why="the kernel refuses (EBUSY): their pods do not start on this node",
            run=(f"ip -d link show {link.name}", f"# name {bridge} as the master instead"),
        )
    greater = [use for use in uses if use.mtu_bytes > link.mtu_bytes]
    if greater:
        most = max(use.mtu_bytes for use in greater)
        yield Diagnosis(
            id="master-mtu",
            severity=wanted.severity(greater),
            sure=Sure.CERTAIN,
            place=place,
            found=f"an MTU of {link.mtu_bytes}",
            expected=f"{most} at least, as {_networks(greater)} asks for",
            why="a link may not carry more than its master: their pods do not start on this node",
            run=(f"ip link set {link.name} mtu {most}",),
        )


def _shared(name: str, uses: list[Use], wanted: Wanted) -> Iterator[Diagnosis]:
    macvlan = next((use for use in uses if use.plugin == "macvlan"), None)
    ipvlan = next((use for use in uses if use.plugin == "ipvlan"), None)
    if macvlan is not None and ipvlan is not None:
        yield Diagnosis(
            id="master-shared",
            severity=Severity.ERROR if wanted.is_needed(macvlan) and wanted.is_needed(ipvlan) else Severity.WARNING,
            sure=Sure.CERTAIN,
            place=f'link "{name}"',
            found=f"network {macvlan.network} has macvlan and network {ipvlan.network} ipvlan on it",
            expected="one of the two kinds",
            why="the kernel takes whichever came first and refuses the other (EBUSY), until the last of those is gone",
            run=(f"ip -d link show {name}",),
        )


def settings(kernel: KernelFacts, uses: tuple[Use, ...], wanted: Wanted) -> Iterator[Diagnosis]:
    """What the kernel was told about forwarding and ARP goes with the networks."""
    gateways = [use for use in uses if use.plugin == "bridge" and use.is_gateway]
    if gateways and kernel.sysctls.get("net/ipv4/ip_forward") == "0":
        yield Diagnosis(
            id="forwarding-off",
            severity=Severity.WARNING,
            sure=Sure.LIKELY,
            place="sysctl net.ipv4.ip_forward",
            found="0",
            expected=f"1, as the bridge of network {gateways[0].network} is a gateway",
            why="pods reach one another and nobody beyond; the plugin turns it on, so somebody turned it off again",
            run=("sysctl net.ipv4.ip_forward=1", "grep -r ip_forward /etc/sysctl.*"),
        )
    yield from _rp_filter(kernel, uses, wanted)
    yield from _arp_flux(kernel, {use.master or kernel.uplink for use in uses if use.master is not None})


def _rp_filter(kernel: KernelFacts, uses: tuple[Use, ...], wanted: Wanted) -> Iterator[Diagnosis]:
    """New namespaces begin with the node's own (net.core.devconf_inherit_init_net); the greater of the two counts."""
    values = {kernel.sysctls.get(f"net/ipv4/conf/{name}/rp_filter") for name in ("all", "default")}
    by_source = {use.network for use in uses if use.plugin == "sbr"}
    plain = [use for use in uses if use.plugin in LINK_KINDS and use.network not in by_source]
    needed = next(filter(wanted.is_needed, plain), None)
    if needed is not None and "1" in values and "2" not in values:
        yield Diagnosis(
            id="rp-filter-strict",
            severity=Severity.INFO,
            sure=Sure.POSSIBLE,
            place="sysctl net.ipv4.conf.all.rp_filter",
            found="1: strict, and pods begin with it",
            expected=f"2, or sbr behind the plugin of network {needed.network}",
            why="a pod drops what comes from beyond the network's subnet, since its answer would leave by eth0",
            run=("sysctl net.ipv4.conf.all.rp_filter=2",),
        )


def _arp_flux(kernel: KernelFacts, named: set[str]) -> Iterator[Diagnosis]:
    up = [host for host in kernel.links if host.link.up and host.link.name != "lo"]
    for host in up:
        ignored = {kernel.sysctls.get(f"net/ipv4/conf/{name}/arp_ignore") for name in ("all", host.link.name)}
        if host.link.name not in named or ignored - {"0", None}:
            continue
        mine = {address.network for address in host.addresses if address.version == 4}
        for other in up:
            shared = mine & {address.network for address in other.addresses}
            if other is not host and shared:
                yield Diagnosis(
                    id="arp-flux",
                    severity=Severity.INFO,
                    sure=Sure.POSSIBLE,
                    place=f'link "{host.link.name}"',
                    found=f'"{other.link.name}" has an address of {min(map(str, shared))} too, and arp_ignore is 0',
                    expected="one link a subnet, or arp_ignore 1 and arp_announce 2",
                    why="each answers ARP for the other's address, so that neighbours learn the wrong MAC",
                    run=(f"sysctl net.ipv4.conf.{host.link.name}.arp_ignore=1",),
                )


def leftovers(kernel: KernelFacts) -> Iterator[Diagnosis]:
    """No link of the node's own namespace that an executed plugin was making for a pod when it was killed."""
    for host in kernel.links:
        link = host.link
        is_half_made = link.kind in ("macvlan", "ipvlan") and _HALF_MADE.fullmatch(link.name) is not None
        if is_half_made and not link.up and not host.addresses:
            yield Diagnosis(
                id="link-half-made",
                severity=Severity.WARNING,
                sure=Sure.LIKELY,
                place=f'link "{link.name}"',
                found=f"a {link.kind} that is down and has no address, under the passing name of a reference plugin",
                expected="none",
                why="the plugin was killed before it moved the link to its pod; it keeps its master from other kinds",
                run=(f"ip -d link show {link.name}", f"ip link delete {link.name}"),
                repair=RemoveLink(
                    says=f"delete link {link.name}",
                    proof="no pod can have it: it is in the node's own namespace, down and without an address",
                    index=link.index,
                    name=link.name,
                ),
            )
