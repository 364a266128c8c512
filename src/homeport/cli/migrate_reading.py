"""Reading what a migration from Whereabouts is planned from: every list whole, what cannot be decoded named."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TypeVar

from homeport.ipam import whereabouts
from homeport.kube import decoding
from homeport.kube.resources import DEFINITIONS, PODS, STATEFUL_SETS
from homeport.migration.facts import Facts, Network
from homeport.model.errors import CniError
from homeport.ports import AllocationStore, ApiObject, NetworkDefinition, Objects
from homeport.runtime import pooling
from homeport.stores.whereabouts import POOLS, RESERVATIONS, SLICES

T = TypeVar("T")


def read_facts(objects: Objects, store: AllocationStore, namespace: str) -> Facts:
    """`namespace` is Whereabouts' own. Its records are read first, so that every pod they name was there by then."""
    unreadable: list[str] = []

    def decoded(listed: Iterable[ApiObject], decode: Callable[[ApiObject], T]) -> Iterable[T]:
        for one in listed:
            try:
                yield decode(one)
            except CniError as e:
                unreadable.append(str(e))

    pools = decoded(
        objects.list(POOLS, namespace=namespace), lambda o: whereabouts.decode_pool(o.name, o.version, o.body)
    )
    reservations = decoded(
        objects.list(RESERVATIONS, namespace=namespace),
        lambda o: whereabouts.decode_reservation(o.name, o.version, o.body),
    )
    slices = decoded(objects.list(SLICES, namespace=namespace), lambda o: whereabouts.decode_slices(o.name, o.body))
    pods = decoded(objects.list(PODS), lambda o: decoding.decode_pod(o.body))
    workloads = decoded(objects.list(STATEFUL_SETS), lambda o: decoding.decode_stateful_set(o.body))
    definitions = decoded(objects.list(DEFINITIONS), lambda o: decoding.decode_definition(o.body))
    networks, unread = _networks(definitions)
    return Facts(
        pools=tuple(pools),
        reservations={r.name: r for r in reservations},
        slices=tuple(s for listed in slices for s in listed),
        networks=tuple(networks),
        pods={pod.ref: pod for pod in pods},
        workloads={state.workload: state for state in workloads},
        present=tuple(store.all()),
        unreadable=tuple(unreadable),
        unread_networks=tuple(unread),
        now=datetime.now(UTC),
    )


def _networks(definitions: Iterable[NetworkDefinition]) -> tuple[list[Network], list[str]]:
    """The networks with pools, and why others have none that is known. One that has no pool at all is neither."""
    found: list[Network] = []
    unread: list[str] = []
    for definition in definitions:
        try:
            pool = pooling.pool_of(pooling.network_of(definition))
        except CniError as e:
            unread.append(str(e))
            continue
        if pool is not None and pool.ranges:
            found.append(Network(str(definition), pool))
    return found, unread
