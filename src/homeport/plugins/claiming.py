"""Claiming addresses for an interface and letting them go: the loop around the pure decisions.

Facts are read through ports, `ipam.deciding` decides, the store agrees or not; on a conflict the facts are read again
until the deadline. Every verb is keyed by (container ID, ifname) and safe to repeat (docs/identity.md R6, R7).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial

import msgspec

from homeport.cni.invocations import Attachment
from homeport.cni.netconfs import NetConf
from homeport.ipam.allocations import Allocation, Phase, released
from homeport.ipam.attaches import Attach
from homeport.ipam.deciding import (
    AlreadyHeld,
    Create,
    Examine,
    Exhausted,
    Facts,
    Search,
    Take,
    Taken,
    Want,
    decide,
)
from homeport.ipam.foreseeing import held_for, next_want
from homeport.ipam.identities import ContainerOwner, Holder, Owner, PodOwner, Slot
from homeport.ipam.moving import Wait
from homeport.ipam.objects import Pod, WorkloadState
from homeport.ipam.policies import Policy
from homeport.ipam.pools import Pool
from homeport.ipam.ranges import merge_spans
from homeport.ipam.replicas import replica_of
from homeport.ipam.slices import slice_start
from homeport.ipam.wants import mapped_to, wants_of
from homeport.model.addresses import IPAddress, MacAddress
from homeport.model.errors import AddressTaken, CniError, PoolExhausted, TryAgainLater, WaitingForRelease
from homeport.model.names import AttachmentKey, PodRef
from homeport.multinet.ipam_claims import Claimed
from homeport.plugins import whereabouts_conf
from homeport.plugins.proving import examine, probing_link, stranger_at
from homeport.ports import AllocationStore, AlreadyExists, Clock, Cluster, Conflict, Place, Shells

CLAIM_SECONDS = 10.0
_CANDIDATES = 8  # asked for at once, so that a race for the lowest address costs no further question
_UNDONE = "undone: the attachment failed"
_CONFIG_SOURCE = "kubernetes.io/config.source"


class Claimant(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks: the slot, what will hold its addresses, and what the cluster said of the pod."""

    slot: Slot
    holder: Holder
    pod: Pod | None = None
    state: WorkloadState | None = None


def claimant_of(conf: NetConf, attachment: Attachment, shells: Shells, policy: Policy | None) -> Claimant:
    """Reads who asks from CNI_ARGS and the cluster. Without a cluster a pod is only itself, never a replica.

    Where nothing belongs to replicas (no policy), the cluster is not asked. Raises `TryAgainLater` when it knows no
    such pod, or only another one of the same name.
    """
    ref, uid = _pod_named(attachment)
    pod = state = None
    owner: Owner = ContainerOwner(attachment.container_id)
    if ref is not None:
        owner = PodOwner(ref.namespace, ref.name, uid or attachment.container_id)
    if ref is not None and policy is not None and shells.cluster is not None:
        pod = _pod_now(ref, uid, shells.cluster)
        uid = uid or pod.uid
        replica = replica_of(pod, policy.kinds)
        owner = replica or PodOwner(ref.namespace, ref.name, uid)
        state = shells.cluster.workload(replica.workload) if replica is not None else None
    holder = Holder(
        container_id=attachment.container_id,
        ifname=attachment.ifname,
        netns_path=attachment.netns_path or "",
        node=shells.node,
        pod_uid=uid,
    )
    return Claimant(slot=Slot(owner, conf.name, attachment.ifname), holder=holder, pod=pod, state=state)


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """One interface's claim on a pool, and what it may act on. `deadline` is on the clock's monotonic scale.

    `avoid` are addresses the interface has from elsewhere; `claimed` are what an IPAMClaim gives it.
    """

    pool: Pool
    claimant: Claimant
    conf: NetConf
    attachment: Attachment
    shells: Shells
    store: AllocationStore
    deadline: float
    avoid: tuple[IPAddress, ...] = ()
    claimed: Claimed | None = None


