"""Rows of the conformance matrix (docs/identity.md) that end at admission: the controller as a process reviews.

No nodes: what is refused never gets that far. That the same is refused at ADD, where nothing reviews, is a row of its
own (test_cluster_policies.py).
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from testcluster.api import Api, ApiError
from testcluster.binaries import Binaries
from testcluster.control_plane import ControlPlane
from testcluster.homeport_controller import HomeportController
from testcluster.installing import install
from tests.apiserver.conftest import remove_namespace
from tests.identity.cluster.crews import LEASE_SECONDS
from tests.identity.cluster.sites import Site, as_map
from tests.identity.shapes import Shape

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]

_MISTAKES = {
    "duplicate": ((0, 1, 1), "[2]", "{0} is mapped twice; expected every address once"),
    "outside": ((0, 1, 300), "[2]", "{0}; expected an address of "),
    "short": ((0, 1), "", 'the map has 2 entries, StatefulSet "web" has 3 replicas; expected one entry a replica'),
}


@pytest.fixture(scope="module")
def reviewed(programs: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A control plane whose controller reviews."""
    folder = tmp_path_factory.mktemp("reviewed")
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    settings = {
        "leaseSeconds": LEASE_SECONDS,
        "admission": {"port": port, "address": "127.0.0.1", "url": f"https://127.0.0.1:{port}"},
    }
    with ControlPlane(folder / "control-plane", programs=programs) as plane:
        admin = Api(plane.access())
        install(admin)
        controller = HomeportController(plane, folder, settings=settings)
        controller.start()
        controller.wait(lambda: _is_reviewed(admin), 60, "a mistake is refused")
        yield admin
        controller.stop()
        admin.close()


def _is_reviewed(admin: Api) -> bool:
    metadata = {"name": "probe", "namespace": "default"}
    body = {"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition", "metadata": metadata}
    networks = "/apis/k8s.cni.cncf.io/v1/namespaces/default/network-attachment-definitions"
    try:
        admin.request("POST", networks, {**body, "spec": {"config": "{"}}, parameters={"dryRun": "All"})
    except ApiError as error:
        return error.status == 403
    return False


@pytest.fixture
def reviewed_site(reviewed: Api, shape: Shape) -> Iterator[Site]:
    name = f"t-{secrets.token_hex(5)}"
    reviewed.create("/api/v1/namespaces", {"metadata": {"name": name}})
    yield Site(reviewed, name, {}, shape)
    remove_namespace(reviewed, name)


@pytest.mark.parametrize("mistake", _MISTAKES)
def test_e16_a_wrong_map_is_refused_at_admission(reviewed_site: Site, mistake: str) -> None:
    site = reviewed_site
    numbers, entry, said = _MISTAKES[mistake]
    site.networks()
    told = _refusal(lambda: site.workload(pod_annotations=as_map(site.shape.map_of(*numbers))))
    assert said.format(site.shape.address("one", 4, numbers[-1])) in told
    assert f'(spec.template.metadata.annotations["homeport.dev/addresses"] one{entry}' in told
    assert not site.exists("web")
    site.workload(pod_annotations=as_map(site.shape.map_of(0, 1, 2)))


@pytest.mark.parametrize("mistake", _MISTAKES)
def test_e16_a_wrong_map_of_a_network_is_refused_at_admission(reviewed_site: Site, mistake: str) -> None:
    site = reviewed_site
    numbers, entry, said = _MISTAKES[mistake]

    def sticky(*places: int) -> dict[str, Any]:
        return {"replicas": {f"{site.namespace}/web": site.shape.mapped("one", *places)}}

    site.networks()
    site.workload()
    told = _refusal(lambda: site.networks(names=["one"], sticky=sticky(*numbers)))
    assert said.format(site.shape.address("one", 4, numbers[-1])) in told
    assert f'(spec.config plugins[0].ipam.sticky.replicas["{site.namespace}/web"]{entry}' in told
    site.networks(names=["one"], sticky=sticky(0, 1, 2))


def test_e16_a_workload_that_outgrows_its_map_is_refused_at_admission(reviewed_site: Site) -> None:
    site = reviewed_site
    site.networks()
    site.workload(annotations=as_map(site.shape.map_of(0, 1, 2)))
    assert "the map has 3 entries" in _refusal(lambda: site.scale("web", 4))
    site.scale("web", 2)
    site.scale("web", 3)


def _refusal(act: Callable[[], object]) -> str:
    with pytest.raises(ApiError) as caught:
        act()
    assert caught.value.status == 403, caught.value
    return str(caught.value)
