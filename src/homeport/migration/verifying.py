"""Whether our store, Whereabouts' records and the pods agree. No I/O."""

from __future__ import annotations

from collections.abc import Iterator

from homeport.ipam.allocations import Allocation
from homeport.ipam.identities import ContainerOwner, Replica
from homeport.migration.applying import Done
from homeport.migration.facts import Facts, Plan
from homeport.migration.planning import Doubt, uses_of
from homeport.model.names import PodRef


def verify(plan: Plan, facts: Facts) -> Iterator[Done]:
    """Each address that Whereabouts has and that is to be ours, then each of ours against the pod that holds it.

    `plan` is made of the same facts.
    """
    yield from (Done(allocation=i.allocation, outcome="not imported", failed=True) for i in plan.to_make)
    for allocation in facts.present:
        yield _compared(allocation, facts)


def _compared(allocation: Allocation, facts: Facts) -> Done:
    holder, owner = allocation.holder, allocation.slot.owner
    if holder is None or isinstance(owner, ContainerOwner):
        return Done(allocation=allocation, outcome=f"{allocation.phase.value.lower()}, in use by no pod")
    pod = facts.pods.get(owner.pod if isinstance(owner, Replica) else PodRef(owner.namespace, owner.name))
    if pod is None or pod.uid != holder.pod_uid:
        return Done(allocation=allocation, outcome="bound to a pod that is gone, until that is proven")
    try:
        uses = uses_of(pod, allocation.address)
    except Doubt as e:
        return Done(allocation=allocation, outcome=str(e), failed=True)
    if any(use.ifname == holder.ifname for use in uses):
        return Done(allocation=allocation, outcome="the same")
    told = f'pod {pod.ref} does not have it on "{holder.ifname}" by its network-status'
    return Done(allocation=allocation, outcome=told, failed=True)
