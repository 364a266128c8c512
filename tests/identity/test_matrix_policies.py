"""Rows of the conformance matrix (docs/identity.md) about retention, maps, and what may not happen."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.identity.conftest import Lab

pytestmark = pytest.mark.root


def annotation(lab: Lab, *numbers: int) -> dict[str, str]:
    """The workload's own map, of every network."""
    return {"homeport.dev/addresses": json.dumps(lab.shape.map_of(*numbers))}


def test_e9_scaled_down_and_up_with_release_and_a_busy_pool(lab: Lab) -> None:
    lab.networks(size=8, sticky={"whenScaled": "Release"})
    lab.workload("web", 5)
    lab.up()
    assert lab.seen() == lab.numbered(5)
    lab("scale", "statefulset/web", "--replicas", "3")
    lab.workload("web", 3)
    lab.workload("crowd", 4, kind="Deployment")
    lab.up()
    lab("scale", "statefulset/web", "--replicas", "5", code=1)  # one address is left for two
    seen = lab.seen("web")
    assert {pod: seen[pod] for pod in ("web-0", "web-1", "web-2")} == lab.numbered(3)
    assert len(seen) == 4
    lab("delete", "deployment", "crowd")
    assert len(lab.seen("web")) == 5
    assert set(lab.allocated()) == lab.flat(lab.seen()), "nothing leaks"


def test_e10_addresses_are_free_after_the_last_pod_is_gone_and_not_before(lab: Lab) -> None:
    lab.networks()
    lab.workload("web")
    lab.up()
    lost = lab.nodes_of("web")["web-2"]
    lab("node", "partition", lost)
    lab("delete", "statefulset", "web")  # web-2 cannot be proven gone
    assert set(lab.allocated()) == lab.flat({"web-2": lab.numbered()["web-2"]})
    lab("node", "heal", lost)
    assert lab.allocated() == {}


def test_e11_orphans_keep_and_are_adopted(lab: Lab) -> None:
    lab.networks()
    lab.workload("web")
    lab.up()
    uids = lab.uids()
    lab("delete", "statefulset", "web", "--cascade", "orphan")
    assert lab.uids() == uids
    assert lab.seen() == lab.numbered()
    lab.up()
    assert lab.uids() == uids
    assert lab.seen() == lab.numbered()
    lab("delete", "pod", "--all")
    assert lab.seen() == lab.numbered()
    lab.require_no_leak()


def test_e12_deleted_and_created_again_with_retain(lab: Lab) -> None:
    lab.networks(sticky={"whenDeleted": "Retain"})
    lab.workload("web")
    lab.up()
    lab("delete", "statefulset", "web")
    assert set(lab.allocated("Retained")) == lab.flat(lab.numbered())
    del lab.manifests["web"]
    lab.workload("other", 2)
    lab.up()
    lab.workload("web")
    lab.up()
    assert lab.seen("web") == lab.numbered()
    lab.require_no_leak()


def test_e13_retain_for_passes(lab: Lab) -> None:
    lab.networks(sticky={"retainFor": "72h"})
    lab.workload("web")
    lab.up()
    lab("scale", "statefulset/web", "--replicas", "1")
    kept = lab.flat(lab.numbered()) - lab.flat(lab.numbered(1))
    lab("advance", "71h")
    assert set(lab.allocated("Retained")) == kept
    lab("advance", "2h")
    assert set(lab.allocated()) == lab.flat(lab.seen())
    for address in kept:
        last = lab.ledger(address)[-1]
        assert last.after is None
        assert "retained for" in last.cause


def test_e14_ordinals_start_at_five(lab: Lab) -> None:
    lab.networks()
    lab.workload("web", annotations=annotation(lab, 7, 8, 9), podManagementPolicy="Parallel")
    lab.up()
    assert lab.seen() == {f"web-{n}": lab.shape.numbered(7 + n) for n in range(3)}
    lab.manifests["web"]["spec"]["ordinals"] = {"start": 5}
    lab.up()
    assert lab.seen() == {f"web-{5 + n}": lab.shape.numbered(7 + n) for n in range(3)}
    assert set(lab.allocated()) == lab.flat(lab.seen())


def test_e14_in_order_the_old_ordinals_hold_on_until_they_are_deleted(lab: Lab) -> None:
    """OrderedReady starts replica 5 before it scales 0 down, and 0 still runs with the address the map gives to 5."""
    lab.networks()
    lab.workload("web", annotations=annotation(lab, 7, 8, 9))
    lab.up()
    lab.manifests["web"]["spec"]["ordinals"] = {"start": 5}
    assert "Bound for shop/web-0" in lab.up(code=1).stderr
    assert lab.seen() == {f"web-{n}": lab.shape.numbered(7 + n) for n in range(3)}
    lab("delete", "pod", "web-0", "web-1", "web-2")
    assert lab.seen() == {f"web-{5 + n}": lab.shape.numbered(7 + n) for n in range(3)}
    assert set(lab.allocated()) == lab.flat(lab.seen())


