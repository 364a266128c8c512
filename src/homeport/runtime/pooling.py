"""What a pod would get on each network it selects: the pools behind its annotation. No I/O.

The same reading serves whoever looks at a cluster from outside: the commands, the lab's controller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from homeport.cni import conflists, documents
from homeport.cni.conflists import ConfList
from homeport.ipam.pools import Pool, parse_pool
from homeport.ipam.ranges import parse_interface
from homeport.model.addresses import IPInterface
from homeport.model.errors import CniError, NoSuchObject
from homeport.multinet import capabilities, ipam_claims, requests, selections
from homeport.multinet.ipam_claims import Claimed, IpamClaim
from homeport.multinet.selections import NetworkSelection
from homeport.ports import NetworkDefinition

POOLED = "whereabouts"
"""The IPAM type whose section describes a pool of ours."""

Find = Callable[[str, str], NetworkDefinition | None]
FindClaim = Callable[[str, str], IpamClaim | None]
Ipam = Mapping[str, Any]
Filled = Callable[[Mapping[str, Any]], Ipam]


class Interface(msgspec.Struct, frozen=True, kw_only=True):
    """One secondary interface that a pod asks for.

    `pool` is what its addresses come from, and `claimed` which of them an IPAMClaim says it is to have; `fixed` those
    that the configuration or the pod itself gives in full. `ipam` is the type of the IPAM plugin, "" without one.
    `claim` names an IPAMClaim that could not be asked for. `wire` names the link of the node that it is on, "" where
    none is named: what is on one wire must differ.
    """

    definition: str
    ifname: str
    network: ConfList
    pool: Pool | None = None
    claimed: Claimed | None = None
    fixed: tuple[IPInterface, ...] = ()
    ipam: str = ""
    claim: str = ""
    wire: str = ""


class _Fixed(msgspec.Struct, frozen=True):
    address: str


class _FixedKeys(msgspec.Struct, frozen=True):
    addresses: tuple[_Fixed, ...] = ()


def network_of(definition: NetworkDefinition) -> ConfList:
    """The definition's configuration; raises with its name. An empty one stands in a file of every node."""
    if not definition.config.strip():
        raise NoSuchObject(f'read network "{definition}": its configuration is in a file of the nodes, not here')
    try:
        return conflists.parse(definition.config.encode(), default_name=definition.name)
    except CniError as error:
        error.msg = f'network "{definition}": {error.msg}'
        raise


def _as_written(plugin: Mapping[str, Any]) -> Ipam:
    return _ipam(plugin)


def pool_of(network: ConfList, filled: Filled = _as_written) -> Pool | None:
    """The pool of the first plugin that has one; None when no address of the network is from a pool of ours.

    `filled` gives a plugin's ipam section, with whatever a node's own defaults add. Raises `InvalidNetConf`.
    """
    for plugin in network.plugins:
        if _ipam_type(plugin) == POOLED:
            return parse_pool(filled(plugin), network=network.name)
    return None


def pools_of(
    definitions: Iterable[NetworkDefinition], filled: Filled = _as_written
) -> Sequence[tuple[NetworkDefinition, Pool]]:
    """Those that have a pool of ours. One that cannot be read has none: the pods that want it are told why."""
    found = []
    for definition in definitions:
        with suppress(CniError):
            pool = pool_of(network_of(definition), filled)
            if pool is not None:
                found.append((definition, pool))
    return found


def interfaces_of(
    annotation: str, namespace: str, ordinal: int | None, find: Find, find_claim: FindClaim | None = None
) -> tuple[Interface, ...]:
    """The interfaces in order, numbered behind the pod's default network; `namespace` is the pod's.

    Raises `NoSuchObject` for a network or a claim that is not there, and what a selection or configuration that cannot
    be right raises. Without `find_claim` nobody is asked for claims.
    """
    wanted = selections.parse(annotation, namespace, ordinal=ordinal)
    found = []
    for index, selection in enumerate(wanted, start=1):
        name = f"{selection.namespace}/{selection.name}"
        definition = find(selection.namespace, selection.name)
        if definition is None:
            raise NoSuchObject(f'find network "{name}": no such NetworkAttachmentDefinition')
        network = network_of(definition)
        capabilities.require_honoured(name, network, selection)
        try:
            claimed = _claimed(selection, namespace, network, name, find_claim)
            found.append(_interface(name, network, selection, index, claimed))
        except CniError as error:
            error.msg = f'network "{name}": {error.msg}'
            raise
    return tuple(found)


def _claimed(
    selection: NetworkSelection, namespace: str, network: ConfList, name: str, find_claim: FindClaim | None
) -> Claimed | None:
    if selection.ipam_claim is None or find_claim is None:
        return None
    claim = find_claim(namespace, selection.ipam_claim)
    if claim is None:
        raise NoSuchObject(f'find IPAMClaim "{namespace}/{selection.ipam_claim}": no such object')
    return ipam_claims.claimed_of({"args": {"cni": ipam_claims.cni_args(claim, network, name)}})


def _interface(
    name: str, network: ConfList, selection: NetworkSelection, index: int, claimed: Claimed | None
) -> Interface:
    pool = pool_of(network)
    section = next((p for p in network.plugins if _ipam_type(p)), {})
    return Interface(
        definition=name,
        ifname=requests.ifname_of(selection, index),
        network=network,
        pool=pool,
        claimed=claimed,
        fixed=tuple(_fixed(_ipam(section), selection, pool)),
        ipam=_ipam_type(section),
        claim=selection.ipam_claim or "" if claimed is None else "",
        wire=_wire(network.plugins),
    )


def _fixed(ipam: Ipam, selection: NetworkSelection, pool: Pool | None) -> Iterable[IPInterface]:
    """As the plugins read them: what the pod asks for replaces a static network's own, and adds to a pool's."""
    asked = [ip for ip in (_with_prefix(ip, pool) for ip in selection.ips) if ip is not None]
    kind = ipam.get("type")
    if kind == "static" and asked:
        return asked
    listed = documents.convert(ipam, _FixedKeys, at="ipam").addresses if kind in ("static", POOLED) else ()
    configured = [parse_interface(item.address, f"ipam.addresses[{n}].address") for n, item in enumerate(listed)]
    return [*configured, *(asked if kind == POOLED else ())]


def _with_prefix(ip: Any, pool: Pool | None) -> IPInterface | None:
    """None for a bare address of no range: its plugin refuses or ignores it."""
    if hasattr(ip, "network"):
        interface: IPInterface = ip
        return interface
    return next((r.interface(ip) for r in (pool.plain_ranges if pool else ()) if ip in r.subnet), None)


def _ipam(plugin: Mapping[str, Any]) -> Ipam:
    section = plugin.get("ipam")
    return section if isinstance(section, Mapping) else {}


def _ipam_type(plugin: Mapping[str, Any]) -> str:
    kind = _ipam(plugin).get("type", "")
    return kind if isinstance(kind, str) else documents.shown(kind)


def _wire(plugins: Sequence[Mapping[str, Any]]) -> str:
    for plugin in plugins:
        for key in ("master", "bridge"):
            if isinstance(plugin.get(key), str) and plugin[key]:
                vlan = plugin.get("vlan")
                return f"{plugin[key]}.{vlan}" if isinstance(vlan, int) and vlan else str(plugin[key])
    return ""
