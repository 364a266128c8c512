"""The controller's pass over the lab's allocations: what nobody keeps is let go, what maps ask for is reserved.

`runtime.reconciling` does it; here are the answers it needs. I/O: the lab's state and allocations, the kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from homeport.ipam.identities import Holder
from homeport.ipam.pools import KnownPools, Pool
from homeport.ipam.reservations import Reservation
from homeport.lab.cluster import as_workload_state
from homeport.lab.objects import Network, NodeObject, WorkloadObject
from homeport.lab.sessions import Lab
from homeport.model.errors import CniError
from homeport.multinet import selections
from homeport.plugins import whereabouts_conf
from homeport.ports import NetworkDefinition
from homeport.runtime import mapping, pooling, reconciling
from homeport.runtime.mapping import Reservations


def retain(lab: Lab) -> int:
    """One pass; how many allocations it changed."""
    lab.refresh_cluster()
    pools = _pools(lab)
    report = reconciling.reconcile(
        lab.allocations,
        lab.cluster,
        pool_of=KnownPools(pools.values()).of,
        netns_exists=_sight(lab),
        reservations=_reservations(lab, pools),
        clock=lab.clock,
    )
    for change in report.changes:
        allocation = change.after or change.before
        if allocation is not None:
            reason = change.after.phase.value if change.after is not None else "Released"
            lab.record(f"ipallocation/{allocation.address}", "Normal", reason, change.cause)
    for blocked in report.blocked:
        reservation = blocked.reservation
        message = f"mapped for {reservation.slot.owner}, but {blocked.by.phase.value} for {blocked.by.slot.owner}"
        lab.record(f"ipallocation/{reservation.address}", "Warning", "AddressTaken", message)
    return len(report.changes)


def _pools(lab: Lab) -> Mapping[str, Pool]:
    """By namespace/name of its network, as far as they can be right."""
    definitions = [
        NetworkDefinition(namespace=n.namespace, name=n.name, config=n.config) for n in lab.state.all(Network)
    ]
    found = pooling.pools_of(definitions, partial(whereabouts_conf.filled_ipam, files=lab.files))
    return {str(definition): pool for definition, pool in found}


def _reservations(lab: Lab, pools: Mapping[str, Pool]) -> Reservations:
    wanted: list[Reservation] = []
    unknown = set()
    for workload in lab.state.all(WorkloadObject):
        if workload.spec.workload.kind != "StatefulSet":
            continue
        annotation = workload.spec.template.annotations.get(selections.ANNOTATION, "")
        try:
            wanted += mapping.reservations_for(as_workload_state(workload), annotation, pools.get)
        except CniError as error:
            lab.record(workload, "Warning", "InvalidAddressMap", str(error))
            unknown.add(workload.spec.workload)
    return Reservations(wanted=tuple(wanted), unknown=frozenset(unknown))


def _sight(lab: Lab) -> Callable[[Holder], bool | None]:
    """Whether a holder's namespace is there, None on a node that nobody reaches."""
    ready = {node.name for node in lab.state.all(NodeObject) if node.ready}

    def netns_exists(holder: Holder) -> bool | None:
        if holder.node not in ready or not holder.netns_path:
            return None
        return lab.host.namespace_exists(holder.netns_path)

    return netns_exists
