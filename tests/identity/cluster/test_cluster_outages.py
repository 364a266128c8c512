"""E20 and E26 of the conformance matrix (docs/identity.md): the API server is away, or knows less than it knew."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from testcluster.control_plane import ControlPlane
from tests.identity.cluster.observing import look
from tests.identity.shapes import Seen, flat

if TYPE_CHECKING:
    from tests.identity.cluster.crews import Crew
    from tests.identity.cluster.sites import Site

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]


@contextmanager
def api_server_away(plane: ControlPlane) -> Iterator[None]:
    plane.stop_apiserver()
    try:
        yield
    finally:
        plane.start_apiserver()
        plane.restart_controllers()


def new_sandbox(site: Site, pod: str, node: str) -> None:
    """A new container for the same pod, as after a crash of its sandbox: DEL, then ADD."""
    host = site.nodes[node]
    before = host.sandbox(site.namespace, pod)
    host.kubelet.restart_sandbox(site.namespace, pod)

    def is_new() -> bool:
        now = host.kubelet.sandbox(site.namespace, pod)
        return now is not None and now.container_id != before.container_id

    host.wait(is_new, 20, f"{pod} has another sandbox")
    assert not before.exists


def require_new_sandboxes(site: Site, hosts: Mapping[str, str], seen: Seen) -> None:
    """Every pod gets one, with the addresses it had."""
    with ThreadPoolExecutor(len(hosts)) as threads:
        list(threads.map(lambda pod: new_sandbox(site, pod, hosts[pod]), hosts))
    assert {pod: site.addresses_of(pod, node) for pod, node in hosts.items()} == seen


def test_e20_del_and_add_without_the_api_server(site: Site, crew: Crew) -> None:
    """Replicas and a pod that is none; and the daemon is killed meanwhile."""
    site.networks()
    site.workload()
    site.await_seen(site.numbered())
    site.workload("stranger", 1, kind="Deployment")
    site.wait(lambda: len(site.hosts("stranger")) == 1, "the stranger runs")
    hosts, seen = site.hosts(), site.kernel()
    with api_server_away(crew.plane):
        require_new_sandboxes(site, hosts, seen)
        for node in site.nodes.values():
            node.kill_daemon()
            node.launch_daemon()
        for node in site.nodes.values():
            node.await_daemon()
        require_new_sandboxes(site, hosts, seen)

    def told() -> bool:
        containers = {pod: site.sandbox_of(pod).container_id for pod in hosts}
        return all(r.container == containers.get(r.pod) for r in site.records().values())

    site.wait(told, "every allocation names the container that has it")
    assert site.kernel() == seen
    site.require_no_leak()


def test_e20_a_replica_that_ends_while_the_api_server_is_away(site: Site, crew: Crew) -> None:
    """Its DEL is answered; what it had is retained once somebody can be told."""
    site.networks()
    site.workload()
    site.await_seen(site.numbered())
    node = site.nodes[site.hosts()["web-1"]]
    before = site.sandbox_of("web-1")
    with api_server_away(crew.plane):
        node.runtime.stop_sandbox(before)
    assert [call.error for call in node.runtime.calls if call.container_id == before.container_id] == [None, None]
    own = flat({"web-1": site.shape.numbered(1)})

    def is_let_go() -> bool:
        records = site.records()
        return all(a in records and records[a].container != before.container_id for a in own)

    site.wait(is_let_go, "the API server has been told")

    def is_back() -> bool:
        now = node.kubelet.sandbox(site.namespace, "web-1")
        return now is not None and now.container_id != before.container_id and look(now) == site.shape.numbered(1)

    site.wait(is_back, "the kubelet made it another sandbox, which has its address")
    site.require_no_leak()


def test_e26_the_holders_win_over_an_older_backup(private_site: Site, private_crew: Crew, tmp_path: Path) -> None:
    """The pods' objects are in the backup, and not what they were given since. Nobody restarts a daemon."""
    site, plane = private_site, private_crew.plane
    site.networks()
    for node in site.nodes.values():
        node.kubelet.partition()
    site.workload()
    site.wait(lambda: len(site.pods()) == 3 and all(p["spec"].get("nodeName") for p in site.pods().values()), "bound")
    plane.save(tmp_path / "backup")
    for node in site.nodes.values():
        node.kubelet.heal()
    site.await_seen(site.numbered())
    site.require_no_leak()
    containers = {pod: site.sandbox_of(pod).container_id for pod in site.numbered()}
    plane.restore(tmp_path / "backup")
    site.wait(lambda: site.addresses_in("Bound") == flat(site.numbered()), "the allocations are there again")
    site.await_seen(site.numbered())
    assert {pod: site.sandbox_of(pod).container_id for pod in site.numbered()} == containers
    assert {r.pod: r.container for r in site.records().values()} == containers
    site.await_event("AllocationRestored", "web-0", 40)


def test_e26_a_conflict_is_reported_and_nothing_freed(private_site: Site, private_crew: Crew, tmp_path: Path) -> None:
    """A stranger got a holder's address before the holder's node could say a word."""
    site, plane = private_site, private_crew.plane
    site.networks()
    nodes = list(site.nodes)
    with site.cordoned(*nodes[1:]):
        site.nodes[nodes[0]].kubelet.partition()
        site.workload(replicas=1)
        site.wait(lambda: site.pods() and site.pod("web-0")["spec"].get("nodeName"), "bound")
        plane.save(tmp_path / "backup")
        site.nodes[nodes[0]].kubelet.heal()
        site.await_seen({"web-0": site.shape.numbered(0)})
    site.cut_off(nodes[0], answering=True)
    plane.restore(tmp_path / "backup")
    assert site.phases() == {}
    for name in nodes[1:]:
        site.cordon(name, unschedulable=False)
    site.cordon(nodes[0])
    site.workload("other", 1)
    site.wait(lambda: site.hosts("other"), "the other runs")
    both = flat(site.kernel("other"))
    assert both == flat({"": site.shape.numbered(0)}), "so there is a conflict"
    before = site.records()
    site.mend(nodes[0])
    site.nodes[nodes[0]].kill_daemon()  # versions were given again while it heard nothing: no watch of it can know
    site.nodes[nodes[0]].start_daemon()
    told = site.await_event("AddressConflict", "web-0")
    assert told["type"] == "Warning"
    assert told["message"].partition(" ")[0] in both
    assert "other-0" in told["message"]
    assert site.records().keys() == before.keys()
    assert {a: r.container for a, r in site.records().items()} == {a: r.container for a, r in before.items()}
    assert site.in_all_namespaces() == sorted([*both, *both]), "both run on"
