"""What the API server says of a map, asked by name at this moment. I/O: through `ports.Objects` and `ports.Cluster`.

docs/identity.md R12: a reservation is withdrawn on this, never on what a watch told.
"""

from __future__ import annotations

from homeport.controller.viewing import FillIpam, WatchedWorkload, decode_workload
from homeport.ipam.allocations import Allocation
from homeport.ipam.identities import Holder, Workload
from homeport.ipam.pools import Pool
from homeport.kube import decoding
from homeport.kube.resources import DEFINITIONS, STATEFUL_SETS
from homeport.model.errors import CniError
from homeport.multinet import selections
from homeport.ports import Cluster, Objects
from homeport.runtime import mapping, pooling
from homeport.runtime.answering import Unknown


def no_sight(_holder: Holder) -> bool | None:
    """A controller sees the namespaces of no node."""
    return None


class Proof:
    """Asks anew each time."""

    def __init__(self, objects: Objects, cluster: Cluster, fill_ipam: FillIpam) -> None:
        self._objects = objects
        self._cluster = cluster
        self._fill_ipam = fill_ipam

    def is_mapped(self, allocation: Allocation) -> bool:
        """Whether the map of its workload gives the address to its slot. Raises `Unknown` when nobody can tell."""
        workload = allocation.slot.workload
        if workload is None:
            raise Unknown("its owner is no replica")
        try:
            found = self._workload(workload)
            if found is None:
                return False
            wanted = mapping.reservations_for(found.state, found.networks, self._pool_at)
            return any(
                (r.scope, r.address, r.slot) == (allocation.scope, allocation.address, allocation.slot) for r in wanted
            )
        except CniError as e:
            raise Unknown(e.msg, passing=e.retryable) from e

    def _workload(self, workload: Workload) -> WatchedWorkload | None:
        if workload.kind == "StatefulSet":
            stored = self._objects.get(STATEFUL_SETS, workload.name, namespace=workload.namespace)
            return decode_workload(stored) if stored is not None else None
        state = self._cluster.workload(workload)
        return WatchedWorkload(state, state.annotations.get(selections.ANNOTATION, "")) if state is not None else None

    def _pool_at(self, definition: str) -> Pool | None:
        namespace, _, name = definition.partition("/")
        stored = self._objects.get(DEFINITIONS, name, namespace=namespace)
        if stored is None:
            return None
        found = decoding.decode_definition(stored.body)
        return pooling.pool_of(pooling.network_of(found), self._fill_ipam) if found.config.strip() else None
