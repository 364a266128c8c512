"""The words of reviews under a real API server: what kubectl's users read, and what they are not kept from."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3
from testcluster.api import APPLY, MERGE, Api, ApiError
from testcluster.control_plane import ControlPlane
from tests.admission_reviews import NETWORKS, Json, definition, network_config, workload
from tests.apiserver.webhooks import reviewing

from homeport.admission.reviewing import Reviewer

pytestmark = pytest.mark.root

WaitUntil = Callable[..., None]
DEFINITIONS = "/apis/k8s.cni.cncf.io/v1/namespaces/{}/network-attachment-definitions"
STATEFUL_SETS = "/apis/apps/v1/namespaces/{}/statefulsets"


class Site:
    """One namespace under review, and what the API server answers to whoever writes in it."""

    def __init__(self, admin: Api, plane: ControlPlane, namespace: str, reviewer: Reviewer) -> None:
        self.admin, self.plane, self.namespace, self.reviewer = admin, plane, namespace, reviewer

    def definition(self, name: str = "storage", **rest: Any) -> Json:
        return definition(name, self.namespace, **rest)

    def workload(self, name: str = "web", replicas: int = 3, **rest: Any) -> Json:
        return workload(name, replicas, namespace=self.namespace, **rest)

    def create(self, body: Json) -> None:
        self.admin.create(self.collection(body), body)

    def refused(self, method: str, path: str, body: Json | None = None, kind: str = MERGE) -> str:
        """The message of a denial."""
        content_type = kind if method == "PATCH" else "application/json"
        with pytest.raises(ApiError) as caught:
            self.admin.request(method, path, body, content_type=content_type)
        assert caught.value.status == 403, caught.value
        return str(caught.value)

    def refused_creation(self, body: Json) -> str:
        return self.refused("POST", self.collection(body), body)

    def warnings(self, method: str, path: str, body: Json | None = None) -> list[str]:
        """The `Warning` headers of what was done."""
        access = self.plane.access()
        with urllib3.PoolManager(
            ca_certs=str(access.ca),
            cert_file=str(access.certificate) if access.certificate else None,
            key_file=str(access.key) if access.key else None,
        ) as pool:
            headers = {"Authorization": f"Bearer {access.token}"} if access.token else {}
            content_type = MERGE if method == "PATCH" else "application/json"
            answer = pool.request(
                method,
                f"{access.server}{path}",
                body=None if body is None else json.dumps(body),
                headers={**headers, "Content-Type": content_type},
            )
        assert answer.status < 300, answer.data
        return [header.partition('"')[2].removesuffix('"') for header in answer.headers.getlist("Warning")]

    def collection(self, body: Json) -> str:
        return self.admin.path_of(body).rpartition("/")[0]

    def path(self, body: Json) -> str:
        return self.admin.path_of(body)


@pytest.fixture
def site(
    admin: Api, control_plane: ControlPlane, namespace: str, tmp_path: Path, wait_until: WaitUntil
) -> Iterator[Site]:
    with reviewing(control_plane, admin, tmp_path, namespace) as reviewer:
        made = Site(admin, control_plane, namespace, reviewer)
        broken = made.definition("probe", config="{")

        def is_registered() -> bool:
            """The API server takes a while to notice a registration."""
            try:
                admin.request("POST", made.collection(broken), broken, parameters={"dryRun": "All"})
            except ApiError as error:
                return error.status == 403
            return False

        wait_until(is_registered, deadline=20)
        yield made


def test_a_network_with_a_mistake_is_refused_in_lints_words(site: Site) -> None:
    said = site.refused_creation(site.definition(range="10.9.0.0/33"))
    assert said.endswith(
        'denied the request: homeport: address-syntax: "10.9.0.0/33"; expected a network with its prefix,'
        " such as 10.1.2.0/24 (spec.config ipam.range)"
    )
    assert site.admin.find(site.path(site.definition())) is None
    site.create(site.definition())


def test_a_warning_reaches_whoever_asked(site: Site) -> None:
    body = site.definition(gateway="10.10.0.1")
    (line,) = site.warnings("POST", site.collection(body), body)
    assert line.startswith("homeport: gateway-outside: ")
    assert site.admin.find(site.path(body)) is not None


def test_a_workload_is_seen_with_its_network(site: Site, wait_until: WaitUntil) -> None:
    body = site.workload()
    (line,) = site.warnings("POST", site.collection(body), body)
    assert f'network \\"{site.namespace}/storage\\" is not in the cluster' in line
    site.create(site.definition())
    site.admin.patch(site.path(body), {"spec": {"replicas": 6}})
    grown = site.refused("PATCH", site.path(body), {"spec": {"replicas": 7}})
    assert "pool-too-small" in grown
    assert f"NetworkAttachmentDefinition {site.namespace}/storage, spec.config ipam.range" in grown
    # Two of one pool, the second known by the watch alone.
    other = site.workload("other", 1)
    wait_until(lambda: "pool-too-small" in _refusal(site, other), deadline=10)


def _refusal(site: Site, body: Json) -> str:
    """What a dry run of its creation is told; "" when it would be done."""
    try:
        site.admin.request("POST", site.collection(body), body, parameters={"dryRun": "All"})
    except ApiError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("kind", ["StatefulSet", "Deployment"])
def test_scaling_beyond_the_pool_is_refused(site: Site, kind: str) -> None:
    site.create(site.definition())
    body = site.workload(kind=kind)
    site.create(body)
    scale = f"{site.path(body)}/scale"
    assert "pool-too-small" in site.refused("PATCH", scale, {"spec": {"replicas": 9}})
    site.admin.patch(scale, {"spec": {"replicas": 5}})
    site.admin.patch(scale, {"spec": {"replicas": 0}})


def test_e16_a_wrong_map_is_refused_with_the_entry_named(site: Site) -> None:
    site.create(site.definition())
    for addresses, entry, said in (
        (["10.9.0.1", "10.9.0.2", "10.9.0.2"], "[2]", "10.9.0.2 is mapped twice"),
        (["10.9.0.1", "10.9.0.77", "10.9.0.3"], "[1]", "10.9.0.77; expected an address of 10.9.0.1-10.9.0.6"),
        (["10.9.0.1", "10.9.0.2"], "", "the map has 2 entries"),
    ):
        note = {"homeport.dev/addresses": json.dumps({"storage": addresses})}
        told = site.refused_creation(site.workload(pod_annotations=note))
        assert said in told
        assert f'spec.template.metadata.annotations["homeport.dev/addresses"] storage{entry})' in told


def test_what_was_wrong_before_locks_nobody_out(site: Site, admin: Api, tmp_path: Path) -> None:
    """Stored before there were reviews: it may be labelled, scaled down, mended and deleted."""
    site.admin.patch(f"/api/v1/namespaces/{site.namespace}", {"metadata": {"labels": {"reviewed": None}}})
    wrong = site.definition(range="10.9.0.0/33")
    large = site.workload(replicas=0, networks="storage@an-interface-of-a-long-name")
    for body in (wrong, large):
        site.create(body)
    site.admin.patch(f"/api/v1/namespaces/{site.namespace}", {"metadata": {"labels": {"reviewed": site.namespace}}})
    assert site.warnings("PATCH", site.path(wrong), {"metadata": {"labels": {"a": "b"}}}) == []
    config = json.dumps({**network_config(range="10.9.0.0/33"), "mtu": 1400})
    (line,) = site.warnings("PATCH", site.path(wrong), {"spec": {"config": config}})
    assert "it was so before" in line
    site.admin.patch(site.path(wrong), {"spec": site.definition()["spec"]})
    lines = site.warnings("PATCH", site.path(large), {"metadata": {"annotations": {"team": "a"}}})
    assert any("it was so before" in line for line in lines)
    assert site.admin.delete(site.path(large))
    assert site.admin.delete(site.path(wrong))


def test_pods_by_themselves_are_looked_at(site: Site) -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "alone", "namespace": site.namespace, "annotations": {NETWORKS: "[{"}},
        "spec": {"containers": [{"name": "main", "image": "registry.example/web:1"}]},
    }
    assert "annotation-syntax" in site.refused_creation(pod)
    pod["metadata"] = {"name": "alone", "namespace": site.namespace}
    assert site.warnings("POST", site.collection(pod), pod) == []


def test_cron_jobs_and_jobs_are_looked_at(site: Site) -> None:
    template = {
        "metadata": {"annotations": {NETWORKS: "[{"}},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "registry.example/web:1"}]},
    }
    metadata = {"name": "night", "namespace": site.namespace}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"template": template}}
    assert 'spec.template.metadata.annotations["k8s.v1.cni.cncf.io/networks"]' in site.refused_creation(job)


def test_server_side_apply_and_dry_runs_are_reviewed_alike(site: Site) -> None:
    body = site.definition(range="nonsense")
    told = site.refused("PATCH", f"{site.path(body)}?fieldManager=me&force=true", body, APPLY)
    assert "address-syntax" in told
    assert "address-syntax" in _refusal(site, body)
    assert _refusal(site, site.definition()) == ""
    assert site.admin.find(site.path(body)) is None, "a dry run stores nothing"


def test_allocations_written_by_hand(site: Site, objects: Any) -> None:
    del objects  # removes what is left of ours
    body = {
        "apiVersion": "homeport.dev/v1alpha1",
        "kind": "IPAllocation",
        "metadata": {"name": "10.77.0.1"},
        "spec": {
            "address": "10.77.0.1",
            "network": "storage",
            "interface": "net1",
            "owner": {
                "kind": "Replica",
                "namespace": "shop",
                "name": "web-0",
                "workload": {"kind": "StatefulSet", "name": "web"},
                "ordinal": 0,
            },
        },
        "status": {"phase": "Retained", "since": "2026-11-23T10:00:00Z"},
    }
    assert "allocation-content" in site.refused_creation({**body, "metadata": {"name": "10.77.0.2"}})
    site.create(body)
    path = site.path(body)
    assert "allocation-owner" in site.refused("PATCH", path, {"spec": {"interface": "net2"}})
    holder = {"containerID": "c1", "interface": "net1", "node": "node-1"}
    bound = {"status": {"phase": "Bound", "holder": holder}}
    assert "allocation-phase" in site.refused("PATCH", path, bound)
    node = Api(site.plane.access("node-1", ["homeport:nodes"]))
    node.patch(path, bound)
    node.close()
    (line,) = site.warnings("DELETE", path)
    assert "10.77.0.1 is in use by shop/web-0 on node node-1; its node puts it back" in line
