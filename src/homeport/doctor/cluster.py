"""Doctor from afar: what the API server alone can tell of a cluster. Reads, and changes nothing. I/O: `ports.Objects`.

What a check needs and could not be looked at keeps that check silent, and is itself a finding: nothing is concluded
from what was not seen (docs/identity.md R12). What it takes to look at everything is the role homeport-viewer.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec

from homeport.doctor import cluster_addresses, cluster_networks, cluster_parts
from homeport.doctor.cluster_facts import ClusterFacts, Unseen
from homeport.doctor.cluster_gathering import Gatherer
from homeport.doctor.findings import Diagnosis, Report, Unlooked, report
from homeport.doctor.looking import when
from homeport.ipam.pools import Pool
from homeport.ports import NetworkDefinition, Objects
from homeport.runtime import pooling

DEFAULT_NAMESPACE = "kube-system"

_PLACES = {
    "definitions": "customresourcedefinitions",
    "roles": "clusterroles",
    "lease": "lease homeport-controller",
    "allocations": "ipallocations",
    "slots": "ipslots",
    "networks": "network-attachment-definitions",
    "workloads": "statefulsets",
    "nodes": "nodes",
    "pods": "pods",
    "ledger": "ipledgers",
    "webhooks": "validatingwebhookconfiguration homeport",
    "foreign": "ippools of Whereabouts",
}


def examine(objects: Objects, *, place: str, namespace: str = DEFAULT_NAMESPACE, now: datetime | None = None) -> Report:
    """What there is to say of the cluster `place`, whose controllers run in `namespace`. Raises no `CniError`."""
    return diagnose(Gatherer(objects, namespace).read(place, now or datetime.now(UTC)))


def diagnose(facts: ClusterFacts) -> Report:
    """What the facts come to. Pure."""
    return report(facts.place, _diagnoses(facts), _unlooked(facts))


def _diagnoses(facts: ClusterFacts) -> Iterator[Diagnosis]:
    pools = facts.networks if isinstance(facts.networks, Unseen) else _pools(facts.networks)
    now, namespace, records = facts.now, facts.namespace, facts.allocations
    yield from when(cluster_parts.definitions, facts.definitions)
    yield from when(cluster_parts.roles, facts.roles)
    yield from when(cluster_parts.controller, facts.lease, namespace, now)
    yield from when(cluster_parts.controllers, facts.pods, namespace)
    yield from when(cluster_parts.webhooks, facts.webhooks, namespace, now)
    yield from when(cluster_parts.ledger, facts.ledger, records, namespace, now)
    yield from cluster_networks.unreadable(facts.unreadable)
    yield from cluster_networks.mistakes(facts.manifests)
    yield from when(cluster_addresses.holders, records, facts.pods, facts.nodes, namespace, now)
    yield from when(cluster_addresses.unserved, records, facts.pods, pools, facts.foreign, now)
    yield from when(cluster_addresses.quarantined, records)
    yield from when(cluster_addresses.ranges, records, pools)
    yield from when(cluster_addresses.slots, facts.slots, records, namespace, now)
    yield from when(cluster_addresses.whereabouts, facts.foreign, records)


def _unlooked(facts: ClusterFacts) -> Iterator[Unlooked]:
    for name, value in msgspec.structs.asdict(facts).items():
        if isinstance(value, Unseen):
            yield Unlooked(place=_PLACES[name], why=value.why)


def _pools(networks: tuple[NetworkDefinition, ...]) -> dict[str, Pool]:
    """By NAMESPACE/NAME of the definition; those that cannot be right have none, and lint tells of them."""
    return {str(definition): pool for definition, pool in pooling.pools_of(networks)}
