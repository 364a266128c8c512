"""Rows of the conformance matrix (docs/identity.md) in which pods and nodes go and come back, on a real API server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.identity.shapes import flat

if TYPE_CHECKING:
    from tests.identity.cluster.crews import Crew
    from tests.identity.cluster.sites import Site

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]


@pytest.mark.parametrize("policy", ["OrderedReady", "Parallel"])
def test_e1_replica_n_gets_address_n(site: Site, policy: str) -> None:
    site.networks()
    site.workload(podManagementPolicy=policy)
    site.await_seen(site.numbered())
    site.require_no_leak()


def test_e2_all_deleted_at_once(site: Site) -> None:
    site.networks()
    site.workload()
    site.await_seen(site.numbered())
    macs, uids = site.macs(), site.uids()
    site.delete_pods(*site.numbered())
    site.restarted(site.numbered(), uids)
    assert site.macs() == macs, "R9: the MAC moves with the address"
    site.require_no_leak()


def test_e3_all_deleted_by_force(site: Site) -> None:
    """The new pods are there before the old ones' DELs."""
    site.networks()
    site.workload()
    site.await_seen(site.numbered())
    uids = site.uids()
    site.force_delete(*site.numbered())
    site.restarted(site.numbered(), uids)
    site.require_no_leak()


def test_e3_late_dels_change_nothing(site: Site) -> None:
    """On nodes out of reach the DELs come long after the new ADDs."""
    site.networks()
    with site.cordoned("node-c"):
        site.workload()
        site.await_seen(site.numbered())
    uids = site.uids()
    with site.cordoned("node-a", "node-b"):
        for name in ("node-a", "node-b"):
            site.cut_off(name, answering=False)
        site.force_delete(*site.numbered())
        site.restarted(site.numbered(), uids)
        assert set(site.hosts().values()) == {"node-c"}
        for name in ("node-a", "node-b"):
            site.mend(name)
    assert site.kernel() == site.numbered()
    site.require_no_leak()


def test_e4_moves_to_another_node_and_is_reached_at_once(site: Site) -> None:
    """An IPv6 address is usable when it is no longer tentative (RFC 4862 §5.4): from then on at once."""
    site.networks()
    site.workload()
    site.await_seen(site.numbered())
    site.workload("peer", 1)
    site.wait(lambda: site.hosts("peer"), "the peer runs")
    site.await_settled("peer-0", "web-1")
    site.ping("peer-0", "web-1")  # so that the neighbour knows where it is
    before, macs, uids = site.hosts(), site.macs(), site.uids_of("web-1")
    with site.cordoned(before["web-1"]):
        site.delete_pods("web-1")
        site.restarted(site.numbered(), uids, "web")
        assert site.hosts()["web-1"] != before["web-1"]
        site.await_settled("web-1")
        site.ping("peer-0", "web-1", count=1)
    assert site.macs() == macs
    site.require_no_leak()


def test_e5_a_node_dies(site: Site, crew: Crew) -> None:
    site.networks()
    site.workload()
    site.await_seen(site.numbered())
    dead = site.hosts()["web-1"]
    lost = [pod for pod, node in site.hosts().items() if node == dead]
    uids = site.uids_of(*lost)
    with site.cordoned(dead):
        crew.nodes[dead].close()
        site.force_delete(*lost)
        site.restarted(site.numbered(), uids)
        assert dead not in site.hosts().values()
    crew.reboot(dead)
    site.require_no_leak()


def test_e5_silence_of_the_probe_is_proof(site: Site) -> None:
    """Of a node that is cut off nobody says that it is dead; nobody answering for the address does."""
    site.networks()
    site.workload()
    site.await_seen(site.numbered())
    lost = site.hosts()["web-1"]
    uids = site.uids_of("web-1")
    with site.cordoned(lost):
        site.cut_off(lost, answering=False)
        site.force_delete("web-1")
        site.restarted(site.numbered(), uids)
        assert site.hosts()["web-1"] != lost
        site.mend(lost)
    site.require_no_leak()


def test_e6_who_still_answers_keeps_the_address(site: Site) -> None:
    site.networks()
    site.workload()
    site.await_seen(site.numbered())
    lost = site.hosts()["web-1"]
    uids = site.uids_of("web-1")
    with site.cordoned(lost):
        site.cut_off(lost, answering=True)
        site.force_delete("web-1")
        site.await_failures("web-1", "still answers", 2)
        assert "web-1" not in site.running()
        there = site.in_all_namespaces()
        assert len(there) == len(set(there)), f"never two that answer: {there}"
        site.await_event("WaitingForRelease", "web-1")
        site.mend(lost)  # its late DEL is the proof
        site.restarted(site.numbered(), uids)
    site.require_no_leak()


def test_e7_rolling_update(site: Site) -> None:
    site.networks()
    site.workload()
    site.await_seen(site.numbered())
    uids = site.uids()
    site.workload(pod_annotations={"version": "2"})
    site.restarted(site.numbered(), uids)
    site.require_no_leak()


def test_e8_scaled_to_nothing_while_others_start(site: Site) -> None:
    site.networks()
    site.workload()
    site.await_seen(site.numbered())
    site.scale("web", 0)
    site.await_gone()
    site.workload("other", 2)
    site.wait(lambda: len(site.hosts("other")) == 2, "the others run")
    assert not flat(site.kernel("other")) & flat(site.numbered())
    site.scale("web", 3)
    site.await_seen(site.numbered(), "web")
    site.require_no_leak()


def test_e18_no_stranger_gets_the_address_of_a_replica_that_restarts(site: Site) -> None:
    """The pool is full of strangers, and more of them wait for whatever may become free."""
    site.networks(size=6)
    site.workload()
    site.await_seen(site.numbered())
    site.workload("crowd", 5, kind="Deployment")
    site.wait(lambda: len(site.hosts("crowd")) == 3, "three strangers run")
    site.await_failures("crowd", "addresses are taken", 1)
    for _ in range(2):
        uids = site.uids_of(*site.numbered())
        site.delete_pods(*site.numbered())
        site.restarted(site.numbered(), uids, "web")
    assert len(site.hosts("crowd")) == 3
    assert not flat(site.kernel("crowd")) & flat(site.numbered())
    site.require_no_leak()


def test_e19_two_workloads_restart_in_parallel(site: Site) -> None:
    site.networks()
    site.workload()
    site.await_seen(site.numbered())
    site.workload("db")
    site.wait(lambda: len(site.running()) == 6, "six pods run")
    first = site.kernel()
    assert {pod: a for pod, a in first.items() if pod.startswith("web")} == site.numbered()
    for _ in range(20):
        uids = site.uids()
        site.delete_pods(*first)
        site.restarted(first, uids)
    site.require_no_leak()
