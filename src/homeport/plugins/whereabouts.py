"""The whereabouts IPAM plugin: addresses of ranges, unique in the cluster, and kept for replicas.

Whereabouts' configuration and results, Homeport's identity rules (docs/identity.md). Acts only on the allocation store.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from homeport.cni.invocations import Attachment
from homeport.cni.netconfs import VALID_ATTACHMENTS, NetConf
from homeport.ipam.allocations import Allocation
from homeport.ipam.pools import PoolRange
from homeport.ipam.wants import match_allocations
from homeport.model.errors import CniError, Drift, InvalidNetConf, PluginNotAvailable, SeveralErrors, TryAgainLater
from homeport.model.results import IPConfig, Result
from homeport.plugins import claiming, whereabouts_conf
from homeport.plugins.whereabouts_conf import WhereaboutsConf
from homeport.plugins.whereabouts_log import open_log
from homeport.ports import AllocationStore, Shells

TYPE = whereabouts_conf.TYPE


def add(conf: NetConf, attachment: Attachment, shells: Shells) -> Result:
    """One address of each range, then those given in full. The same call again gives the same addresses (R7)."""
    ipam = whereabouts_conf.merged_ipam(conf, shells.files)
    log = open_log(ipam, conf.name, attachment, shells.files)
    with log.failures_of("ADD"), shells.host.operation():
        wanted = whereabouts_conf.parse(conf, attachment, ipam)
        bound: tuple[Allocation, ...] = ()
        if wanted.pool.ranges:
            bound = claiming.claim(_asked(conf, attachment, shells, wanted))
        result = _result(wanted, bound)
        for allocation in bound:
            log.info("address allocated", address=str(allocation.address), owner=str(allocation.slot.owner))
    return result


def delete(conf: NetConf, attachment: Attachment, shells: Shells) -> None:
    """Lets go of every address this interface holds, whatever the ranges are by now."""
    ipam = whereabouts_conf.merged_ipam(conf, shells.files)
    log = open_log(ipam, conf.name, attachment, shells.files)
    with log.failures_of("DEL"):
        store = shells.open_allocations(whereabouts_conf.store_path(ipam))
        claiming.release(store, shells.clock, attachment, conf.name, cause="DEL")
        log.info("addresses released")


def check(conf: NetConf, attachment: Attachment, shells: Shells) -> None:
    """Raises `Drift` unless the store, the configuration and prevResult agree on this interface's addresses."""
    ipam = whereabouts_conf.merged_ipam(conf, shells.files)
    if conf.prev_result is None:
        raise InvalidNetConf('key "prevResult": missing, expected the result of ADD')
    log = open_log(ipam, conf.name, attachment, shells.files)
    with log.failures_of("CHECK"):
        wanted = whereabouts_conf.parse(conf, attachment, ipam)
        store = shells.open_allocations(wanted.store)
        held = claiming.held_by(store, attachment, conf.name)
        found = {ip.address for ip in conf.prev_result.ips}
        for pooled, allocation in zip(wanted.pool.ranges, match_allocations(wanted.pool, held), strict=True):
            if allocation is None:
                raise Drift(_missing(store, pooled, conf.prev_result, attachment))
            expected = pooled.range.interface(allocation.address)
            if expected not in found:
                raise Drift(f"check {attachment.ifname}: expected {expected} in prevResult, found {_listed(found)}")
        for ip in wanted.static:
            if ip.address not in found:
                raise Drift(f"check {attachment.ifname}: expected {ip.address} in prevResult, found {_listed(found)}")


def gc(conf: NetConf, attachment: Attachment, shells: Shells) -> None:
    """Lets go of what interfaces of this node that the runtime does not know hold here; goes on past errors."""
    if conf.valid_attachments is None:
        raise InvalidNetConf(f'key "{VALID_ATTACHMENTS}": missing, expected the attachments that are to stay')
    ipam = whereabouts_conf.merged_ipam(conf, shells.files)
    with open_log(ipam, conf.name, attachment, shells.files).failures_of("GC"):
        store = shells.open_allocations(whereabouts_conf.store_path(ipam))
        failed = claiming.release_except(store, shells.clock, shells.node, conf.name, conf.valid_attachments)
        if failed:
            raise SeveralErrors(failed)


def status(conf: NetConf, attachment: Attachment, shells: Shells) -> None:
    """Raises `PluginNotAvailable` when the store refuses. One that is away may be back before the next pod, and pods
    that had addresses here need not wait for that (docs/identity.md E20).
    """
    ipam = whereabouts_conf.merged_ipam(conf, shells.files)
    wanted = whereabouts_conf.parse(conf, attachment, ipam)
    try:
        store = shells.open_allocations(wanted.store)
        for pooled in wanted.pool.ranges:
            store.get(pooled.scope, pooled.range.first)
    except TryAgainLater:
        return
    except CniError as e:
        raise PluginNotAvailable(f"ask the allocation store: {e.msg}", e.details) from e


def _asked(conf: NetConf, attachment: Attachment, shells: Shells, wanted: WhereaboutsConf) -> claiming.Claim:
    return claiming.Claim(
        pool=wanted.pool,
        claimant=claiming.claimant_of(conf, attachment, shells, wanted.pool.policy),
        conf=conf,
        attachment=attachment,
        shells=shells,
        store=shells.open_allocations(wanted.store),
        deadline=shells.clock.monotonic() + claiming.CLAIM_SECONDS,
        avoid=tuple(ip.address.ip for ip in wanted.static),
        claimed=wanted.claimed,
    )


def _result(wanted: WhereaboutsConf, bound: Sequence[Allocation]) -> Result:
    ips = [
        IPConfig(address=pooled.range.interface(allocation.address), gateway=pooled.range.gateway)
        for pooled, allocation in zip(wanted.pool.ranges, bound, strict=True)
    ]
    return Result(ips=(*ips, *wanted.static), routes=wanted.routes, dns=wanted.dns)


def _missing(store: AllocationStore, pooled: PoolRange, result: Result, attachment: Attachment) -> str:
    """What is wrong when the interface holds nothing in a range, naming who has the address it uses."""
    place = f"check {attachment.ifname}: expected an allocation of {pooled.range} to {attachment.container_id}"
    for ip in result.ips:
        if ip.address.ip in pooled.range.span:
            present = store.get(pooled.scope, ip.address.ip)
            owner = f"{present.phase.value} for {present.slot}" if present is not None else "allocated to nobody"
            return f"{place}, found {ip.address.ip} {owner}"
    return f"{place}, found none"


def _listed(addresses: Collection[object]) -> str:
    return ", ".join(sorted(str(address) for address in addresses)) or "none"
