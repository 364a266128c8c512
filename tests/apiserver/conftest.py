"""A real control plane, and nodes on it.

One control plane for each xdist worker, made when its first test asks (about 5 s): nodes belong to a whole cluster, so
on a shared one the scheduler would place the pods of one worker's test on the nodes of another's. The tests of one
worker run one after the other and remove their nodes. A test that needs other timing, or that leaves
a mark on the cluster, takes `private_control_plane`.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest
from testcluster import binaries
from testcluster.api import Api
from testcluster.control_plane import ADMIN, USUAL, ControlPlane, Timing, kubelet_user
from testcluster.installing import install
from testcluster.kubelet import Kubelet
from testcluster.machines import Machine, Segment
from testcluster.sandboxes import Runtime

from homeport.host.files import LocalFiles
from homeport.kube import configs
from homeport.kube.objects import KubernetesObjects
from homeport.stores.kubernetes.resources import IPALLOCATIONS, IPLEDGERS, IPRANGES, IPSLOTS

WaitUntil = Callable[..., None]
COEXISTENCE = binaries.ROOT / "deploy" / "rbac-coexist.yaml"


class MakeControlPlane(Protocol):
    def __call__(self, timing: Timing = USUAL) -> ControlPlane: ...


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure shows the ends of the servers' logs."""
    report = yield
    if report.failed:
        for name in ("control_plane", "private_control_plane"):
            plane = getattr(item, "funcargs", {}).get(name)
            if isinstance(plane, ControlPlane) and plane.is_running:
                report.sections.append((f"logs of {name}", plane.log_tails()))
    return report


@pytest.fixture(scope="session")
def programs() -> binaries.Binaries:
    """etcd and the servers; building them may take minutes, which is what `make test` does beforehand."""
    return binaries.fetch()


