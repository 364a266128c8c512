"""Checks of what interfaces have against what results, claims and the cluster say. No I/O.

The daemon keeps these the same by itself, every ten seconds (docs/daemon.md). What is found here has outlasted that, or
there is no daemon.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime, timedelta

from homeport.doctor.facts import Attached, SeenPod, Site
from homeport.doctor.findings import Diagnosis, Severity, Sure
from homeport.doctor.repairs import TakeDown
from homeport.ipam.allocations import Allocation, Phase
from homeport.ipam.objects import STATIC_HASH
from homeport.ports import Place
from homeport.stores.claims import HeldClaim, State

_SETTLED = timedelta(seconds=30)  # after which the daemon has compared a claim with the cluster
_UNTOLD = timedelta(seconds=60)
_SETTLED_SECONDS = 60.0
_LOOK_AT_DAEMON = "journalctl -u homeportd --since -10min"


def interfaces(attached: Iterable[Attached]) -> Iterator[Diagnosis]:
    """What ADD gave an interface is on it."""
    for one in attached:
        lost = one.wanted - (one.found or frozenset())
        if one.is_there and lost and (one.found is not None or one.makes_link):
            who = one.pod or f"container {one.key.container_id}"
            what = "no such link" if one.found is None else f"without {', '.join(sorted(map(str, lost)))}"
            yield Diagnosis(
                id="interface-lost",
                severity=Severity.ERROR,
                sure=Sure.LIKELY,  # a pod may change its own addresses
                place=f"{one.key.ifname} of {who}",
                found=what,
                expected=f"{', '.join(sorted(map(str, one.wanted)))}, as its ADD left it",
                why=f"the pod is cut off from network {one.key.network}; only a new sandbox gives it back",
                run=(
                    f"nsenter --net={one.netns} ip address show",
                    *([f"kubectl -n {one.pod.replace('/', ' delete pod ')}"] if one.pod else []),
                ),
            )


def results(site: Site, attached: Iterable[Attached], pods: Iterable[SeenPod]) -> Iterator[Diagnosis]:
    """Each is of a pod that is there. One container's are told once."""
    known = {uid for seen in pods for uid in (seen.pod.uid, *_static(seen))}
    told: set[str] = set()
    for one in attached:
        is_settled = one.age_seconds > _SETTLED_SECONDS
        if not one.pod_uid or one.pod_uid in known or not is_settled or one.key.container_id in told:
            continue
        told.add(one.key.container_id)
        yield _namespace_left(one) if one.is_there else _result_left(site, one)


def _static(seen: SeenPod) -> tuple[str, ...]:
    found = seen.pod.annotations.get(STATIC_HASH)
    return (found,) if found else ()


def _namespace_left(one: Attached) -> Diagnosis:
    return Diagnosis(
        id="namespace-left",
        severity=Severity.WARNING,
        sure=Sure.LIKELY,
        place=one.netns,
        found=f"the network of pod {one.pod}, which is gone",
        expected="none",
        why="its interfaces still answer for their addresses; the runtime has not taken it down",
        run=(f"crictl pods --id {one.key.container_id}", f"crictl stopp {one.key.container_id}"),
    )


def _result_left(site: Site, one: Attached) -> Diagnosis:
    can = bool(site.generated)
    return Diagnosis(
        id="result-left",
        severity=Severity.WARNING,
        sure=Sure.LIKELY,
        place=f"container {one.key.container_id}",
        found=f"a result of pod {one.pod}, which is gone, and so is its namespace",
        expected="none",
        why="no DEL came for it, so that what its plugins wrote down elsewhere (host-local's addresses) is still taken",
        run=(_LOOK_AT_DAEMON,),
        repair=TakeDown(
            says=f"have the daemon take down container {one.key.container_id}",
            proof="the API server knows no such pod, and its namespace is gone",
            container_id=one.key.container_id,
            netns=one.netns,
            socket=site.socket,
            config=site.generated,
        )
        if can
        else None,
    )


def held(
    site: Site,
    claims: Iterable[HeldClaim],
    allocations: Mapping[Place, Allocation],
    *,
    passing: Collection[Place],
    now: datetime,
) -> Iterator[Diagnosis]:
    """What interfaces of this node have is theirs in the cluster, and the other way round."""
    claimed = {claim.place: claim for claim in claims}
    known = {*claimed, *passing}
    for place, claim in claimed.items():
        if now - claim.at < _SETTLED:
            continue
        if claim.is_pending:
            yield from _untold(claim, now)
        elif claim.state is State.BOUND and not _is_same(claim, allocations.get(place)):
            yield _contested(claim, allocations.get(place))
    for place, one in allocations.items():
        is_ours = one.phase is Phase.BOUND and one.holder is not None and one.holder.node == site.node
        if is_ours and place not in known and now - one.since > _SETTLED:
            yield _unaccounted(one)


