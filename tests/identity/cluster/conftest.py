"""The cluster of the matrix: one for each xdist worker, its nodes shared by rows that run one after the other."""

from __future__ import annotations

import dataclasses
import itertools
import secrets
import tempfile
from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path

import pytest
from testcluster.api import Api
from testcluster.binaries import Binaries
from testcluster.control_plane import ControlPlane
from testcluster.homeport_node import HomeportNode
from testcluster.installing import install
from tests.apiserver.conftest import control_plane as control_plane
from tests.apiserver.conftest import programs as programs
from tests.apiserver.conftest import remove_namespace
from tests.apiserver.node.conftest import shim as shim
from tests.identity.cluster.crews import Crew
from tests.identity.cluster.sites import Site
from tests.identity.shapes import Shape

SHAPES = (Shape(1, False), Shape(2, True))
_SECONDS_TO_TIDY = 20.0
_FORGOTTEN_LATER = {"records"}  # of pods whose end the daemon did not see: within a minute
_blocks = itertools.count()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure shows the ends of the logs, and tells the fixtures that there was one."""
    report = yield
    if report.failed:
        item.stash[FAILED] = True
        given = getattr(item, "funcargs", {})
        crew = given.get("crew") or given.get("private_crew")
        if isinstance(crew, Crew):
            for node in crew.nodes.values():
                report.sections.append((f"log of {node.name}", node.log()[-8000:]))
            if crew.controller is not None:
                report.sections.append(("log of the controller", crew.controller.log()[-8000:]))
    return report


FAILED = pytest.StashKey[bool]()


def is_tidy(node: HomeportNode) -> bool:
    return not node.leftovers().keys() - _FORGOTTEN_LATER


@pytest.fixture(params=SHAPES, ids=str)
def shape(request: pytest.FixtureRequest) -> Shape:
    """With subnets no other test of this worker has."""
    found: Shape = request.param
    return dataclasses.replace(found, block=next(_blocks))


@pytest.fixture(scope="session")
def shared_crew(control_plane: ControlPlane, shim: Path) -> Iterator[Crew]:
    made = Crew(control_plane, Path(tempfile.mkdtemp(prefix="hp-", dir="/tmp")), shim)
    yield made
    made.close()


@pytest.fixture
def crew(shared_crew: Crew, request: pytest.FixtureRequest) -> Iterator[Crew]:
    """All nodes up and empty, the controller running. After a failure everything is made anew."""
    shared_crew.start()
    yield shared_crew
    if request.node.stash.get(FAILED, False):
        shared_crew.end()


@pytest.fixture
def private_crew(programs: Binaries, shim: Path, tmp_path: Path) -> Iterator[Crew]:
    """One of the test's own, to do with its control plane as it likes."""
    with ControlPlane(tmp_path / "control-plane", programs=programs) as plane:
        admin = Api(plane.access())
        install(admin)
        admin.close()
        made = Crew(plane, Path(tempfile.mkdtemp(prefix="hp-", dir="/tmp")), shim)
        made.start()
        yield made
        made.close()


@pytest.fixture
def private_site(private_crew: Crew, shape: Shape) -> Site:
    """A namespace of the test's own control plane."""
    name = f"t-{secrets.token_hex(5)}"
    private_crew.admin.create("/api/v1/namespaces", {"metadata": {"name": name}})
    return Site(private_crew.admin, name, private_crew.nodes, shape)


@pytest.fixture
def site(crew: Crew, shape: Shape, request: pytest.FixtureRequest) -> Iterator[Site]:
    """A namespace of the test's own. After it nothing is left on any node, and nothing is bound."""
    name = f"t-{secrets.token_hex(5)}"
    crew.admin.create("/api/v1/namespaces", {"metadata": {"name": name}})
    made = Site(crew.admin, name, crew.nodes, shape)
    yield made
    remove_namespace(crew.admin, name)
    if request.node.stash.get(FAILED, False):
        return
    for node in crew.nodes.values():
        node.wait(partial(is_tidy, node), _SECONDS_TO_TIDY, "nothing is left")
    made.await_phase("Bound", ())