@pytest.mark.parametrize("where", ["network", "workload"])
def test_e15_no_stranger_gets_a_mapped_address(lab: Lab, where: str) -> None:
    """Replicas 0 to 2 are mapped to numbers 0, 2 and 4 of a pool of six; the workload is at 0."""
    for name in lab.shape.networks:
        sticky = {"replicas": {"shop/web": lab.shape.mapped(name, 0, 2, 4)}} if where == "network" else None
        lab.network(name, size=6, sticky=sticky)
    lab.workload("web", 0, annotations=annotation(lab, 0, 2, 4) if where == "workload" else None)
    lab.workload("crowd", 4, kind="Deployment")
    said = lab.up(code=1).stderr
    assert "addresses are taken" in said
    kept = lab.flat({f"web-{n}": lab.shape.numbered(2 * n) for n in range(3)})
    crowd = lab.seen("crowd")
    assert len(crowd) == 3
    assert not lab.flat(crowd) & kept
    lab("scale", "statefulset/web", "--replicas", "3", code=1)
    assert lab.seen("web") == {f"web-{n}": lab.shape.numbered(2 * n) for n in range(3)}


@pytest.mark.parametrize("mistake", ["duplicate", "outside", "short"])
def test_e16_a_wrong_map_is_refused_with_the_entry_named(lab: Lab, mistake: str) -> None:
    numbers = {"duplicate": (0, 1, 1), "outside": (0, 1, 300), "short": (0, 1)}[mistake]
    lab.networks()
    lab.workload("web", annotations=annotation(lab, *numbers), podManagementPolicy="Parallel")
    said = lab.up(code=1).stderr
    entry = lab.shape.address("one", 4, numbers[-1])
    expected = {
        "duplicate": f'"one"[2]: found {entry}, which stands in',
        "outside": f'"one"[2]: found {entry}, expected an address of',
        "short": "found 2 entries for 3 replicas from ordinal 0, expected entry 2 for ordinal 2",
    }[mistake]
    assert expected in said
    assert set(lab.seen()) == ({"web-0", "web-1"} if mistake == "short" else set())
    lab.require_no_leak()


def test_e17_the_map_changes_while_running(lab: Lab) -> None:
    lab.networks(size=6)
    lab.workload("web", annotations=annotation(lab, 0, 1, 2))
    lab.up()
    assert lab.seen() == lab.numbered()
    # Annotations of the workload itself are no part of its template: nothing restarts.
    lab.workload("web", annotations=annotation(lab, 0, 1, 2))
    lab.manifests["web"]["metadata"]["annotations"] = annotation(lab, 0, 1, 4)
    uids = lab.uids()
    lab.up()
    assert lab.uids() == uids
    assert lab.seen() == lab.numbered()
    lab("delete", "pod", "web-2")
    assert lab.seen() == {**lab.numbered(2), "web-2": lab.shape.numbered(4)}
    assert set(lab.allocated()) == lab.flat(lab.seen()), "the old addresses are released after it"


def test_e17_failure_leaves_the_old_address(lab: Lab) -> None:
    """The new address is a stranger's: the replica gets neither it nor another, and keeps its own."""
    lab.networks(size=6)
    lab.workload("web")
    lab.up()
    lab.workload("stranger", 1)
    lab.up()
    taken = lab.seen("stranger")["stranger-0"]
    assert taken == lab.shape.numbered(3)
    lab.manifests["web"]["metadata"]["annotations"] = annotation(lab, 0, 1, 3)
    lab.up()
    said = lab("delete", "pod", "web-2", code=1).stderr
    assert lab.shape.address("one", 4, 3) in said
    assert "stranger-0" in said, "R3: the error names the present holder"
    assert lab.flat({"web-2": lab.numbered()["web-2"]}) <= set(lab.allocated("Retained"))
    del lab.manifests["web"]["metadata"]["annotations"]
    lab.up()
    assert lab.seen("web") == lab.numbered()
    lab.require_no_leak()


@pytest.mark.parametrize(
    ("plugin", "said"),
    [("sbr", "expected one to route by"), ("no-such-plugin", 'plugin "no-such-plugin": not built in')],
)
def test_e23_one_of_the_interfaces_fails(lab: Lab, plugin: str, said: str) -> None:
    """The last interface's chain ends in a plugin that fails, or is not there; then it is repaired."""
    lab.networks()
    lab.custom_network("late", {"type": "macvlan", "master": "eth9"}, {"type": plugin})
    lab.workload("web", networks=[*lab.shape.networks, "late"], podManagementPolicy="Parallel")
    assert said in lab.up(code=1).stderr
    assert lab.seen() == {}
    assert lab.allocated("Bound") == {}
    assert set(lab.allocated("Retained")) == lab.flat(lab.numbered()), "R6: undone, and kept for the replicas"
    assert lab.links_of_nodes(lab.nodes_of().values()) == {*lab.masters, "eth9"}
    lab.custom_network("late", {"type": "macvlan", "master": "eth9"})
    lab.up()
    late = f"net{lab.shape.interfaces + 1}"
    assert lab.seen() == {pod: {**addresses, late: ()} for pod, addresses in lab.numbered().items()}
    lab.require_no_leak()
