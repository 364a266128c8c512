"""What `homeport lint --cluster` makes of an API server's objects, and of those that it does not get."""

from __future__ import annotations

from typing import Any

import msgspec
from tests.stand_ins_objects import Call, MemoryObjects

from homeport.cli import lint_cluster
from homeport.kube import resources
from homeport.lint import manifests
from homeport.model.errors import IOFailure
from homeport.ports import Resource

NETWORKS = "k8s.v1.cni.cncf.io/networks"
OWNED = {"ownerReferences": [{"kind": "ReplicaSet", "name": "web", "uid": "u", "apiVersion": "v1", "controller": True}]}


def put(objects: MemoryObjects, resource: Resource, name: str, *, namespace: str = "shop", **more: Any) -> None:
    metadata = {"name": name, "annotations": {NETWORKS: "lan"}, **more.pop("metadata", {})}
    objects.create(resource, {"metadata": metadata, "spec": {}, **more}, namespace=namespace)


def test_a_manifest_is_what_people_write_line_by_line() -> None:
    objects = MemoryObjects()
    copy = {"kubectl.kubernetes.io/last-applied-configuration": "{}"}
    put(
        objects, resources.PODS, "web", metadata={"annotations": {NETWORKS: "lan", **copy}}, status={"phase": "Running"}
    )

    live = lint_cluster.read_objects(objects, "")

    (text,) = live.texts.values()
    assert list(live.texts) == ["pods/shop/web"]
    assert text.split("\n")[:3] == ["{", '  "apiVersion": "v1",', '  "kind": "Pod",']
    assert [
        word for word in ("status", "last-applied", "resourceVersion", "uid", "creationTimestamp") if word in text
    ] == []
    assert len(manifests.read(live.texts).workloads) == 1


def test_what_another_object_makes_and_what_is_over_is_left_out() -> None:
    objects = MemoryObjects()
    complete = {"conditions": [{"type": "Complete", "status": "True"}]}
    put(objects, resources.PODS, "owned", metadata=OWNED)
    put(objects, resources.PODS, "done", status={"phase": "Succeeded"})
    put(objects, resources.JOBS, "complete", status=complete)
    put(objects, resources.JOBS, "running", status={"conditions": [{"type": "Complete", "status": "False"}]})

    assert list(lint_cluster.read_objects(objects, "").texts) == ["jobs/shop/running"]


def test_of_one_namespace_the_networks_of_others_are_read_as_well() -> None:
    objects = MemoryObjects()
    put(objects, resources.DEFINITIONS, "lan", namespace="other")
    put(objects, resources.PODS, "web", namespace="other")
    put(objects, resources.PODS, "web")

    live = lint_cluster.read_objects(objects, "shop")

    assert sorted(live.texts) == ["network-attachment-definitions/other/lan", "pods/shop/web"]
    assert live.all_networks
    assert [lint_cluster.is_of(file, "shop") for file in sorted(live.texts)] == [False, True]


def test_networks_of_one_namespace_alone_are_not_all() -> None:
    objects = MemoryObjects()
    put(objects, resources.DEFINITIONS, "lan")

    def refuse(call: Call) -> None:
        if call.resource == resources.DEFINITIONS and not call.namespace:
            raise IOFailure("forbidden")

    objects.on_call = refuse
    live = lint_cluster.read_objects(objects, "shop")

    assert (list(live.texts), live.problems, live.all_networks) == (
        ["network-attachment-definitions/shop/lan"], [], False,
    )  # fmt: skip


def test_a_kind_that_is_refused_does_not_hide_the_others() -> None:
    objects = MemoryObjects()
    put(objects, resources.PODS, "web")

    def refuse(call: Call) -> None:
        if call.resource == resources.DEPLOYMENTS:
            raise IOFailure("list deployments: forbidden")

    objects.on_call = refuse
    live = lint_cluster.read_objects(objects, "")

    assert list(live.texts) == ["pods/shop/web"]
    assert [problem.msg for problem in live.problems] == ["list deployments: forbidden"]


def test_an_api_server_that_is_away_is_asked_once() -> None:
    objects = MemoryObjects()
    objects.reachable = False

    live = lint_cluster.read_objects(objects, "")

    assert (len(objects.calls), len(live.problems), live.all_networks) == (1, 1, False)


def test_a_network_that_cannot_be_decoded_is_told_and_not_taken_for_absent() -> None:
    objects = MemoryObjects()
    put(objects, resources.DEFINITIONS, "lan")
    key = (resources.DEFINITIONS, "shop", "lan")
    objects.server.objects[key] = msgspec.structs.replace(objects.server.objects[key], body=b'{"metadata": []}')

    live = lint_cluster.read_objects(objects, "")

    (problem,) = live.problems
    assert 'decode "network-attachment-definitions/shop/lan"' in problem.msg
    assert not live.all_networks


def test_cron_jobs_of_an_older_api_server_are_found() -> None:
    objects = MemoryObjects()
    old = msgspec.structs.replace(resources.CRON_JOBS, version="v1beta1")
    put(objects, old, "nightly")

    def unknown(call: Call) -> None:
        if call.resource == resources.CRON_JOBS:
            raise IOFailure("knows no resource")

    objects.on_call = unknown
    assert list(lint_cluster.read_objects(objects, "").texts) == ["cronjobs/shop/nightly"]
