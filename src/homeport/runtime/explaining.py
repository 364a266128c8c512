"""Why a pod has, gets or waits for its addresses: the facts and the decision of its next ADD. Changes nothing.

The same decision as on the node, from the same facts as far as they can be had elsewhere: whether a namespace is still
there, and whether anybody answers on the wire, only a node can tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from homeport.ipam import foreseeing
from homeport.ipam.allocations import Allocation, Retention
from homeport.ipam.deciding import Want
from homeport.ipam.foreseeing import Foreseen
from homeport.ipam.identities import Holder, PodOwner, Replica, Slot, Workload
from homeport.ipam.moving import HolderFacts, Move, ProbeFirst, Wait, decide_move
from homeport.ipam.objects import NodeState, Pod, WorkloadState
from homeport.ipam.policies import RETENTION, map_for, retention_for
from homeport.ipam.ranges import merge_spans
from homeport.ipam.replicas import judge
from homeport.ipam.wants import mapped_to, wants_of
from homeport.model.addresses import IPAddress
from homeport.model.errors import CniError, NoSuchObject
from homeport.model.names import PodRef
from homeport.multinet import selections
from homeport.ports import AllocationStore, Cluster
from homeport.runtime import pooling
from homeport.runtime.pooling import Find, FindClaim, Interface

_RULES = ("whenScaled", "whenDeleted", "retainFor", "adopt")


class HolderStory(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an address's holder (R8)."""

    holder: Holder
    pod: Pod | None
    node: NodeState | None
    outcome: Move | Wait | ProbeFirst


class RangeStory(msgspec.Struct, frozen=True, kw_only=True):
    """One range: what the slot wants of it, what it has, what stands at the one address that matters, what comes next.

    `present` are the allocations at the mapped or preferred address; None for none. An outcome of `Examine` hangs on a
    probe that only a node can send.
    """

    want: Want
    held: Allocation | None
    present: Mapping[IPAddress, Allocation | None]
    outcome: Foreseen
    holder: HolderStory | None = None


class InterfaceStory(msgspec.Struct, frozen=True, kw_only=True):
    """One interface. `why_not` says why its addresses do not belong to a replica, "" when they do; `error` is what ADD
    would fail with before it looks for an address. `retention` is each rule with its value and where that comes from.
    """

    interface: Interface
    slot: Slot
    why_not: str
    map_source: str = ""
    ranges: tuple[RangeStory, ...] = ()
    retention: tuple[tuple[str, str, str], ...] = ()
    error: str = ""


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """A pod's. `pod` is None where there is none by now: it is then told of the replica that would have its name."""

    ref: PodRef
    pod: Pod | None
    state: WorkloadState | None
    interfaces: tuple[InterfaceStory, ...]
    error: str = ""


def explain(
    ref: PodRef, store: AllocationStore, cluster: Cluster, find: Find, find_claim: FindClaim | None = None
) -> Story:
    """Raises `NoSuchObject` when there is neither the pod nor a StatefulSet that could have it."""
    pod = cluster.pod_now(ref)
    judged = judge(pod) if pod is not None else _would_be(ref)
    replica = judged if isinstance(judged, Replica) else None
    state = cluster.workload(replica.workload) if replica is not None else None
    if pod is None and state is None:
        raise NoSuchObject(f'find pod "{ref}": there is none, and no StatefulSet that would have it')
    annotations = pod.annotations if pod is not None else state.annotations if state is not None else {}
    try:
        interfaces = pooling.interfaces_of(
            annotations.get(selections.ANNOTATION, ""),
            ref.namespace,
            replica.ordinal if replica is not None else None,
            find,
            find_claim,
        )
    except CniError as error:
        return Story(ref=ref, pod=pod, state=state, interfaces=(), error=str(error))
    teller = _Teller(ref, pod, store, cluster)
    return Story(ref=ref, pod=pod, state=state, interfaces=tuple(teller.interface(i) for i in interfaces))


def _would_be(ref: PodRef) -> Replica | str:
    name, _, ordinal = ref.name.rpartition("-")
    if not name or not ordinal.isascii() or not ordinal.isdigit() or len(ordinal) > 10:
        return "its name is no replica's"
    return Replica(Workload(ref.namespace, "StatefulSet", name), int(ordinal))


