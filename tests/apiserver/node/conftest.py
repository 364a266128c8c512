"""Nodes with Homeport, and workloads on them.

Types for annotations: `if TYPE_CHECKING: from tests.apiserver.node.conftest import MakeNode`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from testcluster.api import Api
from testcluster.control_plane import ControlPlane
from testcluster.homeport_node import DAEMON, HomeportNode
from tests.apiserver.node.workloads import Cluster, remove_allocations
from tests.shim.builds import build

if TYPE_CHECKING:
    from tests.apiserver.conftest import MakeMachine


class MakeNode(Protocol):
    def __call__(
        self,
        name: str,
        *,
        plane: ControlPlane | None = None,
        start: bool = True,
        store: Path | None = None,
        settings: Mapping[str, Any] | None = None,
        server: str = "",
        environ: Mapping[str, str] | None = None,
        daemon: Sequence[str] = DAEMON,
        daemon_environ: Mapping[str, str] | None = None,
    ) -> HomeportNode:
        """`plane` is by default this worker's; see `HomeportNode` for the rest."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure shows the ends of the daemons' logs."""
    report = yield
    disks = getattr(item, "funcargs", {}).get("disks")
    if report.failed and isinstance(disks, Path):
        for log in sorted(disks.glob("*/var/log/homeportd.log")):
            report.sections.append((str(log), log.read_text(errors="replace")[-8000:]))
    return report


@pytest.fixture(scope="session")
def shim() -> Path:
    """The native one, built."""
    return build("native")


@pytest.fixture
def disks() -> Iterator[Path]:
    """Where the nodes' disks are, with a short name, since a socket's path is bounded."""
    with tempfile.TemporaryDirectory(prefix="hp-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture
def make_node(
    control_plane: ControlPlane, admin: Api, namespace: str, make_machine: MakeMachine, disks: Path, shim: Path
) -> Iterator[MakeNode]:
    """`make_node("node-a")`: one that runs.

    They end, and their Node objects and all allocations are removed, before the test's namespace is.
    """
    made: list[tuple[HomeportNode, ControlPlane]] = []

    def make(
        name: str,
        *,
        plane: ControlPlane | None = None,
        start: bool = True,
        store: Path | None = None,
        settings: Mapping[str, Any] | None = None,
        server: str = "",
        environ: Mapping[str, str] | None = None,
        daemon: Sequence[str] = DAEMON,
        daemon_environ: Mapping[str, str] | None = None,
    ) -> HomeportNode:
        where = plane or control_plane
        node = HomeportNode(
            make_machine(name, plane),
            where,
            disks / name,
            number=len(made) + 1,
            store=store,
            shim=shim,
            settings=settings,
            server=server,
            environ=environ,
            daemon=daemon,
            daemon_environ=daemon_environ,
        )
        made.append((node, where))
        if start:
            node.start()
        return node

    yield make
    for node, where in made:
        node.close()
        if where is control_plane:
            admin.delete(f"/api/v1/nodes/{node.name}")
    remove_allocations(admin)


@pytest.fixture
def cluster(admin: Api, namespace: str) -> Cluster:
    """The test's own namespace of this worker's control plane."""
    return Cluster(admin, namespace)
