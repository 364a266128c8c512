"""What the commands say of a real cluster, held against what its pods have: the plan comes true, the history is so."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest
from tests.identity.cluster.sites import as_map

if TYPE_CHECKING:
    from tests.identity.cluster.crews import Crew
    from tests.identity.cluster.sites import Site
    from tests.identity.shapes import Seen

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]


class Commands:
    """`homeport` of a cluster's administrator."""

    def __init__(self, crew: Crew, site: Site) -> None:
        self._kubeconfig = str(crew.plane.kubeconfig())
        self._site = site

    def __call__(self, *words: str, stdin: str = "", code: int = 0) -> str:
        argv = [sys.executable, "-m", "homeport", *words, "--kubeconfig", self._kubeconfig]
        ran = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False, timeout=60)
        assert ran.returncode == code, ran.stdout + ran.stderr
        return ran.stdout

    def planned(self, *workloads: Mapping[str, Any], code: int = 0) -> Seen:
        """What StatefulSets will have, whose networks the cluster has already."""
        manifests = "\n---\n".join(map(json.dumps, workloads))
        plan = json.loads(self("plan", "-f", "-", "-o", "json", stdin=manifests, code=code))
        found: dict[str, dict[str, tuple[str, ...]]] = {}
        for line in plan["replicas"]:
            address = line["address"].partition("/")[0]
            interfaces = found.setdefault(line["pod"], {})
            interfaces[line["interface"]] = (*interfaces.get(line["interface"], ()), address)
        return dict(found)

    def holders(self, address: str) -> list[str]:
        """The nodes that had it in use, by the ledger, oldest first."""
        (history,) = json.loads(self("who", address, "-o", "json"))
        entries = [change["after"] for change in history["history"] if change["after"] is not None]
        return [entry["node"] for entry in entries if entry["phase"] == "Bound"]

    def scaled(self, name: str, replicas: int) -> Mapping[str, Any]:
        """The StatefulSet as it is, but for its replicas."""
        path = f"/apis/apps/v1/namespaces/{self._site.namespace}/statefulsets/{name}"
        found = self._site.api.get(path)
        return {
            **found,
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "spec": {**found["spec"], "replicas": replicas},
        }


def test_a_plan_of_the_cluster_comes_true(crew: Crew, site: Site) -> None:
    homeport = Commands(crew, site)
    site.networks(size=8)
    site.workload("db", 0, annotations=as_map(site.shape.map_of(5, 3)))
    site.workload("web", 0)
    for replicas in (2, 3):
        planned = homeport.planned(homeport.scaled("web", replicas), homeport.scaled("db", 2))
        assert planned["db-0"] == site.shape.numbered(5)
        site.scale("web", replicas)
        site.scale("db", 2)
        site.await_seen(planned)
    planned = homeport.planned(homeport.scaled("web", 4), homeport.scaled("db", 2), code=1)
    assert {pod: planned[pod] for pod in site.kernel()} == site.kernel(), "who runs, stays"
    assert planned["web-3"] == site.shape.numbered(4), "its number is mapped to another"


def test_why_a_pod_waits_and_what_became_of_an_address(crew: Crew, site: Site) -> None:
    homeport = Commands(crew, site)
    site.networks(size=4)
    site.workload("web", 1)
    site.await_seen(site.numbered(1))
    node = site.hosts()["web-0"]
    address, web = site.shape.address("one", 4, 0), ("web-0", "-n", site.namespace)
    site.cut_off(node, answering=True)
    with site.cordoned(node):
        site.force_delete("web-0")
        site.await_failures("web-0", "still answers for", 1)
        site.wait(lambda: "WaitingForRelease: " in homeport("explain", *web), "the event is told", seconds=20.0)
        said = homeport("explain", *web)
        assert f"its pod: gone, the cluster has UID {next(iter(site.uids_of('web-0')))} under that name" in said
        assert f"next ADD   asks from its node whether anybody answers for {address}" in said
        assert f"if {node} is off for certain: homeport release {address} --force" in said
    site.mend(node)
    site.await_seen(site.numbered(1))
    after = site.hosts()["web-0"]
    site.wait(lambda: homeport.holders(address)[-1:] == [after], "the ledger tells of the move", seconds=20.0)
    assert homeport.holders(address)[0] == node
    assert homeport("ips", "--node", after, "-n", site.namespace, "-o", "name").split()[0] == address
