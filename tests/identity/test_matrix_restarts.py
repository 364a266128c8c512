"""Rows of the conformance matrix (docs/identity.md) in which pods and nodes go and come back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.identity.conftest import Lab

pytestmark = pytest.mark.root


@pytest.mark.parametrize("policy", ["OrderedReady", "Parallel"])
def test_e1_replica_n_gets_address_n(lab: Lab, policy: str) -> None:
    lab.networks()
    lab.workload("web", podManagementPolicy=policy)
    lab.up()
    assert lab.seen() == lab.numbered()


def test_e2_all_deleted_at_once(lab: Lab) -> None:
    lab.networks()
    lab.workload("web")
    lab.up()
    macs, uids = lab.macs(), lab.uids()
    lab("delete", "pod", "--all")
    assert lab.seen() == lab.numbered()
    assert not uids & lab.uids()
    assert lab.ipvlan or lab.macs() == macs, "R9: a MAC of its own moves with the address"
    lab.require_no_leak()


def test_e3_all_deleted_by_force(lab: Lab) -> None:
    """On nodes that work, the new ADD waits for the old namespace to go; the old DEL ends that."""
    lab.networks()
    lab.workload("web", podManagementPolicy="Parallel")
    lab.up()
    lab("delete", "pod", "--all", "--force")
    assert lab.seen() == lab.numbered()
    lab.require_no_leak()


def test_e3_late_del_changes_nothing(lab: Lab) -> None:
    """On nodes out of reach the DELs come long after the new ADDs."""
    lab.networks()
    lab.workload("web", podManagementPolicy="Parallel")
    lab.up("--nodes", "4")
    lab("node", "cordon", "node-4")
    for node in ("node-1", "node-2", "node-3"):
        lab("node", "partition", node)
    lab("node", "uncordon", "node-4")
    lab("delete", "pod", "--all", "--force")
    assert set(lab.nodes_of("web").values()) == {"node-4"}
    assert lab.seen() == lab.numbered()
    bound = lab.allocated("Bound")
    for node in ("node-1", "node-2", "node-3"):
        lab("node", "heal", node)
    assert lab.allocated("Bound") == bound
    assert lab.seen() == lab.numbered()
    lab.require_no_leak()
    lab("ping")


def test_e4_moves_to_another_node_and_is_reached_at_once(lab: Lab, wait_until: Callable[..., None]) -> None:
    """An IPv6 address is usable when it is no longer tentative (RFC 4862 §5.4): from then on at once."""
    lab.networks()
    lab.workload("web")
    lab.up()
    lab.workload("peer", 1)
    lab.up()
    lab("ping")  # so that every neighbour knows where everybody is
    before, macs = lab.nodes_of("web"), lab.macs()
    lab("node", "drain", before["web-1"])
    after = lab.nodes_of("web")
    assert after["web-1"] != before["web-1"]
    assert lab.seen("web") == lab.numbered()
    assert lab.ipvlan or lab.macs()["web-1"] == macs["web-1"]
    (peer,) = [p["netns"] for p in lab.get("pods") if p["name"] == "peer-0"]
    own = lab.seen("peer")["peer-0"]
    wait_until(lambda: not any("tentative" in i for link in lab.links()["web-1"] for i in link["addr_info"]))
    for ifname, addresses in lab.numbered()["web-1"].items():
        for source, address in zip(own[ifname], addresses, strict=True):
            lab.inside(peer, "ping", "-c", "1", "-W", "1", "-I", source, address)


def test_e5_node_dies(lab: Lab) -> None:
    lab.networks()
    lab.workload("web")
    lab.up()
    dead = lab.nodes_of("web")["web-1"]
    lab("node", "kill", dead)
    assert dead not in lab.nodes_of("web").values()
    assert lab.seen() == lab.numbered()
    lab.require_no_leak()
    lab("ping")


def test_e5_silence_of_the_probe_is_proof(lab: Lab) -> None:
    """Of a node that is cut off nobody says that it is dead; nobody answering for the address does."""
    lab.networks()
    lab.workload("web")
    lab.up()
    lost = lab.nodes_of("web")["web-1"]
    lab("node", "partition", lost)
    lab("delete", "pod", "web-1", "--force")
    assert lab.nodes_of("web")["web-1"] != lost
    assert lab.seen() == lab.numbered()
    causes = [entry.cause for entry in lab.ledger(lab.shape.address("one", 4, 1))]
    assert any("nobody answers" in cause for cause in causes)


def test_e6_who_still_answers_keeps_the_address(lab: Lab) -> None:
    lab.networks()
    lab.workload("web")
    lab.up()
    lost = lab.nodes_of("web")["web-1"]
    lab("node", "partition", lost, "--answering")
    lab("delete", "pod", "web-1", "--force", code=1)
    assert "web-1" not in lab.seen()
    (waiting,) = [p for p in lab.get("pods") if p["name"] == "web-1"]
    assert waiting["phase"] == "ContainerCreating"
    assert "still answers" in waiting["message"]
    lab("node", "heal", lost)  # its late DEL is the proof
    assert lab.seen() == lab.numbered()
    lab.require_no_leak()


@pytest.mark.parametrize("how", ["rollout restart", "new template"])
def test_e7_rolling_update(lab: Lab, how: str) -> None:
    lab.networks()
    lab.workload("web")
    lab.up()
    uids = lab.uids()
    if how == "rollout restart":
        lab("rollout", "restart", "statefulset/web")
    else:
        lab.workload("web", labels={"version": "2"})
        lab.up()
    assert not uids & lab.uids()
    assert lab.seen() == lab.numbered()
    lab.require_no_leak()


def test_e8_scaled_to_nothing_while_others_start(lab: Lab) -> None:
    lab.networks()
    lab.workload("web")
    lab.up()
    lab("scale", "statefulset/web", "--replicas", "0")
    lab.workload("web", 0)
    lab.workload("other", 2)
    lab.up()
    assert not lab.flat(lab.seen("other")) & lab.flat(lab.numbered())
    lab("scale", "statefulset/web", "--replicas", "3")
    assert lab.seen("web") == lab.numbered()
    lab.require_no_leak()


def test_e18_no_stranger_gets_the_address_of_a_replica_that_restarts(lab: Lab) -> None:
    """The pool is full of strangers, and more of them wait for whatever may become free."""
    lab.networks(size=6)
    lab.workload("web")
    lab.up()
    lab.workload("crowd", 5, kind="Deployment")
    assert "all 6 addresses are taken" in lab.up(code=1).stderr
    assert lab.seen("web") == lab.numbered()
    for _ in range(2):
        lab("delete", "pod", "web-0", "web-1", "web-2", code=1)
        assert lab.seen("web") == lab.numbered()
    assert len(lab.seen("crowd")) == 3
    lab.require_no_leak()


def test_e19_two_workloads_restart_in_parallel(lab: Lab) -> None:
    lab.networks()
    lab.workload("web", podManagementPolicy="Parallel")
    lab.up()
    lab.workload("db", podManagementPolicy="Parallel")
    lab.up()
    first = lab.seen()
    assert {pod: a for pod, a in first.items() if pod.startswith("web")} == lab.numbered()
    for _ in range(20):
        lab("delete", "pod", "--all")
    assert lab.seen() == first
    lab.require_no_leak()
