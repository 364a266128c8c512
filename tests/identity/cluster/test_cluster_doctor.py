"""Doctor from afar beside real nodes and a real controller: silent while all is well, and again once it is."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from homeport.doctor.cluster import examine
from homeport.doctor.findings import Report
from homeport.host.files import LocalFiles
from homeport.kube import configs
from homeport.kube.objects import KubernetesObjects

if TYPE_CHECKING:
    from tests.identity.cluster.crews import Crew
    from tests.identity.cluster.sites import Site

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]

AHEAD = timedelta(minutes=10)
OF_THE_CLOCK = {"controller-silent"}  # a lease is not renewed ahead of time


@pytest.fixture
def objects(crew: Crew) -> Iterator[KubernetesObjects]:
    config = configs.load(str(crew.plane.kubeconfig()), {}, LocalFiles())
    assert config is not None
    made = KubernetesObjects.connect(config)
    yield made
    made.close()


class Doctor:
    def __init__(self, objects: KubernetesObjects) -> None:
        self._objects = objects

    def examine(self, ahead: timedelta = timedelta()) -> Report:
        return examine(self._objects, place="the cluster", now=datetime.now(UTC) + ahead)

    def ids_of_old_age(self) -> set[str]:
        """Once nothing is too young to be judged."""
        report = self.examine(AHEAD)
        assert report.unlooked == ()
        return {d.id for d in report.diagnoses} - OF_THE_CLOCK


def test_doctor_has_nothing_to_say_of_a_cluster_that_works(site: Site, objects: KubernetesObjects) -> None:
    doctor = Doctor(objects)
    site.networks()
    site.workload()
    site.await_seen(site.numbered())
    site.workload("visitor", 2, kind="Deployment")
    site.wait(lambda: len(site.hosts("visitor")) == 2, "the visitors run")
    site.wait(lambda: not doctor.ids_of_old_age(), "the ledger tells of it all", seconds=20.0)

    assert doctor.examine().diagnoses == ()
    site.scale("web", 1)
    site.await_seen(site.numbered(1), "web")
    site.wait(lambda: not doctor.ids_of_old_age(), "what was scaled away is retained", seconds=20.0)


def test_doctor_tells_of_a_daemon_that_does_not_let_go(site: Site, objects: KubernetesObjects) -> None:
    doctor = Doctor(objects)
    site.networks()
    site.workload()
    site.await_seen(site.numbered())
    node = site.nodes[site.hosts()["web-1"]]
    node.kill_daemon()
    with site.cordoned(node.name):
        site.force_delete("web-1")
        site.wait(lambda: "holder-gone" in doctor.ids_of_old_age(), "it is told", seconds=20.0)
    told = [d for d in doctor.examine(AHEAD).diagnoses if d.id == "holder-gone"]
    assert [d.place for d in told] == [f"node {node.name}"]
    assert f"{site.namespace}/web-1" in told[0].found
    assert "homeport doctor    # on that node" in told[0].run

    node.launch_daemon()
    node.await_daemon()
    site.await_seen(site.numbered())
    site.wait(lambda: not doctor.ids_of_old_age(), "all is well again", seconds=20.0)
