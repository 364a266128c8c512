"""Objects of the API server as it writes them, and what becomes of those it would not write."""

from __future__ import annotations

import json
from typing import Any

import pytest

from homeport.ipam.identities import Workload
from homeport.ipam.objects import NodeState, OwnerReference, Pod, WorkloadState
from homeport.kube import decoding
from homeport.model.errors import DecodeFailure
from homeport.model.names import PodRef
from homeport.ports import NetworkDefinition


def raw(value: Any) -> bytes:
    return json.dumps(value).encode()


# A pod as kube-apiserver answers, with the keys that nobody here reads.
POD: dict[str, Any] = {
    "kind": "Pod",
    "apiVersion": "v1",
    "metadata": {
        "name": "web-0",
        "generateName": "web-",
        "namespace": "shop",
        "uid": "8d2b2ede-8c9c-403f-85d2-ecb059d3da8d",
        "resourceVersion": "228",
        "creationTimestamp": "2026-01-01T09:29:36Z",
        "labels": {"app": "web"},
        "annotations": {"k8s.v1.cni.cncf.io/networks": "vlan10"},
        "ownerReferences": [
            {"apiVersion": "v1", "kind": "Note", "name": "n", "uid": "1"},
            {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "2", "controller": True},
        ],
        "managedFields": [{"manager": "m", "fieldsV1": {"f:metadata": {".": {}}}}],
    },
    "spec": {"nodeName": "n1", "containers": [{"name": "c"}]},
    "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}]},
}


def test_a_pod() -> None:
    assert decoding.decode_pod(raw(POD)) == Pod(
        ref=PodRef("shop", "web-0"),
        uid="8d2b2ede-8c9c-403f-85d2-ecb059d3da8d",
        node="n1",
        phase="Running",
        owner=OwnerReference(api_version="apps/v1", kind="StatefulSet", name="web", uid="2", controller=True),
        labels={"app": "web"},
        annotations={"k8s.v1.cni.cncf.io/networks": "vlan10"},
    )


def test_a_pod_with_next_to_nothing() -> None:
    meta = {"name": "a", "namespace": "b", "uid": "u", "annotations": None, "ownerReferences": None}
    assert decoding.decode_pod(raw({"metadata": meta})) == Pod(ref=PodRef("b", "a"), uid="u")


@pytest.mark.parametrize(
    ("phase", "decoded"),
    [("", "Pending"), ("Pending", "Pending"), ("Failed", "Failed"), ("Succeeded", "Succeeded"), ("New", "Unknown")],
)
def test_phases(phase: str, decoded: str) -> None:
    assert decoding.decode_pod(raw({**POD, "status": {"phase": phase}})).phase == decoded


def test_an_unknown_phase_is_not_the_end_of_a_pod() -> None:
    assert not decoding.decode_pod(raw({**POD, "status": {"phase": "Completed"}})).finished


def test_a_pod_on_its_way_out() -> None:
    meta = {**POD["metadata"], "deletionTimestamp": "2026-01-01T09:29:36Z"}
    assert decoding.decode_pod(raw({**POD, "metadata": meta})).deleting


@pytest.mark.parametrize(
    ("spec", "config"),
    [({"config": '{"type":"x"}'}, '{"type":"x"}'), ({"config": ""}, ""), ({"config": None}, ""), ({}, ""), (None, "")],
)
def test_a_definition(spec: Any, config: str) -> None:
    meta = {"name": "vlan10", "namespace": "shop", "uid": "u", "annotations": {"k8s.v1.cni.cncf.io/resourceName": "r"}}
    assert decoding.decode_definition(raw({"metadata": meta, "spec": spec})) == NetworkDefinition(
        namespace="shop",
        name="vlan10",
        config=config,
        annotations={"k8s.v1.cni.cncf.io/resourceName": "r"},
    )


def test_a_statefulset_and_its_annotations() -> None:
    whole = {
        "metadata": {"name": "web", "namespace": "shop", "uid": "u", "annotations": {"a": "own", "b": "own"}},
        "spec": {
            "replicas": 3,
            "ordinals": {"start": 5},
            "template": {"metadata": {"annotations": {"a": "template", "c": "template"}}},
        },
    }
    assert decoding.decode_stateful_set(raw(whole)) == WorkloadState(
        workload=Workload("shop", "StatefulSet", "web"),
        uid="u",
        replicas=3,
        ordinals_start=5,
        annotations={"a": "own", "b": "own", "c": "template"},
    )


def test_a_statefulset_with_the_apis_defaults() -> None:
    whole = {"metadata": {"name": "web", "namespace": "shop", "uid": "u", "deletionTimestamp": "x"}, "spec": {}}
    state = decoding.decode_stateful_set(raw(whole))
    assert (state.replicas, state.ordinals_start, state.deleting) == (1, 0, True)
    assert decoding.decode_stateful_set(raw({**whole, "spec": {"replicas": 0}})).replicas == 0


@pytest.mark.parametrize(
    ("conditions", "taints", "ready", "out_of_service"),
    [
        ([{"type": "Ready", "status": "True"}], None, True, False),
        ([{"type": "DiskPressure", "status": "True"}, {"type": "Ready", "status": "Unknown"}], [], False, False),
        (None, [{"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}], False, True),
        ([], [{"key": "node.kubernetes.io/unreachable"}], False, False),
    ],
)
def test_nodes(conditions: Any, taints: Any, *, ready: bool, out_of_service: bool) -> None:
    whole = {"metadata": {"name": "n1", "uid": "u"}, "spec": {"taints": taints}, "status": {"conditions": conditions}}
    assert decoding.decode_node(raw(whole)) == NodeState(name="n1", ready=ready, out_of_service=out_of_service)


BROKEN = [
    b"",
    b"null",
    b"{}",
    b"[]",
    b"<html>",
    b"\xff\xfe",
    b"[" * 100_000,
    raw(POD)[:-20],
    raw({"metadata": []}),
    raw({"metadata": {"name": "a", "namespace": "b"}}),
    raw({"metadata": {"name": "a", "uid": "u", "namespace": 1}}),
    raw({"metadata": {"name": "", "namespace": "b", "uid": "u"}, "spec": {}}),
]


@pytest.mark.parametrize("body", BROKEN)
def test_what_cannot_be_read_is_never_absent(body: bytes) -> None:
    for decode in (
        decoding.decode_pod,
        decoding.decode_definition,
        decoding.decode_stateful_set,
        decoding.decode_node,
        decoding.decode_page,
        decoding.decode_change,
    ):
        with pytest.raises(DecodeFailure):
            decode(body)


def test_the_key_that_is_missing_is_named() -> None:
    with pytest.raises(DecodeFailure, match=r'key "metadata.namespace" is missing'):
        decoding.decode_pod(raw({"metadata": {"name": "a", "uid": "u"}}))


def test_a_page_keeps_its_items_as_they_came() -> None:
    page = decoding.decode_page(
        raw({"metadata": {"resourceVersion": "9", "continue": "more"}, "items": [{"a": 1}, "strange"]})
    )
    assert ([bytes(i) for i in page.items], page.version, page.continue_token) == (
        [b'{"a": 1}', b'"strange"'],
        "9",
        "more",
    )


def test_an_empty_page_is_one_that_says_so() -> None:
    assert decoding.decode_page(raw({"metadata": {"resourceVersion": "9"}, "items": None})).items == ()
    with pytest.raises(DecodeFailure):
        decoding.decode_page(raw({"metadata": {"resourceVersion": "9"}}))
    with pytest.raises(DecodeFailure, match="no resourceVersion"):
        decoding.decode_page(raw({"metadata": {}, "items": []}))
