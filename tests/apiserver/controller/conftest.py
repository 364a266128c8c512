"""Controllers as processes on a real API server with the real StatefulSet controller."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from testcluster.api import Api
from testcluster.control_plane import ControlPlane
from testcluster.homeport_controller import HomeportController
from tests.apiserver.controller.hands import LEASE, OURS, Hand

from homeport.host.files import LocalFiles
from homeport.kube import configs
from homeport.kube.objects import KubernetesObjects
from homeport.stores.kubernetes.store import KubernetesStore


class MakeController(Protocol):
    def __call__(self, name: str = "controller-a", **settings: Any) -> HomeportController: ...


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure shows the ends of the controllers' logs."""
    report = yield
    controllers = getattr(item, "funcargs", {}).get("controllers")
    if report.failed and controllers:
        for controller in controllers:
            report.sections.append((controller.name, controller.log()[-8000:]))
    return report


@pytest.fixture
def objects(control_plane: ControlPlane) -> Iterator[KubernetesObjects]:
    api = configs.load(str(control_plane.kubeconfig()), {}, LocalFiles())
    assert api is not None
    made = KubernetesObjects.connect(api)
    yield made
    made.close()


@pytest.fixture
def controllers() -> Iterator[list[HomeportController]]:
    """Those that the test made; ended by force, in whatever state they are."""
    made: list[HomeportController] = []
    yield made
    for controller in made:
        controller.kill()


@pytest.fixture
def make_controller(control_plane: ControlPlane, controllers: list[HomeportController]) -> Iterator[MakeController]:
    """A started one. The lease is three seconds long unless said."""
    with tempfile.TemporaryDirectory(prefix="hc-") as folder:

        def make(name: str = "controller-a", **settings: Any) -> HomeportController:
            made = HomeportController(
                control_plane, Path(folder), name=name, settings={"leaseSeconds": 3, "identity": name, **settings}
            )
            controllers.append(made)
            made.start()
            return made

        yield make


@pytest.fixture
def hand(
    admin: Api, objects: KubernetesObjects, namespace: str, controllers: list[HomeportController]
) -> Iterator[Hand]:
    made = Hand(admin, KubernetesStore(objects), namespace)
    node = made.node("node")
    yield made
    for controller in controllers:
        controller.kill()
    for kind in ("ipallocations", "ipslots", "ipranges", "ipledgers"):
        admin.request("DELETE", f"{OURS}/{kind}")
    admin.delete(LEASE)
    made.remove_node(node)