class _Teller:
    """Tells of one pod's interfaces."""

    def __init__(self, ref: PodRef, pod: Pod | None, store: AllocationStore, cluster: Cluster) -> None:
        self._ref = ref
        self._pod = pod
        self._store = store
        self._cluster = cluster

    def interface(self, interface: Interface) -> InterfaceStory:
        pool, pod = interface.pool, self._pod
        kinds = pool.policy.kinds if pool is not None and pool.policy is not None else ()
        judged = judge(pod, kinds) if pod is not None else _would_be(self._ref)
        if story_claim := interface.claim:
            return InterfaceStory(
                interface=msgspec.structs.replace(interface, pool=None),
                slot=Slot(PodOwner(self._ref.namespace, self._ref.name, ""), interface.network.name, interface.ifname),
                why_not=f'IPAMClaim "{story_claim}" says which, and nobody here knows it',
            )
        if pool is None or not pool.ranges:
            judged = "its addresses are from no pool of ours"
        elif pool.policy is None:
            judged = 'its network says "sticky": false'
        owner = judged if isinstance(judged, Replica) else None
        uid = pod.uid if pod is not None else ""
        slot = Slot(
            owner or PodOwner(self._ref.namespace, self._ref.name, uid), interface.network.name, interface.ifname
        )
        story = InterfaceStory(interface=interface, slot=slot, why_not="" if owner else str(judged))
        if pool is None:
            return story
        try:
            return self._with_ranges(story, slot, owner)
        except CniError as error:
            return msgspec.structs.replace(story, error=str(error))

    def _with_ranges(self, story: InterfaceStory, slot: Slot, owner: Replica | None) -> InterfaceStory:
        pool, pod = story.interface.pool, self._pod
        assert pool is not None
        state = self._cluster.workload(owner.workload) if owner is not None else None
        annotations = state.annotations if state is not None else pod.annotations if pod is not None else {}
        if owner is not None and pool.policy is not None:
            ranges = pool.plain_ranges
            found = map_for(
                pool.policy, owner.workload, annotations, network=slot.network, ifname=slot.ifname, ranges=ranges
            )
            rule = retention_for(pool.policy, owner.workload, annotations)
            story = msgspec.structs.replace(
                story,
                map_source=found.source if found is not None else "",
                retention=tuple(_sources(rule, story.interface, annotations)),
            )
        uid = state.uid if state is not None else pod.owner.uid if pod is not None and pod.owner is not None else ""
        wants = wants_of(
            pool,
            slot,
            self._claimant(slot),
            state=state,
            annotations=annotations,
            workload_uid=uid,
            avoid=[address.ip for address in story.interface.fixed],
        )
        claimed = story.interface.claimed
        if claimed is not None:
            wants = mapped_to(wants, claimed.addresses, source=f'IPAMClaim "{claimed.claim}"')
        known = self._store.of_slot(slot)
        told: list[RangeStory] = []
        earlier: list[tuple[str, IPAddress]] = []
        for want in wants:
            held = foreseeing.held_for(pool, known, earlier)
            told.append(self._range(foreseeing.next_want(want, earlier), held))
            address = _address_of(told[-1].outcome)
            if address is None:
                break
            earlier.append((want.scope, address))
        return msgspec.structs.replace(story, ranges=tuple(told))

    def _range(self, want: Want, held: Allocation | None) -> RangeStory:
        board = _Board(self._store, self)
        outcome = foreseeing.foresee(want, held, board)
        places = [address for address in (want.mapped or want.preferred,) if address is not None]
        present = {address: self._store.get(want.scope, address) for address in places}
        return RangeStory(want=want, held=held, present=present, outcome=outcome, holder=board.holder)

    def _claimant(self, slot: Slot) -> Holder:
        uid = self._pod.uid if self._pod is not None else ""
        return Holder(container_id="", ifname=slot.ifname, netns_path="", node="", pod_uid=uid)

    def holder(self, allocation: Allocation, claimant: Holder) -> HolderStory:
        """The facts of R8, as far as the API server knows them."""
        holder = allocation.holder
        assert holder is not None
        gone = bool(holder.pod_uid) and (self._pod is None or self._pod.uid != holder.pod_uid)
        node = self._cluster.node(holder.node)
        facts = HolderFacts(
            same_pod=bool(holder.pod_uid) and holder.pod_uid == claimant.pod_uid,
            pod_gone=gone,
            pod_finished=not gone and self._pod is not None and self._pod.finished,
            node_gone=node is None,
            node_out_of_service=node is not None and node.out_of_service,
        )
        outcome = decide_move(allocation.address, holder, facts)
        return HolderStory(holder=holder, pod=self._pod, node=node, outcome=outcome)


class _Board:
    """Allocations as they stand; keeps what was found out about a holder."""

    def __init__(self, store: AllocationStore, teller: _Teller) -> None:
        self._store = store
        self._teller = teller
        self.holder: HolderStory | None = None

    def get(self, scope: str, address: IPAddress) -> Allocation | None:
        return self._store.get(scope, address)

    def free(self, want: Want, count: int) -> Sequence[IPAddress]:
        excluding = merge_spans([*want.range.withheld, *want.withheld])
        return self._store.lowest_free(want.scope, want.range.span, excluding, count=count)

    def move(self, allocation: Allocation, want: Want) -> Move | Wait | None:
        if allocation.holder is None:  # quarantined: whether the stranger is still there, a probe tells
            return None
        self.holder = self._teller.holder(allocation, want.holder)
        return None if isinstance(self.holder.outcome, ProbeFirst) else self.holder.outcome


def _address_of(outcome: Foreseen) -> IPAddress | None:
    """The address that the outcome gives; None where ADD ends there."""
    for place in ("address", "previous", "allocation"):
        found = getattr(outcome, place, None)
        if isinstance(found, Allocation):
            return found.address
        if found is not None:
            address: IPAddress = found
            return address
    return None


def _sources(rule: Retention, interface: Interface, annotations: Mapping[str, str]) -> Sequence[tuple[str, str, str]]:
    """Each rule of retention: its key, its value, and who says so (R11)."""
    annotated = _keys(msgspec.json.decode(annotations[RETENTION])) if RETENTION in annotations else set()
    network = {key for plugin in interface.network.plugins for key in _keys(_sticky(plugin))}
    values = {
        "whenScaled": rule.when_scaled,
        "whenDeleted": rule.when_deleted,
        "retainFor": "without limit" if rule.retain_for is None else str(rule.retain_for),
        "adopt": rule.adopt,
    }
    said = {
        key: f"annotation {RETENTION}" if key in annotated else "the network" if key in network else "default"
        for key in _RULES
    }
    return [(key, values[key], said[key]) for key in _RULES]


def _sticky(plugin: Mapping[str, Any]) -> Any:
    ipam = plugin.get("ipam")
    return ipam.get("sticky") if isinstance(ipam, Mapping) else None


def _keys(section: Any) -> set[str]:
    return set(section) if isinstance(section, Mapping) else set()