def claim(asked: Claim) -> tuple[Allocation, ...]:
    """One bound allocation for each range of the pool, in its order: all or none (R6).

    Runs inside `shells.host.operation()`, where every change is undone if that fails: a replica's address is retained,
    any other released. Raises `AddressTaken`, `PoolExhausted`, `WaitingForRelease` with what it waits for, or
    `TryAgainLater`.
    """
    claimant = asked.claimant
    pod = claimant.pod
    wants = wants_of(
        asked.pool,
        claimant.slot,
        claimant.holder,
        state=claimant.state,
        annotations=pod.annotations if pod is not None else {},
        workload_uid=pod.owner.uid if pod is not None and pod.owner is not None else "",
        avoid=asked.avoid,
    )
    if asked.claimed is not None:
        wants = mapped_to(wants, asked.claimed.addresses, source=f'IPAMClaim "{asked.claimed.claim}"')
    known = asked.store.of_slot(claimant.slot, likely=_likely(wants))
    bound: list[Allocation] = []
    for want in wants:
        bound.append(_claim_range(asked, want, known, bound))
    _release_surplus(asked, known, bound)
    asked.shells.on_attach(Attach(slot=claimant.slot, before=known, after=tuple(bound), link=_node_link(asked)))
    return tuple(bound)


def release(store: AllocationStore, clock: Clock, attachment: Attachment, network: str, *, cause: str) -> None:
    """Lets go of all that this interface holds on the network; nothing is success (R7)."""
    deadline = clock.monotonic() + CLAIM_SECONDS
    while True:
        held = held_by(store, attachment, network)
        if all([_let_go(store, clock, allocation, cause) for allocation in held]):
            return
        if clock.monotonic() >= deadline:
            addresses = ", ".join(str(allocation.address) for allocation in held)
            raise TryAgainLater(f"release {addresses}: still contended at the deadline")


def held_by(store: AllocationStore, attachment: Attachment, network: str) -> tuple[Allocation, ...]:
    """What this interface holds on the network."""
    held = store.of_holder(attachment.container_id, attachment.ifname)
    return tuple(allocation for allocation in held if allocation.slot.network == network)


def release_except(
    store: AllocationStore, clock: Clock, node: str, network: str, valid: frozenset[AttachmentKey]
) -> tuple[CniError, ...]:
    """GC: lets go of what interfaces of this node and network hold that are not in `valid`. What failed is returned."""
    failed: list[CniError] = []
    for allocation in store.of_node(node):
        holder = allocation.holder
        if holder is None or allocation.slot.network != network:
            continue
        if AttachmentKey(network, holder.container_id, holder.ifname) in valid:
            continue
        try:
            # A conflict means that it has changed since it was listed; the next GC sees what it is now.
            _let_go(store, clock, allocation, "not among the runtime's valid attachments")
        except CniError as e:
            failed.append(e)
    return tuple(failed)


def sticky_mac(conf: NetConf, attachment: Attachment, shells: Shells) -> MacAddress | None:
    """The MAC that moves with this interface's addresses (R9); None for what is no replica, or has none yet.

    To be asked after the IPAM plugin's ADD: before it, the address may still have another holder.
    """
    for allocation in _recorded(conf, attachment, shells):
        if allocation.slot.workload is not None and allocation.mac is not None:
            return allocation.mac
    return None


def record_mac(conf: NetConf, attachment: Attachment, shells: Shells, mac: MacAddress) -> None:
    """Notes the MAC the interface has, so that it moves with the addresses (R9). Repeating it writes nothing."""
    for allocation in _recorded(conf, attachment, shells):
        if allocation.slot.workload is None or allocation.mac == mac or allocation.holder is None:
            continue
        holder = msgspec.structs.replace(allocation.holder, mac=mac)
        noted = msgspec.structs.replace(allocation, mac=mac, holder=holder)
        try:
            _store_of(conf, shells).replace(noted, cause="MAC noted")
        except Conflict as e:
            raise TryAgainLater(f"note MAC {mac} of {allocation.address}: changed at the same time") from e


