"""Addresses that maps keep for slots which may not exist yet (E15). No I/O."""

from __future__ import annotations

from datetime import datetime

import msgspec

from homeport.ipam.allocations import Allocation, Phase, Retention
from homeport.ipam.identities import Replica, Slot
from homeport.ipam.objects import WorkloadState
from homeport.ipam.policies import map_for, retention_for
from homeport.ipam.pools import Pool
from homeport.ipam.ranges import match_ranges
from homeport.model.addresses import IPAddress


class Reservation(msgspec.Struct, frozen=True, kw_only=True):
    """An address that a map gives to a slot."""

    scope: str
    address: IPAddress
    slot: Slot
    retention: Retention = Retention()
    workload_uid: str = ""

    def allocation(self, at: datetime) -> Allocation:
        """The allocation that keeps it."""
        return Allocation(
            scope=self.scope,
            address=self.address,
            slot=self.slot,
            phase=Phase.RESERVED,
            since=at,
            retention=self.retention,
            workload_uid=self.workload_uid,
        )


def reservations_of(pool: Pool, state: WorkloadState, *, ifname: str) -> tuple[Reservation, ...]:
    """What a workload's map reserves on one network for the interface its pods have there, replicas or not yet.

    Empty without a map. Raises `InvalidNetConf` for a map that cannot be right.
    """
    if pool.policy is None:
        return ()
    workload, ranges = state.workload, pool.plain_ranges
    address_map = map_for(pool.policy, workload, state.annotations, network=pool.network, ifname=ifname, ranges=ranges)
    if address_map is None:
        return ()
    retention = retention_for(pool.policy, workload, state.annotations)
    found = []
    for place, entry in enumerate(address_map.entries):
        slot = Slot(Replica(workload, state.ordinals_start + place), pool.network, ifname)
        for pooled, index in zip(pool.ranges, match_ranges(ranges, entry), strict=True):
            if index is not None:
                found.append(
                    Reservation(
                        scope=pooled.scope,
                        address=entry[index],
                        slot=slot,
                        retention=retention,
                        workload_uid=state.uid,
                    )
                )
    return tuple(found)
