"""Requests about any resource, what a watch of it tells, and kinds of workloads: to the byte, without a server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from homeport.ipam.identities import Workload
from homeport.kube import decoding, errors, object_requests
from homeport.kube.decoding import Page
from homeport.kube.errors import Expired
from homeport.kube.following import Follower
from homeport.model.errors import CniError, DecodeFailure, InternalError, InvalidNetConf, IOFailure, TryAgainLater
from homeport.ports import ApiObject, Deletion, Resource

ALLOCATIONS = Resource(group="homeport.dev", version="v1alpha1", plural="ipallocations", kind="IPAllocation")
MAPS = Resource(group="", version="v1", plural="configmaps", kind="ConfigMap", namespaced=True)
LEASES = Resource(group="coordination.k8s.io", version="v1", plural="leases", kind="Lease", namespaced=True)
ROOT = "/apis/homeport.dev/v1alpha1/ipallocations"


# --- requests ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "said", "target"),
    [
        (object_requests.get(ALLOCATIONS, "10.0.0.1"), "get ipallocations 10.0.0.1", f"{ROOT}/10.0.0.1"),
        (object_requests.get(MAPS, "a", "shop"), "get configmaps shop/a", "/api/v1/namespaces/shop/configmaps/a"),
        (object_requests.list_page(ALLOCATIONS), "list ipallocations", f"{ROOT}?limit=500"),
        (object_requests.list_page(MAPS), "list configmaps", "/api/v1/configmaps?limit=500"),
        (
            object_requests.list_page(LEASES, namespace="kube-system"),
            "list leases kube-system",
            "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases?limit=500",
        ),
        (
            object_requests.list_page(ALLOCATIONS, labels={"homeport.dev/node": "n1", "l": ""}),
            "list ipallocations",
            f"{ROOT}?labelSelector=homeport.dev%2Fnode%3Dn1%2Cl%3D&limit=500",
        ),
        (
            object_requests.list_page(ALLOCATIONS, "", "77"),
            "list ipallocations",
            f"{ROOT}?resourceVersion=77&resourceVersionMatch=Exact&limit=500",
        ),
        (
            object_requests.list_page(ALLOCATIONS, "", "0"),
            "list ipallocations",
            f"{ROOT}?resourceVersion=0&limit=500",
        ),
        (
            object_requests.list_page(ALLOCATIONS, "more", "77"),  # the token says the version
            "list ipallocations",
            f"{ROOT}?limit=500&continue=more",
        ),
        (
            object_requests.watch(ALLOCATIONS, "77", 300, labels={"a": "b"}),
            "watch ipallocations",
            f"{ROOT}?labelSelector=a%3Db&watch=true&resourceVersion=77&allowWatchBookmarks=true&timeoutSeconds=300",
        ),
    ],
)
def test_questions(request_: Any, said: str, target: str) -> None:
    assert (str(request_), request_.target) == (said, target)
    assert (request_.method, request_.body) == ("GET", b"")


def test_a_creation_says_what_it_is() -> None:
    request = object_requests.create(LEASES, {"metadata": {"name": "l"}, "spec": {}}, "kube-system")
    assert (request.method, request.path) == ("POST", "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases")
    assert json.loads(request.body) == {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "l"},
        "spec": {},
    }
    assert str(request) == "create leases kube-system/l"


def test_a_merge_patch_carries_the_version_among_what_it_changes() -> None:
    request = object_requests.patch(ALLOCATIONS, "10.0.0.1", {"metadata": {"labels": {"a": None}}}, version="7")
    assert (request.method, request.path) == ("PATCH", f"{ROOT}/10.0.0.1")
    assert request.headers == (("Content-Type", "application/merge-patch+json"),)
    assert json.loads(request.body) == {"metadata": {"labels": {"a": None}, "resourceVersion": "7"}}
    assert json.loads(object_requests.patch(ALLOCATIONS, "a", {"spec": {}}).body) == {"spec": {}}


def test_a_json_patch() -> None:
    request = object_requests.patch_json(MAPS, "a", [{"op": "remove", "path": "/data/k"}], "shop")
    assert request.headers == (("Content-Type", "application/json-patch+json"),)
    assert json.loads(request.body) == [{"op": "remove", "path": "/data/k"}]


def test_a_deletion_names_what_it_saw() -> None:
    request = object_requests.delete(ALLOCATIONS, "10.0.0.1", version="7", uid="u")
    assert (request.method, request.path) == ("DELETE", f"{ROOT}/10.0.0.1")
    assert json.loads(request.body)["preconditions"] == {"resourceVersion": "7", "uid": "u"}
    assert "preconditions" not in json.loads(object_requests.delete(ALLOCATIONS, "10.0.0.1").body)


def test_a_deletion_says_what_becomes_of_what_belongs_to_the_object() -> None:
    usual = json.loads(object_requests.delete(ALLOCATIONS, "10.0.0.1").body)
    assert usual["propagationPolicy"] == "Background"
    assert "gracePeriodSeconds" not in usual
    manner = Deletion(propagation="Orphan", grace_seconds=0)
    asked = json.loads(object_requests.delete(ALLOCATIONS, "10.0.0.1", manner=manner).body)
    assert (asked["propagationPolicy"], asked["gracePeriodSeconds"]) == ("Orphan", 0)


@pytest.mark.parametrize("name", ["", "a/b", "../secrets", "A", "a b", "a%2fb"])
def test_a_name_that_no_object_can_have_is_never_sent(name: str) -> None:
    for build in (object_requests.get, object_requests.delete):
        with pytest.raises(InvalidNetConf, match="name in ipallocations"):
            build(ALLOCATIONS, name)
    with pytest.raises(InvalidNetConf, match="name in namespaces"):
        object_requests.get(MAPS, "a", name)


@pytest.mark.parametrize(
    "labels", [{"a": "b,c=d"}, {"a": "b "}, {"a=b,c": "d"}, {"a": "x" * 64}, {"!a": ""}, {"": "b"}, {"a": "b\n"}]
)
def test_a_label_never_becomes_another_selector(labels: dict[str, str]) -> None:
    with pytest.raises(InvalidNetConf, match="label"):
        object_requests.list_page(ALLOCATIONS, labels=labels)


# --- refusals ----------------------------------------------------------------------------------------------------


def status(code: int, reason: str = "", **details: Any) -> bytes:
    return json.dumps({"kind": "Status", "code": code, "reason": reason, "details": details}).encode()


def test_a_definition_that_is_not_installed_is_named_and_is_no_absence() -> None:
    request = object_requests.get(ALLOCATIONS, "10.0.0.1")
    for body in (b"404 page not found\n", status(404, "NotFound")):
        assert not errors.is_absence(request, 404, body)
        error = errors.refused(request, 404, body, place="API server x")
        assert type(error) is IOFailure
        assert error.msg == (
            'get ipallocations 10.0.0.1: API server x knows no resource "ipallocations" (404), '
            'expected the definition "ipallocations.homeport.dev" to be installed'
        )
    assert errors.is_absence(request, 404, status(404, "NotFound", name="10.0.0.1", kind="ipallocations"))


def test_kubernetes_own_resources_come_by_themselves() -> None:
    for resource in (MAPS, LEASES):
        error = errors.refused(object_requests.get(resource, "a", "shop"), 404, b"", place="API server x")
        assert type(error) is TryAgainLater


@pytest.mark.parametrize(
    ("code", "body", "expected"),
    [
        (409, status(409, "AlreadyExists"), True),
        (409, status(409, "Conflict"), False),
        (409, b"", False),
        (403, status(403, "AlreadyExists"), False),
    ],
)
def test_only_one_409_says_that_a_name_is_taken(code: int, body: bytes, *, expected: bool) -> None:
    assert errors.is_taken(code, body) is expected


def test_a_failed_test_is_told_from_an_invalid_object() -> None:
    assert errors.is_failed_test(422, status(422, "Invalid"))
    assert not errors.is_failed_test(422, status(422, "Invalid", name="10.0.0.1", causes=[{"field": "spec"}]))
    assert not errors.is_failed_test(409, status(409, "Conflict"))


# --- what a watch tells --------------------------------------------------------------------------------------------


class Heard:
    def __init__(self) -> None:
        self.told: list[tuple[str, str, str]] = []
        self.bodies: list[bytes] = []
        self.troubles: list[CniError] = []
        self.follower = Follower(
            on_change=lambda found: self._note("changed", found),
            on_gone=lambda found: self._note("gone", found),
            on_listed=lambda version: self.told.append(("listed", "", version)),
            on_trouble=self.troubles.append,
        )

    def _note(self, what: str, found: ApiObject) -> None:
        self.told.append((what, found.name, found.version))
        self.bodies.append(found.body)

    def take(self) -> list[tuple[str, str, str]]:
        told, self.told = self.told, []
        return told


def thing(name: str, version: str, uid: str = "u") -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": uid, "resourceVersion": version}}


def page(*items: Any, version: str = "9") -> Page:
    return decoding.decode_page(json.dumps({"metadata": {"resourceVersion": version}, "items": items}).encode())


def line(kind: str, what: Any) -> bytes:
    return json.dumps({"type": kind, "object": what}).encode()


def test_each_version_is_told_once_and_each_end_once() -> None:
    heard = Heard()
    heard.follower.replace([page(thing("a", "1"), thing("b", "2")), page(thing("c", "3"))])
    assert heard.take() == [("changed", "a", "1"), ("changed", "b", "2"), ("changed", "c", "3"), ("listed", "", "9")]
    assert heard.follower.apply(line("ADDED", thing("a", "1"))).version == "1"
    assert heard.take() == []
    heard.follower.apply(line("MODIFIED", thing("a", "10")))
    assert heard.follower.apply(line("DELETED", thing("b", "11"))).version == "11"
    assert heard.follower.apply(line("BOOKMARK", {"metadata": {"resourceVersion": "12"}})).version == "12"
    assert heard.take() == [("changed", "a", "10"), ("gone", "b", "11")]
    heard.bodies.clear()
    heard.follower.replace([page(thing("a", "10"), version="20")])
    assert heard.take() == [("gone", "c", "3"), ("listed", "", "20")]
    assert heard.bodies == [b""]


def test_a_list_that_breaks_off_tells_of_no_end() -> None:
    heard = Heard()
    heard.follower.replace([page(thing("a", "1"), thing("b", "2"))])

    def broken() -> Any:
        yield page(thing("a", "1"))
        raise Expired("too late")

    heard.take()
    with pytest.raises(Expired):
        heard.follower.replace(broken())
    assert heard.take() == []
    with pytest.raises(DecodeFailure):
        heard.follower.replace([page(thing("a", "1"), {"metadata": {"name": "strange"}})])
    assert heard.take() == []


def test_another_of_the_same_name_ends_the_former() -> None:
    heard = Heard()
    heard.follower.replace([page(thing("a", "1"))])
    heard.take()
    heard.follower.apply(line("ADDED", thing("a", "5", uid="u2")))
    heard.follower.apply(line("DELETED", thing("a", "4", uid="u")))  # the former's end, late
    assert heard.take() == [("gone", "a", "1"), ("changed", "a", "5")]


def test_what_a_listener_raises_ends_nothing() -> None:
    heard = Heard()

    def fail(_found: ApiObject) -> None:
        raise ValueError("of its own")

    follower = Follower(on_change=fail, on_gone=fail, on_listed=lambda _v: None, on_trouble=heard.troubles.append)
    follower.replace([page(thing("a", "1"))])
    follower.apply(line("DELETED", thing("a", "2")))
    assert [type(error) for error in heard.troubles] == [InternalError, InternalError]
    assert "ValueError: of its own" in heard.troubles[0].msg


# --- workloads of other kinds ------------------------------------------------------------------------------------

SHOP = Workload("shop", "Cluster.db.example", "web")


def workload(spec: dict[str, Any], **annotations: str) -> bytes:
    meta = {"namespace": "shop", "name": "web", "uid": "u", "annotations": annotations}
    return json.dumps({"metadata": meta, "spec": spec}).encode()


def pods(*names: str) -> list[Any]:
    return [{"metadata": {"name": name}, "spec": {"containers": []}} for name in names]


@pytest.mark.parametrize(
    ("spec", "start", "replicas"),
    [
        ({"replicas": 3}, 0, 3),
        ({"replicas": 3, "ordinals": {"start": 5}}, 5, 3),
        ({"replicas": 0, "instances": 7}, 0, 0),
        ({"instances": 2}, 1, 2),
        ({"pods": pods("web-4", "web-7", "web-5")}, 4, 4),
        ({"pods": pods("web-0", "other")}, 0, 2),
        ({"pods": []}, 0, 0),
    ],
)
def test_how_many_replicas_a_kind_wants(spec: dict[str, Any], start: int, replicas: int) -> None:
    found = decoding.decode_workload(workload(spec), SHOP)
    assert (found.workload, found.ordinals_start, found.replicas) == (SHOP, start, replicas)


def test_annotations_of_a_workload_are_above_its_templates() -> None:
    template = {"template": {"metadata": {"annotations": {"a": "template", "b": "template"}}}}
    found = decoding.decode_workload(workload({"replicas": 1, **template}, a="own"), SHOP)
    assert found.annotations == {"a": "own", "b": "template"}


@pytest.mark.parametrize("spec", [{}, {"size": 3}, {"replicas": "3"}, {"pods": {"web-0": {}}}])
def test_a_number_of_replicas_that_is_not_known_is_never_zero(spec: dict[str, Any]) -> None:
    with pytest.raises(DecodeFailure):
        decoding.decode_workload(workload(spec), SHOP)
