"""What becomes of an allocation: the decision tables of docs/identity.md R11-R14."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

import msgspec
import pytest

from homeport.ipam.allocations import Allocation, Phase, Retention
from homeport.ipam.identities import ContainerOwner, Holder, Owner, PodOwner, Replica, Slot, Workload
from homeport.ipam.moving import HolderFacts
from homeport.ipam.objects import Pod, WorkloadState
from homeport.ipam.pools import parse_pool
from homeport.ipam.retention import Keep, LetGo, Release, decide_bound, decide_retained, is_superseded
from homeport.model.names import PodRef

NOW = datetime(2026, 1, 10, tzinfo=UTC)
WEB = Workload("ns", "StatefulSet", "web")
HOLDER = Holder(container_id="0123456789abcdef", ifname="net1", netns_path="/run/netns/x", node="n1", pod_uid="u1")


def allocation(
    number: int = 12, owner: Owner | None = None, phase: Phase = Phase.RETAINED, **changes: Any
) -> Allocation:
    base = Allocation(
        scope="",
        address=ip_address(f"10.0.0.{number}"),
        slot=Slot(owner or Replica(WEB, 2), "net", "net1"),
        phase=phase,
        holder=HOLDER if phase is Phase.BOUND else None,
        since=NOW - timedelta(hours=72),
        version=1,
    )
    return msgspec.structs.replace(base, **changes)


def state(replicas: int = 3, **changes: Any) -> WorkloadState:
    base = WorkloadState(workload=WEB, uid="w1", replicas=replicas)
    return msgspec.structs.replace(base, **changes)


def pod(phase: Any = "Running") -> Pod:
    return Pod(ref=PodRef("ns", "web-2"), uid="u9", phase=phase)


def rule(**changes: Any) -> Retention:
    return Retention(**changes)


SCALED = "ns/StatefulSet/web was scaled to leave ns/web-2 out"
DELETED = "ns/StatefulSet/web was deleted"
EARLIER = "an earlier ns/StatefulSet/web was deleted"


@pytest.mark.parametrize(
    ("retention", "workload", "running", "expected"),
    [
        (rule(), state(), None, Keep()),
        (rule(), state(2), None, Keep()),  # R11: whenScaled Retain is the default
        (rule(when_scaled="Release"), state(2), None, Release(SCALED)),  # E9
        (rule(when_scaled="Release"), state(3), None, Keep()),
        (rule(when_scaled="Release"), state(2), pod(), Keep()),  # R13
        (rule(when_scaled="Release"), state(2), pod("Failed"), Release(SCALED)),  # R14
        (rule(when_scaled="Release"), state(2, deleting=True), None, Keep()),  # E10: foreground, not gone yet
        (rule(when_scaled="Release"), state(3, ordinals_start=3), None, Release(SCALED)),  # E14
        (rule(when_scaled="Release"), state(1, ordinals_start=2), None, Keep()),
        (rule(), None, None, Release(DELETED)),  # R11: whenDeleted Release is the default
        (rule(), None, pod(), Keep()),  # E11, R13: orphaned, and running
        (rule(), None, pod("Succeeded"), Release(DELETED)),
        (rule(when_deleted="Retain"), None, None, Keep()),  # E12
        (rule(when_deleted="Retain", retain_for=timedelta(hours=73)), None, None, Keep()),
        (
            rule(when_deleted="Retain", retain_for=timedelta(hours=72)),  # E13
            None,
            None,
            Release(f"{DELETED}, and was retained for 3 days, 0:00:00"),
        ),
        (rule(retain_for=timedelta(hours=1)), state(2), None, Release(f"{SCALED}, and was retained for 1:00:00")),
        (rule(retain_for=timedelta(hours=1)), state(3), None, Keep()),  # a wanted replica's does not run out
        (rule(adopt="Never"), state(uid="w2"), None, Release(EARLIER)),
        (rule(adopt="Never"), state(uid="w2"), pod(), Keep()),
        (rule(adopt="Never", when_deleted="Retain"), state(uid="w2"), None, Keep()),
        (rule(adopt="Never"), state(), None, Keep()),
        (rule(), state(uid="w2"), None, Keep()),  # E11: adopted
    ],
)
def test_a_retained_allocation(
    retention: Retention, workload: WorkloadState | None, running: Pod | None, expected: object
) -> None:
    kept = allocation(retention=retention, workload_uid="w1")
    assert decide_retained(kept, workload, running, NOW) == expected


def test_a_retained_allocation_the_slot_has_replaced() -> None:
    """E17: also while the replica runs, with its new one."""
    expected = Release("the slot has other addresses now")
    assert decide_retained(allocation(), state(), pod(), NOW, superseded=True) == expected


@pytest.mark.parametrize(
    ("owner", "facts", "expected"),
    [
        (Replica(WEB, 2), HolderFacts(), Keep()),
        (Replica(WEB, 2), HolderFacts(netns_exists=False), Keep()),  # R12: its pod is there
        (
            Replica(WEB, 2),
            HolderFacts(pod_gone=True, netns_exists=False),
            LetGo("the network namespace of container 0123456789abc is gone"),
        ),
        (
            PodOwner("ns", "p", "u1"),
            HolderFacts(pod_finished=True, netns_exists=False),  # R14
            LetGo("the network namespace of container 0123456789abc is gone"),
        ),
        (PodOwner("ns", "p", "u1"), HolderFacts(pod_gone=True, node_gone=True), LetGo("node n1 is gone")),
        (
            PodOwner("ns", "p", "u1"),
            HolderFacts(pod_gone=True),
            Keep("its pod is gone, but nobody saw container 0123456789abc end"),
        ),
        (
            PodOwner("ns", "p", "u1"),
            HolderFacts(pod_gone=True, netns_exists=True),
            Keep("the network namespace /run/netns/x of container 0123456789abc still exists"),
        ),
        (ContainerOwner("c"), HolderFacts(netns_exists=False), LetGo("the network namespace is gone")),
        (ContainerOwner("c"), HolderFacts(netns_exists=True), Keep()),
        (ContainerOwner("c"), HolderFacts(), Keep()),
    ],
)
def test_a_bound_allocation_whose_del_was_lost(owner: Owner, facts: HolderFacts, expected: object) -> None:
    assert decide_bound(allocation(owner=owner, phase=Phase.BOUND), facts) == expected


def test_what_supersedes_an_allocation() -> None:
    pool = parse_pool({"range": "10.0.0.0/24"}, network="net")
    dual = parse_pool({"range": "10.0.0.0/24", "ipRanges": [{"range": "fd00::/64"}]}, network="net")
    old, new = allocation(12), allocation(20, phase=Phase.BOUND)
    assert is_superseded(old, pool, [old, new])
    assert not is_superseded(new, pool, [old, new])
    assert not is_superseded(old, pool, [old])
    # The slot is halfway through a DEL, or through an ADD: the other family's address is not in use.
    assert not is_superseded(old, dual, [old, new])
    assert not is_superseded(old, pool, [old, allocation(20, phase=Phase.RESERVED)])
    assert not is_superseded(old, parse_pool({}, network="net"), [old])
