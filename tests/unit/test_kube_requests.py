"""Requests to the API server: each builder, to the byte."""

from __future__ import annotations

import json

import pytest

from homeport.ipam.identities import Workload
from homeport.kube import requests
from homeport.kube.requests import Request
from homeport.model.errors import InvalidNetConf, UnsupportedField
from homeport.model.names import PodRef

WEB_0 = PodRef("shop", "web-0")
CRD = "/apis/k8s.cni.cncf.io/v1"


@pytest.mark.parametrize(
    ("request_", "verb", "resource", "target"),
    [
        (requests.get_pod(WEB_0), "get", "pods", "/api/v1/namespaces/shop/pods/web-0"),
        (
            requests.get_definition("shop", "vlan.10"),
            "get",
            "network-attachment-definitions",
            f"{CRD}/namespaces/shop/network-attachment-definitions/vlan.10",
        ),
        (requests.get_node("n1.example.org"), "get", "nodes", "/api/v1/nodes/n1.example.org"),
        (
            requests.get_stateful_set(Workload("shop", "StatefulSet", "web")),
            "get",
            "statefulsets",
            "/apis/apps/v1/namespaces/shop/statefulsets/web",
        ),
        (requests.list_pods("n1"), "list", "pods", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1&limit=500"),
        (
            requests.list_pods("n1", continue_token="a+b/c="),
            "list",
            "pods",
            "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1&limit=500&continue=a%2Bb%2Fc%3D",
        ),
        (
            requests.list_definitions(),
            "list",
            "network-attachment-definitions",
            f"{CRD}/network-attachment-definitions?limit=500",
        ),
        (
            requests.watch_pods("n1", "77", timeout_seconds=300),
            "watch",
            "pods",
            "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1&watch=true&resourceVersion=77"
            "&allowWatchBookmarks=true&timeoutSeconds=300",
        ),
        (
            requests.watch_definitions("77", timeout_seconds=5),
            "watch",
            "network-attachment-definitions",
            f"{CRD}/network-attachment-definitions?watch=true&resourceVersion=77"
            "&allowWatchBookmarks=true&timeoutSeconds=5",
        ),
    ],
)
def test_questions(request_: Request, verb: str, resource: str, target: str) -> None:
    assert (request_.verb, request_.resource, request_.target) == (verb, resource, target)
    assert (request_.method, request_.body, request_.headers) == ("GET", b"", ())


def test_a_list_without_its_items() -> None:
    assert requests.version_alone(requests.list_definitions()).target == (
        f"{CRD}/network-attachment-definitions?fieldSelector=metadata.name%3Dno-object-has-this-name&resourceVersion=0"
    )
    selector = "spec.nodeName%3Dn1%2Cmetadata.name%3Dno-object-has-this-name"
    assert requests.version_alone(requests.list_pods("n1")).target == (
        f"/api/v1/pods?fieldSelector={selector}&resourceVersion=0"
    )


def test_annotations_go_through_the_status_of_that_very_pod() -> None:
    assert requests.patch_pod_annotations(WEB_0, "u-1", {"a/b": 'x"y', "c": ""}) == Request(
        verb="patch",
        resource="pods/status",
        method="PATCH",
        path="/api/v1/namespaces/shop/pods/web-0/status",
        headers=(("Content-Type", "application/merge-patch+json"),),
        body=b'{"metadata":{"uid":"u-1","annotations":{"a/b":"x\\"y","c":""}}}',
        namespace="shop",
        name="web-0",
    )
    assert json.loads(requests.patch_pod_annotations(WEB_0, "", {"a": "b"}).body) == {
        "metadata": {"annotations": {"a": "b"}}
    }


def test_events_are_created_and_counted() -> None:
    created = requests.create_event("shop", {"metadata": {"name": "web-0.1"}})
    assert (created.method, created.path) == ("POST", "/api/v1/namespaces/shop/events")
    assert (created.headers, created.body) == (
        (("Content-Type", "application/json"),),
        b'{"metadata":{"name":"web-0.1"}}',
    )
    counted = requests.patch_event("shop", "web-0.1", {"count": 2})
    assert (counted.method, counted.path) == ("PATCH", "/api/v1/namespaces/shop/events/web-0.1")
    assert (counted.headers, counted.body) == ((("Content-Type", "application/merge-patch+json"),), b'{"count":2}')


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a/b", "../secrets/x", "a%2fb", "a b", "A", "-a", "a-", "a..b", "a\0", "a\n", "é", "a" * 254],
)
def test_a_name_that_no_object_can_have_is_never_sent(name: str) -> None:
    with pytest.raises(InvalidNetConf, match=r"name in (pods|nodes|namespaces|network)"):
        requests.get_pod(PodRef("shop", name))
    with pytest.raises(InvalidNetConf):
        requests.get_node(name)
    with pytest.raises(InvalidNetConf):
        requests.watch_pods(name, "1", timeout_seconds=1)
    with pytest.raises(InvalidNetConf):
        requests.create_event(name, {})
    with pytest.raises(InvalidNetConf):
        requests.get_pod(PodRef(name, "web-0"))
    with pytest.raises(InvalidNetConf):
        requests.get_definition(name, "net")


def test_the_longest_name_is_sent() -> None:
    assert requests.get_pod(PodRef("shop", "a" * 253)).path.endswith("a" * 253)


def test_a_kind_without_a_group_is_only_kubernetes_own() -> None:
    with pytest.raises(UnsupportedField, match=r'found kind "ReplicaSet", expected StatefulSet or KIND\.GROUP'):
        requests.get_stateful_set(Workload("shop", "ReplicaSet", "web"))


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (requests.get_pod(WEB_0), "get pods shop/web-0"),
        (requests.get_node("n1"), "get nodes n1"),
        (requests.create_event("shop", {}), "create events shop"),
        (requests.list_definitions(), "list network-attachment-definitions"),
    ],
)
def test_what_messages_call_it(request_: Request, said: str) -> None:
    assert str(request_) == said
