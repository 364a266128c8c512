"""Which pods are replicas, and whose addresses are whose (docs/identity.md, Terms)."""

from __future__ import annotations

import pytest

from homeport.ipam.identities import Replica, Workload
from homeport.ipam.objects import OwnerReference, Pod
from homeport.ipam.replicas import ReplicaKind, replica_of
from homeport.model.names import PodRef

STRIMZI = ReplicaKind(api_group="core.strimzi.io", kind="StrimziPodSet", label="strimzi.io/pod-name")
KRUISE = ReplicaKind(api_group="apps.kruise.io", kind="StatefulSet")


def pod(
    name: str = "web-3",
    *,
    api: str = "apps/v1",
    kind: str = "StatefulSet",
    owner: str = "web",
    controller: bool = True,
    labels: dict[str, str] | None = None,
) -> Pod:
    reference = OwnerReference(api_version=api, kind=kind, name=owner, uid="w", controller=controller)
    return Pod(ref=PodRef("ns", name), uid="u", owner=reference, labels=labels or {})


def test_a_pod_of_a_stateful_set_is_its_replica() -> None:
    expected = Replica(Workload("ns", "StatefulSet", "web"), 3)
    assert replica_of(pod()) == expected
    assert replica_of(pod(labels={"apps.kubernetes.io/pod-index": "3"})) == expected
    assert expected.pod == PodRef("ns", "web-3")


def test_a_workload_whose_own_name_ends_in_a_number() -> None:
    assert replica_of(pod("web-1-0", owner="web-1")) == Replica(Workload("ns", "StatefulSet", "web-1"), 0)


@pytest.mark.parametrize(
    "stranger",
    [
        pod(controller=False),
        pod(kind="ReplicaSet"),
        pod(api="example.com/v1"),
        pod(api="v1"),
        pod("web-03"),
        pod("web-"),
        pod("web"),
        pod("web-x"),
        pod("web-³"),  # a digit to Unicode, not to Kubernetes
        pod("other-3"),
        pod("web-1-3"),
        pod("web-" + "9" * 200),
        pod(labels={"apps.kubernetes.io/pod-index": "4"}),
        Pod(ref=PodRef("ns", "web-3"), uid="u"),
    ],
    ids=lambda p: f"{p.ref.name}-{p.owner.kind if p.owner else 'none'}",
)
def test_where_anything_disagrees_the_pod_is_only_itself(stranger: Pod) -> None:
    assert replica_of(stranger) is None


def test_a_further_kind_is_one_only_when_configured_and_named_with_its_group() -> None:
    kruise = pod(api="apps.kruise.io/v1beta1")
    assert replica_of(kruise) is None
    assert replica_of(kruise, [KRUISE]) == Replica(Workload("ns", "StatefulSet.apps.kruise.io", "web"), 3)


def test_a_kind_with_a_label_needs_it_to_carry_the_pods_name() -> None:
    base = {"api": "core.strimzi.io/v1beta2", "kind": "StrimziPodSet"}
    assert replica_of(pod(**base, labels={"strimzi.io/pod-name": "web-3"}), [STRIMZI]) is not None  # type: ignore[arg-type]
    for labels in ({}, {"strimzi.io/pod-name": "web-4"}):
        assert replica_of(pod(**base, labels=labels), [STRIMZI]) is None  # type: ignore[arg-type]