def _node_link(asked: Claim) -> str | None:
    """The link of the node on which others of the network can be asked for an address, now and later."""
    if asked.conf.raw.get("linkInContainer") is True:
        return None
    with suppress(CniError):
        return probing_link(asked.conf, asked.shells)
    return None


def _likely(wants: Sequence[Want]) -> Sequence[Place]:
    """Where each range's address most likely is; empty unless that can be said of all of them."""
    places = [(w.scope, w.mapped or w.preferred) for w in wants]
    known = [(scope, address) for scope, address in places if address is not None]
    return known if len(known) == len(places) else ()


def _claim_range(asked: Claim, want: Want, known: Sequence[Allocation], earlier: Sequence[Allocation]) -> Allocation:
    """Facts, decision, act; again until one of them is final. `earlier` are those of the ranges before this one."""
    served = [(a.scope, a.address) for a in earlier]
    want = next_want(want, served)
    facts = Facts(held=held_for(asked.pool, known, served))
    attempts = 0
    while asked.shells.clock.monotonic() < asked.deadline:
        try:
            match decide(want, facts):
                case AlreadyHeld(allocation):
                    return allocation
                case Take(previous, cause):
                    return _take(asked, want, previous, cause)
                case Create(address, cause):
                    return _create(asked, want, address, cause)
                case Examine(allocation):
                    move = examine(
                        allocation, want.holder, asked.claimant.pod, asked.conf, asked.attachment, asked.shells
                    )
                    facts = msgspec.structs.replace(facts, move=move)
                case Search():
                    free = _candidates(asked, want)
                    # What is offered again has been given back since it was looked at.
                    present = {a: p for a, p in facts.present.items() if a not in free}
                    facts = msgspec.structs.replace(facts, free=free, present=present)
                case Wait(reason):
                    raise WaitingForRelease(f"wait for {_of(facts.held, want)}: {reason}")
                case Taken(by):
                    raise AddressTaken(_taken(want, by))
                case Exhausted():
                    raise PoolExhausted(f"allocate from {want.range}: all {want.range.usable} addresses are taken")
        except AlreadyExists as e:
            facts = msgspec.structs.replace(facts, present={**facts.present, e.present.address: e.present})
        except Conflict:
            attempts += 1
            asked.shells.clock.sleep(min(0.001 * 2**attempts, 0.1))
            facts = Facts(held=held_for(asked.pool, asked.store.of_slot(want.slot), served))
    raise TryAgainLater(f"allocate from {want.range} for {want.slot}: still contended at the deadline")


def _create(asked: Claim, want: Want, address: IPAddress, cause: str) -> Allocation:
    # The undoing is noted first: an error of the disk may leave the change behind all the same.
    asked.shells.host.on_undo(partial(_undo, asked, want.scope, address, None))
    return asked.store.create(want.bound(None, address, asked.shells.clock.now()), cause=cause)


def _take(asked: Claim, want: Want, previous: Allocation, cause: str) -> Allocation:
    asked.shells.host.on_undo(partial(_undo, asked, previous.scope, previous.address, previous.holder))
    bound = asked.store.replace(want.bound(previous, previous.address, asked.shells.clock.now()), cause=cause)
    if bound.version == previous.version:
        # A node's store that could not ask (E20): while it was cut off, the address may have been passed on.
        mac = stranger_at(bound.address, asked.conf, asked.attachment, asked.shells)
        if mac is not None:
            raise WaitingForRelease(f"wait for {bound.address} of {want.slot}: {mac} answers for it")
    return bound


