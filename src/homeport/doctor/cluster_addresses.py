"""Checks of a cluster's addresses against its pods and nodes. No I/O.

What was read is a moment's: a pod that has just ended may still have an address, one that has just started may have
none yet. So no check looks at what changed within the last minutes, and none is certain of what may be under way.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from homeport.doctor.cluster_facts import SeenPod, SeenSlot
from homeport.doctor.cluster_wording import controller_logs, first_of
from homeport.doctor.findings import Diagnosis, Severity, Sure
from homeport.ipam.allocations import Allocation, Phase
from homeport.ipam.identities import PodOwner, Replica
from homeport.ipam.objects import STATIC_HASH, NodeState
from homeport.ipam.pools import Pool, PoolRange
from homeport.ipam.ranges import Range
from homeport.ipam.whereabouts import ForeignPool, is_ours, split_scope
from homeport.model.addresses import IPAddress
from homeport.model.errors import CniError
from homeport.model.names import PodRef
from homeport.multinet import selections
from homeport.stores.kubernetes import names
from homeport.stores.kubernetes.wire import Record

SETTLED = timedelta(minutes=3)  # after which nothing of a pod's start or end should be under way
_OLD_SLOT = timedelta(hours=1)
_NEARLY = 0.9


def holders(
    records: Sequence[Record],
    pods: Sequence[SeenPod],
    nodes: Mapping[str, NodeState],
    namespace: str,
    now: datetime,
) -> Iterator[Diagnosis]:
    """Every Bound address is of a pod that is there and runs; those of one node are told together."""
    known = {seen.pod.ref: seen.pod for seen in pods}
    gone: dict[str, list[Allocation]] = {}
    for record in records:
        allocation = record.allocation
        ref, holder = _pod_of(allocation), allocation.holder
        if holder is None or ref is None or not _is_settled(record, now):
            continue
        pod = known.get(ref)
        if pod is None or not pod.is_known_as(holder.pod_uid) or pod.finished:
            gone.setdefault(holder.node, []).append(allocation)
    for node, held in sorted(gone.items()):
        state = nodes.get(node)
        found = f"{_listed(held)}: in use, by pods that are gone or ended"
        run: tuple[str, ...]
        if state is not None and state.ready and not state.out_of_service:
            expected = "released by the node's daemon"
            why = "the daemon there does not run, or cannot reach the API server; the addresses are free for nobody"
            run = ("homeport doctor    # on that node", f"homeport explain {_pod_of(held[0])}")
        elif state is not None and not state.out_of_service:
            expected = "a node that is ready, or proof that it is off"
            why = "nothing proves that the containers have stopped, so that their addresses stay theirs"
            taint = "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"
            run = (
                f"kubectl describe node {node}",
                f"kubectl taint node {node} {taint}    # once it is off for certain",
            )
        else:
            expected = "retained or freed by the controller"
            why = "the node is gone or out of service, which is proof enough; the controller does not act on it"
            run = (controller_logs(namespace),)
        yield Diagnosis(
            id="holder-gone",
            severity=Severity.WARNING,
            sure=Sure.LIKELY,
            place=f"node {node}",
            found=found,
            expected=expected,
            why=why,
            run=run,
        )


def unserved(
    records: Sequence[Record],
    pods: Sequence[SeenPod],
    pools: Mapping[str, Pool],
    foreign: Sequence[ForeignPool],
    now: datetime,
) -> Iterator[Diagnosis]:
    """Every running pod that selects a network with a pool has an address of ours, or of Whereabouts' on a node that
    has not moved yet; `pools` by NAMESPACE/NAME.
    """
    elsewhere = {entry.podref for pool in foreign for entry in pool.entries.values()}
    served = {r.allocation.holder.pod_uid for r in records if r.allocation.holder is not None}
    nodes_serving = Counter(r.allocation.holder.node for r in records if r.allocation.holder is not None)
    lacking: dict[str, list[PodRef]] = {}
    for seen in pods:
        pod = seen.pod
        is_asking = seen.is_running and not seen.on_host_network and not pod.deleting and pod.node
        is_served = pod.uid in served or pod.annotations.get(STATIC_HASH) in served or str(pod.ref) in elsewhere
        if is_asking and not is_served and _is_old(seen, now) and _wants_pool(seen, pools):
            lacking.setdefault(pod.node, []).append(pod.ref)
    for node, refs in sorted(lacking.items()):
        is_whole_node = not nodes_serving[node]
        yield Diagnosis(
            id="node-not-served" if is_whole_node else "pod-without-allocation",
            severity=Severity.ERROR if is_whole_node else Severity.WARNING,
            sure=Sure.LIKELY,
            place=f"node {node}",
            found=f"{_named(refs)}: running on networks with ranges, and no address there is theirs"
            + (", nor any other of this node" if is_whole_node else ""),
            expected="an allocation for each of their interfaces",
            why="whatever addresses they have, somebody else may be given the same: another meta-plugin, Whereabouts or"
            " a daemon with a file of its own attached them",
            run=("homeport doctor    # on that node", f"kubectl -n {refs[0].namespace} describe pod {refs[0].name}"),
        )


def quarantined(records: Sequence[Record]) -> Iterator[Diagnosis]:
    """An address that somebody answered for is given to nobody."""
    for record in records:
        if record.allocation.phase is Phase.QUARANTINED:
            address = record.allocation.address
            yield Diagnosis(
                id="address-quarantined",
                severity=Severity.WARNING,
                sure=Sure.CERTAIN,
                place=f"ipallocation {_name(record.allocation)}",
                found=f"Quarantined: {record.cause or 'no cause noted'}",
                expected="an address that nobody answers for",
                why="lost to its range until somebody releases it; the machine that answers has it from elsewhere",
                run=(f"homeport who {address}", f"homeport release {address}"),
            )


def ranges(records: Sequence[Record], pools: Mapping[str, Pool]) -> Iterator[Diagnosis]:
    """Every range has addresses left; one that several networks share is told once."""
    by_scope: dict[str, list[Allocation]] = {}
    for record in records:
        by_scope.setdefault(record.allocation.scope, []).append(record.allocation)
    for listed in by_scope.values():
        listed.sort(key=_place)
    sharing: dict[PoolRange, list[str]] = {}
    for name, pool in sorted(pools.items()):
        for pooled in pool.ranges:
            sharing.setdefault(pooled, []).append(name)
    for pooled, networks in sharing.items():
        taken = _within(pooled.range, by_scope.get(pooled.scope, ()))
        usable = pooled.range.usable
        if usable and len(taken) >= _NEARLY * usable:
            yield _filling(pooled, networks, taken, usable)


def _within(range_: Range, ordered: Sequence[Allocation]) -> Sequence[Allocation]:
    """Those of the range; there may be many networks, and very many allocations."""
    begin = bisect_left(ordered, _key(range_.first), key=_place)
    end = bisect_right(ordered, _key(range_.last), key=_place)
    return [a for a in ordered[begin:end] if a.address in range_]


def _place(allocation: Allocation) -> tuple[int, int]:
    return _key(allocation.address)


def _key(address: IPAddress) -> tuple[int, int]:
    return address.version, int(address)


def _filling(pooled: PoolRange, networks: Sequence[str], taken: Sequence[Allocation], usable: int) -> Diagnosis:
    free = usable - len(taken)
    phases = Counter(a.phase.value for a in taken)
    counted = ", ".join(f"{count} {phase}" for phase, count in sorted(phases.items()))
    return Diagnosis(
        id="range-full" if free <= 0 else "range-nearly-full",
        severity=Severity.WARNING if free <= 0 else Severity.INFO,
        sure=Sure.CERTAIN,
        place=f"range {pooled.range.span} of {first_of(networks)}",
        found=f"{max(free, 0)} of {usable} addresses free: {counted}",
        expected="room for the next pod, and for a rolling update",
        why="the next pod without an address of its own stays in ContainerCreating"
        if free <= 0
        else "it will be full soon",
        run=("homeport ips --phase Retained", "homeport release ADDRESS    # of a replica that will not come back"),
    )


def slots(found: Sequence[SeenSlot], records: Sequence[Record], namespace: str, now: datetime) -> Iterator[Diagnosis]:
    """Each IPSlot is of some use, and each replica's address is in one."""
    placed = {(r.allocation.scope, r.allocation.address): r.allocation.slot for r in records}
    idle = [
        seen.name
        for seen in found
        if seen.created is not None
        and now - seen.created > _OLD_SLOT
        and not any(placed.get(place) == seen.slot for place in seen.places)
    ]
    if idle:
        yield Diagnosis(
            id="slots-of-no-use",
            severity=Severity.INFO,
            sure=Sure.POSSIBLE,
            place="ipslots",
            found=f"{first_of(idle)}: none of their places is theirs",
            expected="cleared away ten minutes after the last address went",
            why="they cost nothing but room; many of them tell that no controller works",
            run=(controller_logs(namespace),),
        )
    noted = {(seen.slot, place) for seen in found for place in seen.places}
    lost = [
        record.allocation
        for record in records
        if record.allocation.slot.workload is not None
        and _is_settled(record, now)
        and (record.allocation.slot, (record.allocation.scope, record.allocation.address)) not in noted
    ]
    if lost:
        yield Diagnosis(
            id="slot-missing",
            severity=Severity.WARNING,
            sure=Sure.LIKELY,
            place="ipslots",
            found=f"{_listed(lost)}: of replicas whose IPSlot does not name them",
            expected="written by the controller within its next look at everything",
            why="a replica that starts finds its addresses by its IPSlot, and would take a second one",
            run=(controller_logs(namespace),),
        )


