"""What the kernel says of a node's links and settings, and of interfaces that ADD made in pods. I/O: netlink, /proc.

Whether the kernel knows a kind of link is asked in a way that makes none; its module may be loaded by that, as an ADD
would load it.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path

from homeport.cni import conflists, versions
from homeport.cni.conflists import ConfList
from homeport.doctor.facts import Attached, HostLink, KernelFacts
from homeport.host.kernel import Kernel
from homeport.model.addresses import IPAddress, IPInterface
from homeport.model.errors import CniError, MissingLink
from homeport.plugins.masters import default_route_link
from homeport.plugins.registry import LINK_KINDS
from homeport.runtime import pooling
from homeport.runtime.caching import CachedAttachment, ResultCache

_LINK_MAKERS = frozenset({*LINK_KINDS, "ptp", "vlan"})
SETTINGS = (
    "net/ipv4/ip_forward",
    "net/ipv4/conf/all/arp_ignore",
    "net/ipv4/conf/all/rp_filter",
    "net/ipv4/conf/default/rp_filter",
)


def gather(host: Kernel, plugins: Collection[str]) -> KernelFacts:
    """`plugins` are the types that networks use. Raises `CniError`."""
    links = host.links()
    uplink = default_route_link(host.routes()) or ""
    kinds = sorted({LINK_KINDS[name] for name in plugins if name in LINK_KINDS} | _bridge(plugins))
    # A name with a dot would need another way to be written in a setting's path; VLANs' parents tell enough.
    arp = [f"net/ipv4/conf/{link.name}/arp_ignore" for link in links if "." not in link.name and link.name != "lo"]
    return KernelFacts(
        links=tuple(HostLink(link=link, addresses=_addresses(host, link.name)) for link in links),
        kinds={kind: host.supports_kind(kind) for kind in kinds},
        sysctls={key: host.read_sysctl(key) for key in (*SETTINGS, *arp)},
        uplink=uplink,
    )


def _bridge(plugins: Collection[str]) -> set[str]:
    return {"bridge"} if "bridge" in plugins else set()


def _addresses(host: Kernel, link: str) -> tuple[IPInterface, ...]:
    """Those of a link that has gone meanwhile are none."""
    try:
        return tuple(found.address for found in host.addresses(link))
    except MissingLink:
        return ()


def attached(host: Kernel, results: ResultCache) -> tuple[tuple[Attached, ...], tuple[tuple[str, str], ...]]:
    """(the interfaces by the results that are kept, what of those cannot be read and why). Raises `CniError`."""
    found, unreadable = results.all()
    broken = [(f"a result in {results.directory}", str(e)) for e in unreadable]
    seen: list[Attached] = []
    for entry in found:
        try:
            seen.append(_attached(host, entry, results.path(entry.key)))
        except CniError as e:
            broken.append((f"{results.path(entry.key)}", str(e)))
    return tuple(seen), tuple(broken)


def _attached(host: Kernel, entry: CachedAttachment, path: Path) -> Attached:
    """A result of a plugin that makes no interface of its own (loopback's, say) has no addresses to look for."""
    result = entry.decoded_result(versions.CURRENT)
    elsewhere = {n for n, one in enumerate(result.interfaces) if one.name != entry.key.ifname}
    network = _network(entry.config)
    is_there = bool(entry.netns_path) and host.namespace_exists(entry.netns_path or "")
    namespace, name = entry.args.get("K8S_POD_NAMESPACE", ""), entry.args.get("K8S_POD_NAME", "")
    return Attached(
        key=entry.key,
        netns=entry.netns_path or "",
        pod=f"{namespace}/{name}" if namespace and name else "",
        pod_uid=entry.args.get("K8S_POD_UID", ""),
        age_seconds=_age_seconds(path),
        is_there=is_there,
        wanted=frozenset(ip.address.ip for ip in result.ips if ip.interface not in elsewhere),
        found=_found(host, entry.key.ifname, entry.netns_path) if is_there and entry.netns_path else None,
        has_pool=network is not None and _has_pool(network),
        makes_link=network is not None and any(plugin.get("type") in _LINK_MAKERS for plugin in network.plugins),
    )


def _network(config: bytes) -> ConfList | None:
    """None for one that cannot be read: entries of old runtimes have none."""
    try:
        return conflists.parse(config)
    except CniError:
        return None


def _has_pool(network: ConfList) -> bool:
    """No for a network that does not say so itself: its ranges may be in a file of Whereabouts'."""
    try:
        pool = pooling.pool_of(network)
    except CniError:
        return False
    return pool is not None and bool(pool.ranges)


def _age_seconds(path: Path) -> float:
    """Of a result that goes meanwhile, as if it had just come."""
    try:
        return max(0.0, time.time() - path.stat().st_mtime)
    except OSError:
        return 0.0


def _found(host: Kernel, ifname: str, netns: str) -> frozenset[IPAddress] | None:
    try:
        return frozenset(found.address.ip for found in host.addresses(ifname, netns))
    except MissingLink:
        return None
