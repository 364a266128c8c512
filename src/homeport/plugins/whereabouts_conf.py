"""Whereabouts' ipam section as a value: pool, what else goes into the result, and where the records are.

Reads the flat file with defaults; everything else here is pure. Keys that only steer the original's own storage
(`kubernetes`, `leader_*`, `datastore`, `etcd_*`, ...) are accepted and mean nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Literal

import msgspec

from homeport.cni import documents, netconfs, versions
from homeport.cni.invocations import Attachment
from homeport.cni.netconfs import NetConf
from homeport.ipam.pools import Pool, parse_pool
from homeport.ipam.ranges import parse_address, parse_interface
from homeport.model.addresses import IPInterface
from homeport.model.errors import InvalidNetConf
from homeport.model.results import DNS, IPConfig, Route
from homeport.multinet import ipam_claims
from homeport.multinet.ipam_claims import Claimed
from homeport.ports import Files

TYPE = "whereabouts"

FLAT_FILES = (
    "/etc/kubernetes/cni/net.d/whereabouts.d/whereabouts.conf",
    "/etc/cni/net.d/whereabouts.d/whereabouts.conf",
    "/host/etc/cni/net.d/whereabouts.d/whereabouts.conf",
)

LogLevel = Literal["debug", "verbose", "info", "warning", "error", "panic", ""]


class _Static(msgspec.Struct, frozen=True):
    address: str
    gateway: str = ""


class _Keys(msgspec.Struct, frozen=True):
    """What is neither the pool's nor a result's. The log's keys are checked here and read by `whereabouts_log`."""

    addresses: tuple[_Static, ...] = ()
    log_file: str = ""
    log_level: LogLevel = ""


class WhereaboutsConf(msgspec.Struct, frozen=True, kw_only=True):
    """`static` are the addresses given in full, which belong to no pool. `store` is as `store_path` gives it. `claimed`
    are those of an IPAMClaim, which the pool is to give.
    """

    pool: Pool
    store: str | None = None
    static: tuple[IPConfig, ...] = ()
    claimed: Claimed | None = None
    routes: tuple[Route, ...] = ()
    dns: DNS = DNS()


def parse(conf: NetConf, attachment: Attachment, ipam: Mapping[str, Any]) -> WhereaboutsConf:
    """`ipam` is the section as `merged_ipam` gives it. Raises `InvalidNetConf` naming key and value."""
    pool = parse_pool(ipam, network=conf.name)
    keys = documents.convert(ipam, _Keys, at="ipam")
    given = {key: ipam[key] for key in ("routes", "dns") if key in ipam}
    shared = versions.decode_result(given, versions.CURRENT, at="ipam", error=InvalidNetConf)
    static = (*_configured(keys.addresses), *_from_args(attachment.args, pool))
    _require_room(static, conf)
    return WhereaboutsConf(
        pool=pool,
        store=store_path(ipam),
        static=static,
        claimed=ipam_claims.claimed_of(conf.raw),
        routes=shared.routes,
        dns=shared.dns,
    )


def merged_ipam(conf: NetConf, files: Files) -> Mapping[str, Any]:
    """The ipam section with the empty keys filled from the first flat file there is; none is nothing amiss."""
    ipam = conf.ipam
    if ipam is None:
        raise InvalidNetConf('key "ipam": missing, expected an object of type "whereabouts"')
    if ipam.get("type") != TYPE:
        raise InvalidNetConf(f'key "ipam.type": found {documents.shown(ipam.get("type"))}, expected "{TYPE}"')
    own = ipam.get("configuration_path")
    paths = [own] if isinstance(own, str) and own else []
    for path in (*paths, *FLAT_FILES):
        contents = files.read(path)
        if contents is not None:
            defaults = documents.decode_object(contents, f"whereabouts configuration {path}")
            return {**defaults, **{key: value for key, value in ipam.items() if _is_set(key, value)}}
    return ipam


def filled_ipam(plugin: Mapping[str, Any], files: Files) -> Mapping[str, Any]:
    """As `merged_ipam`, of a plugin's object as it stands in a network's list."""
    return merged_ipam(netconfs.parse({**plugin, "name": "unnamed", "cniVersion": versions.CURRENT}), files)


def store_path(ipam: Mapping[str, Any]) -> str | None:
    """Where the allocations are: an absolute path, or None for the default."""
    path = ipam.get("store")
    if path is None:
        return None
    if not isinstance(path, str) or "\0" in path or not PurePosixPath(path).is_absolute():
        raise InvalidNetConf(f'key "ipam.store": found {documents.shown(path)}, expected an absolute path')
    return path


def _is_set(key: str, value: object) -> bool:
    """Whether the network's own value stands. `false` is a value of the two keys that default to true."""
    if key in ("enable_overlapping_ranges", "sticky"):
        return value is not None
    return bool(value)


def _configured(addresses: Sequence[_Static]) -> Sequence[IPConfig]:
    found = []
    for n, item in enumerate(addresses):
        address = parse_interface(item.address, f"ipam.addresses[{n}].address")
        gateway = parse_address(item.gateway, f"ipam.addresses[{n}].gateway") if item.gateway else None
        if gateway is not None and gateway.version != address.version:
            raise InvalidNetConf(
                f'key "ipam.addresses[{n}].gateway": found {gateway}, expected an IPv{address.version} address'
            )
        found.append(IPConfig(address=address, gateway=gateway))
    return found


def _from_args(args: Mapping[str, str], pool: Pool) -> Sequence[IPConfig]:
    """CNI_ARGS `IP` and `GATEWAY`: lists joined by commas."""
    gateways = [parse_address(text, "CNI_ARGS GATEWAY") for text in _listed(args.get("GATEWAY", ""))]
    found = []
    for text in _listed(args.get("IP", "")):
        address = parse_interface(text, "CNI_ARGS IP") if "/" in text else _with_prefix(text, pool)
        gateway = next((g for g in gateways if g in address.network), None)
        found.append(IPConfig(address=address, gateway=gateway))
    return found


def _with_prefix(text: str, pool: Pool) -> IPInterface:
    """A bare address, as Multus sends it, with the prefix of the range it is in."""
    address = parse_address(text, "CNI_ARGS IP")
    for range_ in pool.plain_ranges:
        if address in range_.subnet:
            return range_.interface(address)
    raise InvalidNetConf(f'key "CNI_ARGS IP": found "{text}", expected a prefix with it, as no range contains it')


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _require_room(static: Sequence[IPConfig], conf: NetConf) -> None:
    """Results before 0.3.0 hold one address a family."""
    if versions.at_least(conf.cni_version, "0.3.0"):
        return
    for family in (4, 6):
        count = sum(ip.address.version == family for ip in static)
        if count > 1:
            raise InvalidNetConf(
                f'key "ipam.addresses": found {count} IPv{family} addresses, '
                f'expected one at most with cniVersion "{conf.cni_version}"'
            )
