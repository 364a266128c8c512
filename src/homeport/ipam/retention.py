"""What becomes of an allocation, from proven facts: it stays, is retained, or is released. No I/O.

docs/identity.md R11-R14. Facts that could not be established never reach these functions: their absence is the caller's
to report, and frees nothing (R12).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from homeport.ipam.allocations import Allocation, Phase
from homeport.ipam.identities import ContainerOwner, Replica
from homeport.ipam.moving import HolderFacts, Move, Wait, decide_move
from homeport.ipam.objects import Pod, WorkloadState
from homeport.ipam.pools import Pool
from homeport.ipam.wants import match_allocations


class Keep(msgspec.Struct, frozen=True):
    """Nothing changes. `doubt` says what could not be proven although something looks gone; "" when all is well."""

    doubt: str = ""


class LetGo(msgspec.Struct, frozen=True):
    """The holder is gone: a replica's address is retained, any other released."""

    cause: str


class Release(msgspec.Struct, frozen=True):
    """Nobody keeps the address any more."""

    cause: str


Outcome = Keep | LetGo | Release


def decide_bound(allocation: Allocation, facts: HolderFacts) -> Outcome:
    """A bound allocation whose DEL may have been lost: let go on the proof that would let it move (R8)."""
    if allocation.holder is None:
        return Keep()
    if isinstance(allocation.slot.owner, ContainerOwner):
        # Outside Kubernetes there is no pod to ask for; a namespace that is gone took its interfaces with it.
        gone = facts.netns_exists is False
        return LetGo("the network namespace is gone") if gone else Keep()
    if not (facts.pod_gone or facts.pod_finished):
        return Keep()
    match decide_move(allocation.address, allocation.holder, facts):
        case Move(proof):
            return LetGo(proof)
        case Wait(reason):
            return Keep(reason)
    return Keep(f"its pod is gone, but nobody saw container {allocation.holder.container_id[:13]} end")


def decide_retained(
    allocation: Allocation, workload: WorkloadState | None, pod: Pod | None, now: datetime, *, superseded: bool = False
) -> Outcome:
    """A retained allocation. `workload` and `pod` are what runs under its owner's names now, None for proven absence.

    `retainFor` counts from when the address was let go, and only against replicas that are not wanted any more.
    """
    owner = allocation.slot.owner
    if not isinstance(owner, Replica):
        return Keep()
    if superseded:
        return Release("the slot has other addresses now")
    if pod is not None and not pod.finished:
        return Keep()  # R13: also a pod whose workload is gone
    rule = allocation.retention
    if workload is None:
        return _by_rule(allocation, rule.when_deleted, f"{owner.workload} was deleted", now)
    if rule.adopt == "Never" and allocation.workload_uid not in ("", workload.uid):
        return _by_rule(allocation, rule.when_deleted, f"an earlier {owner.workload} was deleted", now)
    if workload.deleting or workload.wants(owner.ordinal):
        return Keep()
    return _by_rule(allocation, rule.when_scaled, f"{owner.workload} was scaled to leave {owner} out", now)


def is_superseded(allocation: Allocation, pool: Pool, of_slot: Sequence[Allocation]) -> bool:
    """Whether the slot has every address it is to have in use, and this is none of them (E17)."""
    matched = match_allocations(pool, of_slot)
    in_use = [a for a in matched if a is not None and a.phase is Phase.BOUND]
    return bool(matched) and len(in_use) == len(matched) and allocation not in in_use


def _by_rule(allocation: Allocation, rule: str, event: str, now: datetime) -> Outcome:
    if rule == "Release":
        return Release(event)
    limit = allocation.retention.retain_for
    if limit is not None and now - allocation.since >= limit:
        return Release(f"{event}, and was retained for {limit}")
    return Keep()