def _undo(asked: Claim, scope: str, address: IPAddress, holder: Holder | None) -> None:
    """Lets go of the address again, or gives it back to the `holder` it was taken from: its DEL is still to come."""
    now = asked.store.get(scope, address)
    if now is None or not now.is_held_by(asked.attachment.container_id, asked.attachment.ifname):
        return
    if holder is None:
        _let_go(asked.store, asked.shells.clock, now, _UNDONE)
        return
    with suppress(Conflict):
        asked.store.replace(msgspec.structs.replace(now, holder=holder), cause=_UNDONE)


def _let_go(store: AllocationStore, clock: Clock, allocation: Allocation, cause: str) -> bool:
    """Takes the holder from this version of an allocation; False when another version is stored by now."""
    left = released(allocation, at=clock.now())
    try:
        if left is None:
            store.delete(allocation, cause=cause)
        else:
            store.replace(left, cause=cause)
    except Conflict:
        return False
    return True


def _release_surplus(asked: Claim, known: Sequence[Allocation], bound: Sequence[Allocation]) -> None:
    """Deletes what the slot kept beside the addresses it now has: a map or a range has changed (E17)."""
    addresses = {(a.scope, a.address) for a in bound}
    for allocation in known:
        if allocation.phase is Phase.RETAINED and (allocation.scope, allocation.address) not in addresses:
            asked.shells.host.on_undo(partial(_keep_surplus, asked.store, allocation))
            # A conflict means somebody is at work on it; what is still surplus then, the reconciler finds.
            with suppress(Conflict):
                asked.store.delete(allocation, cause="replaced by " + ", ".join(str(a.address) for a in bound))


def _keep_surplus(store: AllocationStore, allocation: Allocation) -> None:
    with suppress(AlreadyExists):
        store.create(allocation, cause=_UNDONE)


def _candidates(asked: Claim, want: Want) -> tuple[IPAddress, ...]:
    excluding = merge_spans([*want.range.withheld, *want.withheld])
    near = slice_start(want.range, asked.pool.slice_prefix, asked.shells.node)
    return asked.store.lowest_free(want.scope, want.range.span, excluding, count=_CANDIDATES, near=near)


def _pod_named(attachment: Attachment) -> tuple[PodRef | None, str]:
    """The pod of CNI_ARGS and its UID, "" when it is not given."""
    namespace, name = attachment.args.get("K8S_POD_NAMESPACE", ""), attachment.args.get("K8S_POD_NAME", "")
    ref = PodRef(namespace, name) if namespace and name else None
    return ref, attachment.args.get("K8S_POD_UID", "")


def _pod_now(ref: PodRef, uid: str, cluster: Cluster) -> Pod:
    pod = cluster.pod(ref)
    if pod is None:
        raise TryAgainLater(f"look up pod {ref}: not found in the cluster")
    # A static pod's UID is its node's own; the API server knows only its mirror.
    is_static = pod.annotations.get(_CONFIG_SOURCE, "api") != "api"
    if uid and pod.uid != uid and not is_static:
        raise TryAgainLater(f"look up pod {ref}: found UID {pod.uid}, expected {uid}: the pod was replaced")
    return pod


def _recorded(conf: NetConf, attachment: Attachment, shells: Shells) -> tuple[Allocation, ...]:
    """What this interface holds in our store."""
    return held_by(_store_of(conf, shells), attachment, conf.name)


def _store_of(conf: NetConf, shells: Shells) -> AllocationStore:
    ipam = whereabouts_conf.merged_ipam(conf, shells.files)
    return shells.open_allocations(whereabouts_conf.store_path(ipam))


def _of(held: Allocation | None, want: Want) -> str:
    return f"{held.address} of {want.slot}" if held is not None else f"an address of {want.range} for {want.slot}"


def _taken(want: Want, by: Allocation) -> str:
    holder = f", in container {by.holder.container_id} on node {by.holder.node}" if by.holder is not None else ""
    return f"allocate {by.address} for {want.slot}: {by.phase.value} for {by.slot}{holder}"