def guarded(
    site: Site, attached: Iterable[Attached], claims: Iterable[HeldClaim], allocations: Iterable[Allocation]
) -> Iterator[Diagnosis]:
    """Every interface on a network with ranges has an address that is known to be its.

    Not looked at where Whereabouts itself gives addresses, or beside us did: those are in its own objects.
    """
    if "whereabouts" in site.exec_types or site.whereabouts_namespace:
        return
    holders = [claim.allocation.holder for claim in claims] + [one.holder for one in allocations]
    known = {(holder.container_id, holder.ifname) for holder in holders if holder is not None}
    for one in attached:
        is_settled = one.is_there and one.age_seconds > _SETTLED_SECONDS
        if one.has_pool and is_settled and (one.key.container_id, one.key.ifname) not in known:
            yield Diagnosis(
                id="address-unguarded",
                severity=Severity.ERROR,
                sure=Sure.LIKELY,
                place=f"{one.key.ifname} of {one.pod or f'container {one.key.container_id}'}",
                found=f"{', '.join(sorted(map(str, one.wanted)))}, and no allocation of it",
                expected="an allocation that is Bound to it",
                why="the next pod may be given the address too",
                run=("kubectl get ipallocations", "homeport migrate --help"),
            )


def filed(
    site: Site, allocations: Mapping[Place, Allocation], attached: Iterable[Attached], now: datetime
) -> Iterator[Diagnosis]:
    """As `held`, where allocations are in a file: every one of this node's is of an interface that ADD made here."""
    known = {(one.key.container_id, one.key.ifname) for one in attached}
    for one in allocations.values():
        holder = one.holder
        if holder is None or holder.node != site.node or now - one.since <= _SETTLED:
            continue
        if (holder.container_id, holder.ifname) not in known:
            yield _unaccounted(one)


def _is_same(claim: HeldClaim, present: Allocation | None) -> bool:
    return present is not None and claim.is_of(present)


def _contested(claim: HeldClaim, present: Allocation | None) -> Diagnosis:
    mine = claim.allocation
    where = f"{mine.slot.ifname} of {mine.slot.owner}"
    found = "free" if present is None else f"{present.phase.value}, of {present.slot.owner}"
    return Diagnosis(
        id="address-conflict" if present is not None else "address-unguarded",
        severity=Severity.ERROR,
        sure=Sure.CERTAIN,
        place=f"address {mine.address} in the cluster",
        found=found,
        expected=f"Bound, of {where}, which has it",
        why="two pods may use it" if present is not None else "the next pod may be given it too",
        run=(f"homeport who {mine.address}", _LOOK_AT_DAEMON),
    )


def _untold(claim: HeldClaim, now: datetime) -> Iterator[Diagnosis]:
    age = now - claim.at
    if age > _UNTOLD:
        yield Diagnosis(
            id="claim-untold",
            severity=Severity.WARNING,
            sure=Sure.CERTAIN,
            place=f"address {claim.allocation.address}",
            found=f"{claim.state.value} for {age.total_seconds() / 60:.0f} min: the API server has not been told",
            expected="told at once",
            why="nobody else can have the address until it is; `homeport ips` shows it as in use",
            run=(_LOOK_AT_DAEMON,),
        )


def _unaccounted(one: Allocation) -> Diagnosis:
    return Diagnosis(
        id="allocation-unaccounted",
        severity=Severity.WARNING,
        sure=Sure.LIKELY,
        place=f"address {one.address}",
        found=f"Bound to {one.slot.ifname} of {one.slot.owner} on this node, which has no record of it",
        expected="a record, or a free address",
        why="it is kept for an interface that may be gone; the daemon adopts it or lets it go",
        run=(_LOOK_AT_DAEMON, f"homeport who {one.address}"),
    )


def unreadable(found: Iterable[tuple[str, str]]) -> Iterator[Diagnosis]:
    """Everything that was there could be decoded."""
    for what, why in found:
        yield Diagnosis(
            id="entry-unreadable",
            severity=Severity.ERROR,
            sure=Sure.CERTAIN,
            place=what,
            found=why,
            expected="what Homeport writes",
            why="nothing is freed by it or given again: what it is about stays taken",
            run=(f"kubectl get {what} -o yaml" if what.startswith("ipallocation ") else f"ls -l {what}",),
        )
