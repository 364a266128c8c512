"""Rows of the conformance matrix (docs/identity.md) about retention and maps, on a real API server.

The controller is a process of its own here: what it does is awaited, and what it must not do is looked for after it has
done something that comes later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.identity.cluster.sites import as_map
from tests.identity.shapes import flat

if TYPE_CHECKING:
    from tests.identity.cluster.sites import Site

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]


def test_e9_scaled_down_and_up_with_release_and_a_busy_pool(site: Site) -> None:
    site.networks(size=8, sticky={"whenScaled": "Release"})
    site.workload(replicas=5)
    site.await_seen(site.numbered(5))
    site.scale("web", 3)
    site.await_phases(dict.fromkeys(flat(site.numbered(3)), "Bound"))
    site.workload("crowd", 4, kind="Deployment")
    site.wait(lambda: len(site.hosts("crowd")) == 4, "the crowd runs")
    site.scale("web", 5)  # one address is left for two
    site.await_failures("web", "addresses are taken", 1)
    site.wait(lambda: len(site.hosts("web")) == 4, "one of the two has an address")
    seen = site.kernel("web")
    assert {pod: seen[pod] for pod in site.numbered(3)} == site.numbered(3)
    site.delete_deployment("crowd")
    site.wait(lambda: len(site.running()) == 5 == len(site.pods()), "all five run, and no others")
    site.await_phases(lambda: dict.fromkeys(flat(site.kernel()), "Bound"), "nothing leaks")
    site.require_no_leak()


@pytest.mark.parametrize("propagation", ["Background", "Foreground"])
def test_e10_addresses_are_free_after_the_last_pod_is_gone_and_not_before(site: Site, propagation: str) -> None:
    site.networks()
    site.workload()
    site.await_seen(site.numbered())
    lost = site.hosts()["web-2"]
    kept = flat({pod: site.numbered()[pod] for pod, node in site.hosts().items() if node == lost})
    site.cut_off(lost, answering=True)
    site.delete_workload(propagation=propagation)
    if propagation == "Background":
        site.await_phases(dict.fromkeys(kept, "Bound"), "only what nobody can prove gone is kept")
    else:  # the workload is there until its last pod is gone, and keeps what was its replicas'
        site.await_phase("Retained", flat(site.numbered()) - kept)
    site.force_delete(*site.pods())  # the objects are gone; the node still has the pods
    site.wait(lambda: not site.exists("web"), "the workload is gone")
    site.await_phases(dict.fromkeys(kept, "Bound"), "the others are free")
    site.await_pass()
    assert site.phases() == dict.fromkeys(kept, "Bound"), "a pod that is gone is only half of the proof"
    site.mend(lost)
    site.await_phases({}, "all are free")


def test_e11_orphans_keep_and_are_adopted(site: Site) -> None:
    site.networks()
    site.workload()
    site.await_seen(site.numbered())
    uids = site.uids()
    site.delete_workload(propagation="Orphan")
    site.wait(lambda: not site.exists("web"), "the workload is gone")
    site.await_pass()
    assert site.uids() == uids
    assert site.kernel() == site.numbered()
    assert site.phases() == dict.fromkeys(flat(site.numbered()), "Bound")
    site.workload()
    site.wait(lambda: all(pod["metadata"].get("ownerReferences") for pod in site.pods().values()), "adopted")
    assert site.uids() == uids
    site.delete_pods(*site.numbered())
    site.restarted(site.numbered(), uids)
    site.require_no_leak()


def test_e12_deleted_and_created_again_with_retain(site: Site) -> None:
    site.networks(sticky={"whenDeleted": "Retain"})
    site.workload()
    site.await_seen(site.numbered())
    site.delete_workload()
    site.await_gone()
    site.await_pass()
    site.await_phases(dict.fromkeys(flat(site.numbered()), "Retained"))
    site.workload("other", 2)
    site.wait(lambda: len(site.hosts("other")) == 2, "the others run")
    assert not flat(site.kernel("other")) & flat(site.numbered())
    site.workload()
    site.await_seen(site.numbered(), "web")
    site.require_no_leak()


def test_e12_created_again_at_once(site: Site) -> None:
    """The new workload is there while pods of the old one still end."""
    site.networks(sticky={"whenDeleted": "Retain"})
    site.workload()
    site.await_seen(site.numbered())
    uids = site.uids()
    site.delete_workload()
    site.wait(lambda: not site.exists("web"), "the workload is gone")
    site.workload()
    site.restarted(site.numbered(), uids)
    site.require_no_leak()


def test_e13_retain_for_passes(site: Site) -> None:
    site.networks(sticky={"retainFor": "3s"})
    site.workload()
    site.await_seen(site.numbered())
    kept = flat(site.numbered()) - flat(site.numbered(1))
    site.scale("web", 1)
    site.await_phase("Retained", kept)
    site.await_phases(dict.fromkeys(flat(site.numbered(1)), "Bound"), "free when the time has passed")
    for address in kept:
        last = site.await_ledger(address, lambda entries: entries and entries[-1]["after"] is None)[-1]
        assert "retained for" in last["cause"]


@pytest.mark.parametrize("where", ["network", "workload"])
def test_e15_no_stranger_gets_a_mapped_address(site: Site, where: str) -> None:
    """Replicas 0 to 2 are mapped to numbers 0, 2 and 4 of a pool of six; the workload is at 0."""
    numbers, own = (0, 2, 4), {f"web-{n}": site.shape.numbered(2 * n) for n in range(3)}
    for name in site.shape.networks:
        replicas = {f"{site.namespace}/web": site.shape.mapped(name, *numbers)}
        site.networks(names=[name], size=6, sticky={"replicas": replicas} if where == "network" else None)
    site.workload(replicas=0, pod_annotations=as_map(site.shape.map_of(*numbers)) if where == "workload" else None)
    site.await_phases(dict.fromkeys(flat(own), "Reserved"), "reserved before any pod is there")
    site.workload("crowd", 4, kind="Deployment")
    site.await_failures("crowd", "addresses are taken", 1)
    site.wait(lambda: len(site.hosts("crowd")) == 3, "three strangers run")
    assert not flat(site.kernel("crowd")) & flat(own)
    site.scale("web", 3)
    site.await_seen(own, "web")
    assert len(site.hosts("crowd")) == 3
    site.require_no_leak()


@pytest.mark.parametrize("mistake", ["duplicate", "outside", "short"])
def test_e16_a_wrong_map_is_refused_with_the_entry_named(site: Site, mistake: str) -> None:
    numbers = {"duplicate": (0, 1, 1), "outside": (0, 1, 300), "short": (0, 1)}[mistake]
    entry = site.shape.address("one", 4, numbers[-1])
    expected = {
        "duplicate": f'"one"[2]: found {entry}, which stands in',
        "outside": f'"one"[2]: found {entry}, expected an address of',
        "short": "found 2 entries for 3 replicas from ordinal 0, expected entry 2 for ordinal 2",
    }[mistake]
    site.networks()
    site.workload(pod_annotations=as_map(site.shape.map_of(*numbers)))
    site.await_failures("web-2", expected, 1)
    if mistake == "short":
        site.await_seen(site.numbered(2))
    else:
        site.await_failures("web-0", expected, 1)
        assert site.running() == {}
    site.require_no_leak()


def test_e17_the_map_changes_while_running(site: Site) -> None:
    site.networks(size=6)
    site.workload(annotations=as_map(site.shape.map_of(0, 1, 2)))
    site.await_seen(site.numbered())
    uids = site.uids()
    site.workload(annotations=as_map(site.shape.map_of(0, 1, 4)))
    after = {**site.numbered(2), "web-2": site.shape.numbered(4)}
    site.await_phase("Reserved", flat({"web-2": after["web-2"]}))
    assert site.uids() == uids, "annotations of the workload itself restart nothing"
    assert site.kernel() == site.numbered()
    uids = site.uids_of("web-2")
    site.delete_pods("web-2")
    site.restarted(after, uids)
    site.await_phases(dict.fromkeys(flat(after), "Bound"), "the old addresses are released after it")


def test_e17_failure_leaves_the_old_address(site: Site) -> None:
    """The new address is a stranger's: the replica gets neither it nor another, and keeps its own."""
    site.networks(size=6)
    site.workload()
    site.await_seen(site.numbered())
    site.workload("stranger", 1)
    site.wait(lambda: site.hosts("stranger"), "the stranger runs")
    taken = list(site.kernel("stranger")["stranger-0"].values())
    maps = zip(site.shape.map_of(0, 1).items(), taken, strict=True)
    site.workload(annotations=as_map({network: [*entries, list(own)] for (network, entries), own in maps}))
    site.delete_pods("web-2")
    site.await_failures("web-2", "stranger-0", 1)  # R3: the error names the present holder
    assert taken[0][0] in site.failures("web-2", "stranger-0")[0]
    assert flat({"web-2": site.numbered()["web-2"]}) <= site.addresses_in("Retained")
    site.workload()
    site.await_seen(site.numbered(), "web")
    site.require_no_leak()


def test_e23_one_of_the_interfaces_fails(site: Site) -> None:
    """The last interface's chain ends in a plugin that is not there; then it is repaired."""
    site.networks()
    site.network("late", {"type": "macvlan", "master": "eth1"}, {"type": "no-such-plugin"})
    site.workload(networks=[*site.shape.networks, "late"])
    for pod in site.numbered():
        site.await_failures(pod, "no-such-plugin", 1)
    assert site.running() == {}
    for node in site.nodes.values():
        assert set(site.links_of(node)) <= {"cni0"}, "nothing of a pod is left on the node"
    site.network("late", {"type": "macvlan", "master": "eth1"})
    late = f"net{site.shape.interfaces + 1}"
    site.await_seen({pod: {**addresses, late: ()} for pod, addresses in site.numbered().items()})
    site.require_no_leak()
