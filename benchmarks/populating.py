"""A large cluster's objects as the API server stores them: nodes, StatefulSets, their pods, networks, allocations."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any

from homeport.ipam.allocations import Allocation, Phase
from homeport.ipam.identities import Holder, Replica, Slot, Workload
from homeport.model.addresses import MacAddress
from homeport.stores.kubernetes import names, wire
from homeport.stores.kubernetes.slots import SlotRecord, slot_body, with_place

NODES = 100
REPLICAS = 10  # of each StatefulSet
NAMESPACE = "load"
_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_CREATED = "2026-01-01T00:00:00Z"
Json = dict[str, Any]


def cluster(*, pods: int, networks: int) -> Mapping[str, bytes]:
    """Keys and values for etcd: each pod has one address of each network, and as many IPSlots."""
    return {key: json.dumps(body).encode() for key, body in _objects(pods, networks)}


def _objects(pods: int, networks: int) -> Iterator[tuple[str, Json]]:
    yield _object("/registry/namespaces", "v1", "Namespace", NAMESPACE)
    for n in range(NODES):
        conditions = [{"type": "Ready", "status": "True"}]
        yield _object("/registry/minions", "v1", "Node", f"node-{n}", status={"conditions": conditions})
    for n in range(networks):
        yield _network(n)
    annotation = ",".join(f"lan-{n}" for n in range(networks))
    for place in range(pods // REPLICAS):
        workload = Workload(NAMESPACE, "StatefulSet", f"web-{place}")
        yield _stateful_set(workload, annotation)
        for ordinal in range(REPLICAS):
            replica = Replica(workload, ordinal)
            number = place * REPLICAS + ordinal
            key, pod = _pod(replica, f"node-{number % NODES}", annotation)
            yield key, pod
            for network in range(networks):
                yield from _allocated(replica, network, number, pod["metadata"]["uid"], f"node-{number % NODES}")


def _object(
    registry: str, version: str, kind: str, name: str, *, namespace: str = "", metadata: Json | None = None, **rest: Any
) -> tuple[str, Json]:
    whole: Json = {"name": name, "uid": str(uuid.uuid4()), "creationTimestamp": _CREATED, **(metadata or {})}
    if namespace:
        whole["namespace"] = namespace
    key = "/".join(part for part in (registry, namespace, name) if part)
    return key, {"apiVersion": version, "kind": kind, "metadata": whole, **rest}


def _network(number: int) -> tuple[str, Json]:
    ipam = {"type": "whereabouts", "range": f"10.{10 + number}.0.0/16"}
    config = {"cniVersion": "1.0.0", "name": f"lan-{number}", "type": "macvlan", "master": "eth1", "ipam": ipam}
    return _object(
        "/registry/k8s.cni.cncf.io/network-attachment-definitions",
        "k8s.cni.cncf.io/v1",
        "NetworkAttachmentDefinition",
        f"lan-{number}",
        namespace=NAMESPACE,
        spec={"config": json.dumps(config)},
    )


def _stateful_set(workload: Workload, annotation: str) -> tuple[str, Json]:
    labels = {"app": workload.name}
    template = {
        "metadata": {"labels": labels, "annotations": {"k8s.v1.cni.cncf.io/networks": annotation}},
        "spec": {"containers": [{"name": "main", "image": "registry.example/web:1"}]},
    }
    return _object(
        "/registry/statefulsets",
        "apps/v1",
        workload.kind,
        workload.name,
        namespace=workload.namespace,
        spec={
            "replicas": REPLICAS,
            "serviceName": workload.name,
            "selector": {"matchLabels": labels},
            "template": template,
        },
        status={"replicas": REPLICAS},
    )


def _pod(replica: Replica, node: str, annotation: str) -> tuple[str, Json]:
    workload = replica.workload
    owner = {"apiVersion": "apps/v1", "kind": workload.kind, "name": workload.name, "uid": str(uuid.uuid4())}
    status = [{"interface": f"net{n}", "ips": ["10.0.0.1"], "mac": "0a:58:0a:00:00:01"} for n in range(6)]
    metadata = {
        "labels": {"app": workload.name, "statefulset.kubernetes.io/pod-name": replica.pod.name},
        "annotations": {
            "k8s.v1.cni.cncf.io/networks": annotation,
            "k8s.v1.cni.cncf.io/network-status": json.dumps(status, indent=4),
        },
        "ownerReferences": [{**owner, "controller": True, "blockOwnerDeletion": True}],
        "managedFields": _managed(30),
    }
    return _object(
        "/registry/pods",
        "v1",
        "Pod",
        replica.pod.name,
        namespace=NAMESPACE,
        metadata=metadata,
        spec={"nodeName": node, "containers": [{"name": "main", "image": "registry.example/web:1"}]},
        status={"phase": "Running", "podIP": "10.244.0.1", "hostIP": "192.0.2.1"},
    )


def _allocated(replica: Replica, network: int, number: int, uid: str, node: str) -> Iterator[tuple[str, Json]]:
    slot = Slot(replica, f"lan-{network}", f"net{network + 1}")
    mac = MacAddress(f"0a:58:{network:02x}:{number >> 16:02x}:{number >> 8 & 255:02x}:{number & 255:02x}")
    container = uid.replace("-", "") * 2
    allocation = Allocation(
        scope="",
        address=ip_address(f"10.{10 + network}.0.1") + number,
        slot=slot,
        phase=Phase.BOUND,
        holder=Holder(
            container_id=container,
            ifname=slot.ifname,
            netns_path=f"/run/netns/cni-{uid}",
            node=node,
            pod_uid=uid,
            mac=mac,
        ),
        mac=mac,
        since=_NOW,
        workload_uid=uid,
    )
    place = (allocation.scope, allocation.address)
    made = {
        ("ipallocations", "IPAllocation"): wire.create_body(
            allocation, cause="allocated", changed=_NOW, write="0123456789abcdef"
        ),
        ("ipslots", "IPSlot"): slot_body(with_place(SlotRecord(slot=slot, places=()), place)),
    }
    for (plural, kind), body in made.items():
        metadata = {"labels": body["metadata"]["labels"], "generation": 1, "managedFields": _managed(12)}
        rest = {key: value for key, value in body.items() if key != "metadata"}
        yield _object(
            f"/registry/homeport.dev/{plural}",
            "homeport.dev/v1alpha1",
            kind,
            names.allocation_name(*place) if plural == "ipallocations" else names.slot_name(slot),
            metadata=metadata,
            **rest,
        )


def _managed(fields: int) -> list[Json]:
    """What the API server notes of who wrote which field."""
    noted: Json = {f"f:field{n}": {} for n in range(fields)}
    return [
        {
            "manager": "homeport",
            "operation": "Update",
            "apiVersion": "homeport.dev/v1alpha1",
            "time": _CREATED,
            "fieldsType": "FieldsV1",
            "fieldsV1": {"f:spec": noted},
        }
    ]
