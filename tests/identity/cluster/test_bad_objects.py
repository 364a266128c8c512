"""What people do to a cluster's objects by hand, and clocks that are wrong: refused, put right or reported.

Nothing that somebody uses is freed for it (docs/identity.md R12).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from testcluster.api import ApiError
from tests.identity.cluster.crews import HOMEPORT
from tests.identity.shapes import Shape, flat

if TYPE_CHECKING:
    from tests.identity.cluster.crews import Crew
    from tests.identity.cluster.sites import Site

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(240),
    pytest.mark.parametrize("shape", [Shape(1, False)], indirect=True, ids=str),
]
SKEWED = (sys.executable, str(Path(__file__).with_name("skewed_controller.py")))
DAY = 86400


def edit(site: Site, address: str, body: dict[str, Any]) -> None:
    """As `kubectl edit` does."""
    site.api.patch(f"{HOMEPORT}/ipallocations/{site.records()[address].name}", body)


@pytest.mark.parametrize(
    "body",
    [
        {"status": {"phase": "Lost"}},
        {"spec": {"owner": None}},
        {"spec": {"owner": {"ordinal": -1}}},
        {"spec": {"address": "10.1.2.300"}},
        {"spec": {"interface": "an-interface-with-a-long-name"}},
        {"status": {"cause": "x" * 2000}},
        {"status": {"holder": {"containerID": ""}}},
        {"metadata": {"annotations": {"huge": "x" * 300_000}}},
    ],
    ids=lambda body: "-".join(f"{part}.{next(iter(fields))}" for part, fields in body.items()),
)
def test_what_no_allocation_can_say_is_refused(site: Site, body: dict[str, Any]) -> None:
    site.networks()
    site.workload(replicas=1)
    site.await_seen(site.numbered(1))
    with pytest.raises(ApiError) as refused:
        edit(site, site.shape.address("one", 4, 0), body)
    assert refused.value.status == 422
    site.require_no_leak()


def test_an_address_that_its_name_contradicts_is_reported_and_nothing_is_freed(site: Site) -> None:
    """It cannot be read, so it is not absent: its replica waits for a person."""
    site.networks()
    site.workload()
    site.await_seen(site.numbered())
    own, wrong = site.shape.address("one", 4, 1), site.shape.address("one", 4, 7)
    name = site.records()[own].name
    edit(site, own, {"spec": {"address": wrong}})
    told = site.await_event("Unreadable", name)
    assert wrong in told["message"]
    site.await_pass()
    assert site.kernel() == site.numbered()
    assert site.records()[wrong].name == name, "it is as the person left it"
    uids = site.uids()
    site.delete_pods(*site.numbered())
    site.wait(lambda: not site.uids() & uids, "the old pods are gone")
    site.await_failures("web-1", name, 1)
    site.wait(lambda: site.hosts().keys() == {"web-0", "web-2"}, "the others are there again")
    assert flat(site.kernel()) == flat(site.numbered()) - {own}
    site.api.patch(f"{HOMEPORT}/ipallocations/{name}", {"spec": {"address": own}})
    site.await_seen(site.numbered())
    site.require_no_leak()


def test_another_owner_by_hand_takes_nothing_from_who_holds_it(site: Site) -> None:
    site.networks()
    site.workload()
    site.await_seen(site.numbered())
    own = site.shape.address("one", 4, 1)
    edit(site, own, {"spec": {"owner": {"name": "web-9", "ordinal": 9}}})
    site.await_event("AddressConflict", "web-1")
    site.await_pass()
    assert site.kernel() == site.numbered()
    assert site.phases() == dict.fromkeys(flat(site.numbered()), "Bound")
    edit(site, own, {"spec": {"owner": {"name": "web-1", "ordinal": 1}}})
    uids = site.uids()
    site.delete_pods(*site.numbered())
    site.restarted(site.numbered(), uids)
    site.require_no_leak()


def test_allocations_of_running_pods_that_are_deleted_are_made_again(site: Site) -> None:
    """By an operator who meant well; replicas' and a stranger's."""
    site.networks()
    site.workload()
    site.await_seen(site.numbered())
    site.workload("stranger", 1, kind="Deployment")
    site.wait(lambda: site.hosts("stranger"), "the stranger runs")
    before, seen = site.records(), site.kernel()
    for record in before.values():
        site.api.delete(f"{HOMEPORT}/ipallocations/{record.name}")
    site.wait(lambda: site.records().keys() == before.keys(), "all are there again")
    after = site.records()
    assert {a: (r.pod, r.container, r.phase) for a, r in after.items()} == {
        a: (r.pod, r.container, r.phase) for a, r in before.items()
    }
    for pod in seen:
        assert "was deleted" in site.await_event("AllocationRestored", pod)["message"]
    assert site.kernel() == seen
    site.require_no_leak()


def test_a_range_that_is_shrunk_below_what_is_in_use(site: Site) -> None:
    """Whose an address is, keeps it (R2), also through a restart; nobody new gets one outside of the range."""
    site.networks(size=5)
    site.workload(replicas=5)
    site.await_seen(site.numbered(5))
    site.networks(size=3)
    site.await_pass()
    uids = site.uids()
    site.delete_pods(*site.numbered(5))
    site.restarted(site.numbered(5), uids)
    site.workload("stranger", 1)
    site.await_failures("stranger-0", "addresses are taken", 1)
    site.scale("web", 4)  # web-4 keeps number 4, which is outside now
    site.await_failures("stranger-0", "addresses are taken", 2)
    site.await_pass()
    assert site.addresses_in("Retained") == flat(site.numbered(5)) - flat(site.numbered(4))
    site.networks(size=6)
    site.await_seen({"stranger-0": site.shape.numbered(5)}, "stranger")
    site.scale("web", 5)
    site.await_seen(site.numbered(5), "web")
    site.require_no_leak()


def test_two_networks_that_overlap_in_different_scopes(site: Site) -> None:
    """Each is a world of its own: both give the same addresses, and each replica keeps both."""
    for name in ("red", "blue"):
        ranges = site.shape.ranges("one", 20)
        ipam = {"type": "whereabouts", "ipRanges": ranges, "network_name": f"{site.namespace}-{name}"}
        site.network(name, {"type": "macvlan", "master": "eth1", "mode": "private", "ipam": ipam}, {"type": "sbr"})
    for name in ("red", "blue"):
        site.workload(name, 3, networks=[name])
    own = {f"{name}-{n}": site.shape.numbered(n) for name in ("red", "blue") for n in range(3)}
    site.await_seen(own)
    uids = site.uids()
    site.delete_pods(*own)
    site.restarted(own, uids)
    items = site.api.get(f"{HOMEPORT}/ipallocations")["items"]
    mine = [item for item in items if item["spec"]["owner"].get("namespace") == site.namespace]
    scopes = {(item["spec"]["scope"], item["spec"]["address"]) for item in mine}
    assert len(scopes) == len(mine) == 6
    assert len({address for _, address in scopes}) == 3


@pytest.mark.parametrize("skew", [DAY, -DAY], ids=["a-day-ahead", "a-day-behind"])
def test_a_controller_whose_clock_is_wrong_frees_nothing_that_is_kept(
    site: Site, crew: Crew, tmp_path: Path, skew: int
) -> None:
    """Its lease is timed by its monotonic clock, and who keeps without limit keeps."""
    assert crew.controller
    crew.controller.kill()
    skewed = crew.make_controller(
        "controller-skewed", tmp_path, program=SKEWED, environ={"HOMEPORT_TEST_SKEW": str(skew)}
    )
    skewed.start()
    try:
        site.networks()
        site.workload()
        site.await_seen(site.numbered())
        site.scale("web", 1)
        kept = flat(site.numbered()) - flat(site.numbered(1))
        site.await_phase("Retained", kept)
        site.await_pass()
        assert site.addresses_in("Retained") == kept
        site.scale("web", 3)
        site.await_seen(site.numbered())
        skewed.stop()
    finally:
        skewed.kill()
        crew.controller.start()
    site.await_pass()
    site.require_no_leak()


@pytest.mark.parametrize("since", ["1970-01-01T00:00:00Z", "2099-01-01T00:00:00Z"])
def test_times_that_cannot_be_right(site: Site, since: str) -> None:
    """Written by a node whose clock was wrong."""
    site.networks()
    site.workload()
    site.await_seen(site.numbered())
    for address in flat(site.numbered()):
        edit(site, address, {"status": {"since": since, "changed": since}})
    site.await_pass()
    uids = site.uids()
    site.delete_pods(*site.numbered())
    site.restarted(site.numbered(), uids)
    site.require_no_leak()
