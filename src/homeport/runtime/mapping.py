"""Which addresses the maps of workloads keep, of the networks their pods select. No I/O.

docs/identity.md E15. Where the annotation is a template, each replica has networks of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import msgspec

from homeport.ipam.identities import Replica, Workload
from homeport.ipam.objects import WorkloadState
from homeport.ipam.pools import Pool
from homeport.ipam.reservations import Reservation, reservations_of
from homeport.multinet import requests, selections, templates
from homeport.multinet.selections import NetworkSelection

PoolAt = Callable[[str], Pool | None]
"""The pool of the network that is defined as namespace/name; None when there is none."""

_MOST_REPLICAS = 10_000  # of one workload that are looked at one by one


class Reservations(msgspec.Struct, frozen=True, kw_only=True):
    """What maps ask for: the whole of it, but for workloads that are `unknown`, as their maps cannot be read now."""

    wanted: tuple[Reservation, ...] = ()
    unknown: frozenset[Workload] = frozenset()


def reservations_for(state: WorkloadState, annotation: str, pool_at: PoolAt) -> Iterator[Reservation]:
    """What one workload's map asks for, replicas that are not wanted yet included.

    `annotation` selects its pods' networks; one without a pool gives none. Raises `InvalidNetConf` or
    `DecodeFailure` for an annotation or a map that cannot be right, and what `pool_at` raises.
    """
    namespace = state.workload.namespace
    if not templates.is_template(annotation):
        yield from _reserved_on(selections.parse(annotation, namespace), pool_at, state)
        return
    ordinal = state.ordinals_start
    last = ordinal + min(max(state.replicas, 1), _MOST_REPLICAS) - 1
    while ordinal <= last:
        wanted = selections.parse(annotation, namespace, ordinal=ordinal)
        for reservation in _reserved_on(wanted, pool_at, state):
            owner = reservation.slot.owner
            assert isinstance(owner, Replica)
            last = max(last, owner.ordinal)  # a replica that only the map knows
            if owner.ordinal == ordinal:
                yield reservation
        ordinal += 1


def _reserved_on(wanted: Iterable[NetworkSelection], pool_at: PoolAt, state: WorkloadState) -> Iterator[Reservation]:
    for index, selection in enumerate(wanted, start=1):
        pool = pool_at(f"{selection.namespace}/{selection.name}")
        if pool is not None:
            yield from reservations_of(pool, state, ifname=requests.ifname_of(selection, index))