def whereabouts(foreign: Sequence[ForeignPool], records: Sequence[Record]) -> Iterator[Diagnosis]:
    """Whereabouts, where it still gives addresses out, knows of ours, and of none that is ours as its own."""
    ours = [r.allocation for r in records if r.allocation.phase is Phase.BOUND]
    for pool in foreign:
        shared = [a for a in ours if a.address in pool.subnet and split_scope(a.scope)[0] in ("", pool.prefix)]
        theirs = {address: e for address, e in pool.entries.items() if not is_ours(e)}
        contested = [a for a in shared if a.address in theirs and theirs[a.address].podref != str(_pod_of(a))]
        for allocation in contested:
            entry = theirs[allocation.address]
            yield Diagnosis(
                id="address-contested",
                severity=Severity.ERROR,
                sure=Sure.LIKELY,
                place=f"ipallocation {_name(allocation)}",
                found=f'Bound to {allocation.slot.owner}; IPPool "{pool.name}" has it for {entry.podref or "no pod"}',
                expected="one owner",
                why="two interfaces use one address, and each gets a part of the other's traffic",
                run=(f"homeport who {allocation.address}", "kubectl delete pod POD    # one of the two"),
            )
        if theirs and shared and not any(is_ours(e) for e in pool.entries.values()):
            yield Diagnosis(
                id="whereabouts-unaware",
                severity=Severity.ERROR,
                sure=Sure.LIKELY,
                place=f"ippool {pool.name}",
                found=f"{len(theirs)} addresses of Whereabouts' own, and none of the {len(shared)} of Homeport's",
                expected="every address of Homeport's in it too, while both give addresses out",
                why="Whereabouts gives out what Homeport has given already",
                run=(
                    "homeport migrate whereabouts --help",
                    "# key whereaboutsNamespace of daemons and controller: docs/migration.md",
                ),
            )


def _wants_pool(seen: SeenPod, pools: Mapping[str, Pool]) -> bool:
    """Whether the pod selects a network that has a pool; a selection that cannot be read selects nothing."""
    try:
        wanted = selections.parse(seen.networks, seen.pod.ref.namespace, ordinal=0) if seen.networks.strip() else ()
    except CniError:
        return False
    return any(f"{one.namespace}/{one.name}" in pools for one in wanted)


def _pod_of(allocation: Allocation) -> PodRef | None:
    owner = allocation.slot.owner
    if isinstance(owner, Replica):
        return owner.pod
    return PodRef(owner.namespace, owner.name) if isinstance(owner, PodOwner) else None


def _is_settled(record: Record, now: datetime) -> bool:
    return now - (record.changed or record.allocation.since) > SETTLED


def _is_old(seen: SeenPod, now: datetime) -> bool:
    return seen.started is not None and now - seen.started > SETTLED


def _name(allocation: Allocation) -> str:
    return names.allocation_name(allocation.scope, allocation.address)


def _listed(allocations: Iterable[Allocation]) -> str:
    return first_of([f"{a.address} ({a.slot.owner})" for a in allocations])


def _named(refs: Iterable[PodRef]) -> str:
    return first_of([str(ref) for ref in refs])
