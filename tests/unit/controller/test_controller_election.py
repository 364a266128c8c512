"""Who leads: one at a time as long as clocks run alike, and somebody again soon after the leader is gone."""

from __future__ import annotations

import random

import msgspec
import pytest
from tests.stand_ins import StandingClock
from tests.stand_ins_objects import MemoryObjects, MemoryServer

from homeport.controller.electing import Elector, LeadersObjects, LeaseSettings, NotLeading
from homeport.kube.resources import LEASES, NODES
from homeport.model.errors import DecodeFailure


class Candidate:
    def __init__(self, server: MemoryServer, clock: StandingClock, name: str) -> None:
        self.objects = MemoryObjects(server)
        self.elector = Elector(self.objects, clock, LeaseSettings(namespace="kube-system", identity=name))

    def leads_after_a_step(self) -> bool:
        self.elector.step()
        return self.elector.is_leader()


@pytest.fixture
def clock() -> StandingClock:
    return StandingClock()


@pytest.fixture
def server() -> MemoryServer:
    return MemoryServer()


@pytest.fixture
def pair(server: MemoryServer, clock: StandingClock) -> tuple[Candidate, Candidate]:
    return Candidate(server, clock, "a"), Candidate(server, clock, "b")


def holder(server: MemoryServer) -> str:
    (lease,) = (o for (resource, _, _), o in server.objects.items() if resource == LEASES)
    found: str = msgspec.json.decode(lease.body)["spec"]["holderIdentity"]
    return found


def test_the_first_leads_and_stays(pair: tuple[Candidate, Candidate], clock: StandingClock) -> None:
    first, second = pair
    for _ in range(60):
        assert first.leads_after_a_step()
        assert not second.leads_after_a_step()
        clock.sleep(2.0)


def test_another_takes_over_when_it_saw_no_renewal_for_the_lease_and_the_first_has_stepped_down_before(
    pair: tuple[Candidate, Candidate], clock: StandingClock
) -> None:
    first, second = pair
    assert first.leads_after_a_step()
    clock.sleep(1.0)
    assert not second.leads_after_a_step()
    first.objects.reachable = False
    for _ in range(14):
        clock.sleep(1.0)
        first.elector.step()
        assert first.elector.is_leader() == (clock.monotonic() < 10.0)
        assert not second.leads_after_a_step()
    clock.sleep(1.0)
    assert second.leads_after_a_step()
    first.objects.reachable = True
    assert not first.leads_after_a_step()


def test_a_lease_that_was_given_back_is_taken_at_once(pair: tuple[Candidate, Candidate], server: MemoryServer) -> None:
    first, second = pair
    assert first.leads_after_a_step()
    first.elector.resign()
    assert not first.elector.is_leader()
    assert holder(server) == ""
    assert second.leads_after_a_step()
    assert not first.leads_after_a_step()


def test_a_renewal_whose_answer_is_lost_is_no_loss(pair: tuple[Candidate, Candidate], clock: StandingClock) -> None:
    first, _ = pair
    assert first.leads_after_a_step()
    for fate in ("before", "after"):
        first.objects.fail("patch", fate)
        clock.sleep(2.0)
        assert first.leads_after_a_step()
        clock.sleep(6.0)
        assert first.leads_after_a_step()
        clock.sleep(6.0)
        assert first.elector.is_leader()


def test_a_lease_that_somebody_edits_stays_ours(pair: tuple[Candidate, Candidate], clock: StandingClock) -> None:
    first, second = pair
    assert first.leads_after_a_step()
    note = {"metadata": {"annotations": {"note": "hands off"}}}
    second.objects.patch(LEASES, "homeport-controller", note, namespace="kube-system")
    clock.sleep(2.0)
    assert first.leads_after_a_step()


def test_a_lease_that_somebody_takes_by_hand_is_lost_at_once(
    pair: tuple[Candidate, Candidate], clock: StandingClock
) -> None:
    first, second = pair
    assert first.leads_after_a_step()
    second.objects.patch(LEASES, "homeport-controller", {"spec": {"holderIdentity": "b"}}, namespace="kube-system")
    clock.sleep(2.0)
    assert not first.leads_after_a_step()
    assert second.leads_after_a_step()


def test_a_lease_that_cannot_be_read_is_nobodys_to_take(
    pair: tuple[Candidate, Candidate], clock: StandingClock
) -> None:
    first, second = pair
    first.objects.create(
        LEASES, {"metadata": {"name": "homeport-controller"}, "spec": {"holderIdentity": 5}}, namespace="kube-system"
    )
    clock.sleep(100.0)
    with pytest.raises(DecodeFailure, match="homeport-controller"):
        second.elector.step()
    assert not second.elector.is_leader()


@pytest.mark.parametrize("seed", range(20))
def test_never_two_at_once_whatever_is_lost(server: MemoryServer, clock: StandingClock, seed: int) -> None:
    chance = random.Random(seed)
    candidates = [Candidate(server, clock, name) for name in "abc"]
    led: set[str] = set()
    for _ in range(600):
        candidate = chance.choice(candidates)
        candidate.objects.reachable = chance.random() < 0.8
        if candidate.objects.reachable and chance.random() < 0.2:
            candidate.objects.fail(chance.choice(["get", "patch", "create"]), chance.choice(["before", "after"]))
        candidate.elector.step()
        leaders = [n for n, c in zip("abc", candidates, strict=True) if c.elector.is_leader()]
        assert len(leaders) <= 1
        led.update(leaders)
        clock.sleep(chance.choice([0.1, 1.0, 4.0]))
    assert len(led) > 1  # it did change hands


def test_who_does_not_lead_does_not_write() -> None:
    objects = MemoryObjects()
    leads = True
    guarded = LeadersObjects(objects, lambda: leads)
    guarded.create(NODES, {"metadata": {"name": "n"}})
    leads = False
    for write in (
        lambda: guarded.create(NODES, {"metadata": {"name": "m"}}),
        lambda: guarded.patch(NODES, "n", {"spec": {}}),
        lambda: guarded.patch_json(NODES, "n", []),
        lambda: guarded.delete(NODES, "n"),
    ):
        with pytest.raises(NotLeading, match="write nodes"):
            write()
    assert [o.name for o in guarded.list(NODES)] == ["n"]
    assert guarded.get(NODES, "m") is None