@pytest.fixture(scope="session")
def control_plane(programs: binaries.Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """This worker's, with Homeport's custom resource and roles installed."""
    with ControlPlane(tmp_path_factory.mktemp("control-plane"), programs=programs) as plane:
        admin = Api(plane.access())
        install(admin)
        admin.close()
        yield plane


@pytest.fixture
def admin(control_plane: ControlPlane) -> Iterator[Api]:
    """May do everything."""
    api = Api(control_plane.access())
    yield api
    api.close()


@pytest.fixture
def objects(control_plane: ControlPlane, wait_until: Callable[..., None]) -> Iterator[KubernetesObjects]:
    """May do everything. What there is of Homeport's own objects after the test is removed, and forgotten."""
    config = configs.load(str(control_plane.kubeconfig(ADMIN)), {}, LocalFiles())
    assert config is not None
    objects = KubernetesObjects.connect(config)
    yield objects
    for resource in (IPALLOCATIONS, IPSLOTS, IPRANGES, IPLEDGERS):
        for stored in objects.list(resource):
            objects.delete(resource, stored.name)
    wait_until(lambda: not objects.names(IPALLOCATIONS))
    objects.close()


@pytest.fixture
def coexistence(admin: Api, wait_until: WaitUntil) -> Iterator[Callable[[], None]]:
    """To be called for deploy/rbac-coexist.yaml to be in force. It is not before, nor after the test."""
    given: list[dict[str, Any]] = []

    def may_write() -> bool:
        asked = {"verb": "create", "group": "whereabouts.cni.cncf.io", "resource": "ippools"}
        attributes = {**asked, "namespace": "kube-system"}
        spec = {"user": "a", "groups": ["homeport:nodes"], "resourceAttributes": attributes}
        review = admin.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", {"spec": spec})
        return bool(review["status"]["allowed"])

    def give() -> None:
        given.extend(admin.apply_file(COEXISTENCE))
        wait_until(may_write)  # the authorizer watches roles

    yield give
    for document in given:
        admin.delete(admin.path_of(document))
    wait_until(lambda: not may_write())


@pytest.fixture
def make_control_plane(programs: binaries.Binaries, tmp_path: Path) -> Iterator[MakeControlPlane]:
    """`make_control_plane(timing=...)`: the test's own, with everything installed; for its outages and clocks."""
    with ExitStack() as stack:

        def make(timing: Timing = USUAL) -> ControlPlane:
            folder = tmp_path / f"control-plane-{secrets.token_hex(3)}"
            plane = stack.enter_context(ControlPlane(folder, timing=timing, programs=programs))
            api = Api(plane.access())
            install(api)
            api.close()
            return plane

        yield make


@pytest.fixture
def private_control_plane(make_control_plane: MakeControlPlane) -> ControlPlane:
    """The test's own, to stop, pause and restart as it likes."""
    return make_control_plane()


@pytest.fixture
def namespace(admin: Api) -> Iterator[str]:
    """A new namespace. What the test left in it is removed by force, since its kubelets may be gone by then."""
    name = f"t-{secrets.token_hex(5)}"
    admin.create("/api/v1/namespaces", {"metadata": {"name": name}})
    yield name
    remove_namespace(admin, name)


def remove_namespace(admin: Api, name: str) -> None:
    """Its workloads first, else they would make new pods; the rest is the namespace controller's work."""
    for kind in ("statefulsets", "deployments", "replicasets", "daemonsets"):
        admin.request("DELETE", f"/apis/apps/v1/namespaces/{name}/{kind}")
    pods = f"/api/v1/namespaces/{name}/pods"
    admin.delete(f"/api/v1/namespaces/{name}")  # from now on no pod can be made in it
    for pod in admin.get(pods)["items"]:
        admin.delete(f"{pods}/{pod['metadata']['name']}", grace_seconds=0, uid=pod["metadata"]["uid"])


# --- nodes ---------------------------------------------------------------------------------------------------------


class MakeMachine(Protocol):
    def __call__(self, name: str, plane: ControlPlane | None = None) -> Machine:
        """A node's network, on this test's segment; `plane` is by default this worker's."""


class MakeKubelet(Protocol):
    def __call__(
        self,
        machine: Machine,
        config: Mapping[str, Any],
        *,
        plane: ControlPlane | None = None,
        bin_dirs: Sequence[str | Path] = ("/usr/lib/cni",),
        environ: Mapping[str, str] | None = None,
    ) -> Kubelet:
        """A started kubelet whose node has this network configuration; call it again for one that is restarted."""


@pytest.fixture
def segment(control_plane: ControlPlane) -> Iterator[Segment]:
    """What the uplinks of this test's nodes are joined to."""
    made = Segment(control_plane.guard)
    yield made
    made.close()


@pytest.fixture
def make_machine(control_plane: ControlPlane, segment: Segment) -> Iterator[MakeMachine]:
    made: list[Machine] = []

    def make(name: str, plane: ControlPlane | None = None) -> Machine:
        made.append(Machine(name, plane or control_plane, segment))
        return made[-1]

    yield make
    for machine in made:
        machine.close()


@pytest.fixture
def make_kubelet(
    control_plane: ControlPlane, admin: Api, namespace: str, make_machine: MakeMachine, tmp_path: Path
) -> Iterator[MakeKubelet]:
    """Kubelets that end, and whose nodes are removed, before the test's namespace is."""
    made: list[tuple[Kubelet, ControlPlane]] = []

    def make(
        machine: Machine,
        config: Mapping[str, Any],
        *,
        plane: ControlPlane | None = None,
        bin_dirs: Sequence[str | Path] = ("/usr/lib/cni",),
        environ: Mapping[str, str] | None = None,
    ) -> Kubelet:
        where = plane or control_plane
        folder = tmp_path / machine.name
        conf_dir = folder / "net.d"
        conf_dir.mkdir(parents=True, exist_ok=True)
        if config:
            (conf_dir / "00-network.conflist").write_text(json.dumps(config))
        runtime = Runtime(machine, folder, conf_dir=conf_dir, bin_dirs=bin_dirs, environ=environ)
        kubelet = Kubelet(machine, where.access(kubelet_user(machine.name)), runtime)
        made.append((kubelet, where))
        kubelet.start()
        return kubelet

    yield make
    for kubelet, where in made:
        kubelet.kill()
        if where is control_plane:
            admin.delete(f"/api/v1/nodes/{kubelet.name}")
