"""The controller's pass over the lab's allocations: what nobody keeps is let go, what maps ask for is reserved.

`runtime.reconciling` does it; here are the answers it needs. I/O: the lab's state and allocations, the kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from homeport.cni import conflists, netconfs
from homeport.ipam.identities import Holder, Replica, Slot
from homeport.ipam.objects import WorkloadState
from homeport.ipam.pools import Pool, parse_pool
from homeport.ipam.reservations import Reservation, reservations_of
from homeport.lab.cluster import as_workload_state
from homeport.lab.objects import Network, NodeObject, WorkloadObject
from homeport.lab.sessions import Lab
from homeport.model.errors import CniError
from homeport.multinet import requests, selections, templates
from homeport.multinet.selections import NetworkSelection
from homeport.plugins import whereabouts_conf
from homeport.runtime import reconciling


def retain(lab: Lab) -> int:
    """One pass; how many allocations it changed."""
    lab.refresh_cluster()
    pools = _pools(lab)
    by_name: dict[str, Pool | None] = {}
    for pool in pools.values():
        # Two networks of one name and different ranges: nobody can say whose pool an address is of.
        by_name[pool.network] = pool if by_name.get(pool.network, pool) == pool else None

    def pool_of(slot: Slot) -> Pool | None:
        return by_name.get(slot.network)

    report = reconciling.reconcile(
        lab.allocations,
        lab.cluster,
        pool_of=pool_of,
        netns_exists=_sight(lab),
        reservations=_reservations(lab, pools),
        now=lab.clock.now,
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
    """By namespace/name of its network. What is no whereabouts network, or cannot be read, has none."""
    found = {}
    for network in lab.state.all(Network):
        try:
            parsed = conflists.parse(network.config.encode(), default_name=network.name)
            for plugin in parsed.plugins:
                conf = netconfs.parse({**plugin, "name": parsed.name, "cniVersion": parsed.cni_version})
                if conf.ipam is not None and conf.ipam.get("type") == whereabouts_conf.TYPE:
                    ipam = whereabouts_conf.merged_ipam(conf, lab.files)
                    found[str(network)] = parse_pool(ipam, network=parsed.name)
        except CniError:
            continue  # the pods that want it say what is wrong with it
    return found


def _reservations(lab: Lab, pools: Mapping[str, Pool]) -> Sequence[Reservation] | None:
    """What the maps of all workloads ask for; None, which changes nothing, while one of them cannot be right."""
    found: list[Reservation] = []
    for workload in lab.state.all(WorkloadObject):
        if workload.spec.workload.kind != "StatefulSet":
            continue
        try:
            found += _reserved_for(workload, pools)
        except CniError as error:
            lab.record(workload, "Warning", "InvalidAddressMap", str(error))
            return None
    return found


def _reserved_for(workload: WorkloadObject, pools: Mapping[str, Pool]) -> Iterator[Reservation]:
    """Where the annotation is a template, each replica has networks of its own, also one that a map alone knows."""
    spec = workload.spec
    annotation = spec.template.annotations.get(selections.ANNOTATION, "")
    state = as_workload_state(workload)
    if not templates.is_template(annotation):
        yield from _reserved_on(selections.parse(annotation, spec.workload.namespace), pools, state)
        return
    ordinal = spec.ordinals_start
    last = ordinal + max(spec.replicas, 1) - 1
    while ordinal <= last:
        wanted = selections.parse(annotation, spec.workload.namespace, ordinal=ordinal)
        for reservation in _reserved_on(wanted, pools, state):
            owner = reservation.slot.owner
            assert isinstance(owner, Replica)
            last = max(last, owner.ordinal)
            if owner.ordinal == ordinal:
                yield reservation
        ordinal += 1


def _reserved_on(
    wanted: Iterable[NetworkSelection], pools: Mapping[str, Pool], state: WorkloadState
) -> Iterator[Reservation]:
    for index, selection in enumerate(wanted, start=1):
        pool = pools.get(f"{selection.namespace}/{selection.name}")
        if pool is not None:
            yield from reservations_of(pool, state, ifname=requests.ifname_of(selection, index))


def _sight(lab: Lab) -> Callable[[Holder], bool | None]:
    """Whether a holder's namespace is there, None on a node that nobody reaches."""
    ready = {node.name for node in lab.state.all(NodeObject) if node.ready}

    def netns_exists(holder: Holder) -> bool | None:
        if holder.node not in ready or not holder.netns_path:
            return None
        return lab.host.namespace_exists(holder.netns_path)

    return netns_exists
