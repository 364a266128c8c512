"""IPRanges say what there is, at most once a second, and nothing when nothing changes."""

from __future__ import annotations

import pytest
from tests.unit.controller.stages import Actor, Stage

from homeport.ipam.identities import Replica
from homeport.kube.resources import DEFINITIONS
from homeport.stores.kubernetes.hints import Totals, decode_range
from homeport.stores.kubernetes.resources import IPRANGES


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
def actor(stage: Stage) -> Actor:
    made = stage.actor()
    made.work()
    return made


def range_writes(actor: Actor) -> int:
    return sum(c.resource == IPRANGES and c.verb in ("create", "patch", "delete") for c in actor.objects.calls)


def test_totals_and_what_is_taken(stage: Stage, actor: Actor) -> None:
    web = stage.workload("web", 2, addresses=[20, 21])
    stage.bind(Replica(web, 0), 20)
    stage.keep(stage.bind(Replica(stage.workload("db", 1), 0), 7))
    for number in (1, 2, 254):
        stage.stranger(f"s{number}", number)
    actor.work()
    found = stage.range()
    assert found.totals == Totals(usable=254, bound=4, retained=1, reserved=1, quarantined=0, free=248)
    assert (str(found.taken), found.up_to, found.networks) == ("0-1,6,19-20,253", None, ("ns/lan",))


def test_one_write_a_second_and_none_without_a_change(stage: Stage, actor: Actor) -> None:
    before = range_writes(actor)
    for number in range(1, 41):
        stage.stranger(f"s{number}", number)
        actor.objects.deliver()
        actor.term.step()
        stage.clock.sleep(0.1)
    assert range_writes(actor) - before in (4, 5)
    actor.work()
    before = range_writes(actor)
    actor.work(600.0)
    assert range_writes(actor) == before
    stage.actor().work()  # nor does another controller that finds things as they are
    assert stage.range().totals.bound == 40


def test_networks_of_one_range_share_it_and_others_overlap(stage: Stage, actor: Actor) -> None:
    stage.define("twin")
    stage.define("part", range_="10.0.0.0/24", range_start="10.0.0.100", range_end="10.0.0.109")
    stage.define("apart", network_name="apart")
    stage.stranger("s", 105)
    actor.work()
    found = {(r.scope, str(r.span)): r for r in map(decode_range, stage.people.list(IPRANGES))}
    assert {key: (r.networks, str(r.taken)) for key, r in found.items()} == {
        ("", "10.0.0.1-10.0.0.254"): (("ns/lan", "ns/twin"), "104"),
        ("", "10.0.0.100-10.0.0.109"): (("ns/part",), "5"),
        ("apart", "10.0.0.1-10.0.0.254"): (("ns/apart",), ""),
    }


def test_what_is_withheld_by_now_is_no_room(stage: Stage, actor: Actor) -> None:
    stage.stranger("s", 9)
    stage.define("lan", exclude=["10.0.0.8/29"])
    actor.work()
    assert stage.range().totals == Totals(usable=246, bound=1, free=246)


def test_a_range_of_no_network_goes_and_one_that_cannot_be_judged_stays(stage: Stage, actor: Actor) -> None:
    stage.define("other", range_="10.7.0.0/24")
    actor.work()
    assert len(stage.people.list(IPRANGES)) == 2
    stage.people.patch(DEFINITIONS, "other", {"spec": {"config": "{"}}, namespace="ns")
    actor.work(700.0)
    assert len(stage.people.list(IPRANGES)) == 2
    stage.remove(DEFINITIONS, "other")
    actor.work()
    assert len(stage.people.list(IPRANGES)) == 1


def test_one_that_is_spoilt_or_deleted_by_hand_is_written_anew(stage: Stage, actor: Actor) -> None:
    stage.stranger("s", 3)
    actor.work()
    (found,) = stage.people.list(IPRANGES)
    stage.people.patch(IPRANGES, found.name, {"status": {"taken": "7-3"}})
    actor.work()
    assert str(stage.range().taken) == "2"
    stage.people.delete(IPRANGES, found.name)
    actor.work()
    assert str(stage.range().taken) == "2"


def test_ipv6_ranges_count_beyond_what_numbers_hold(stage: Stage, actor: Actor) -> None:
    stage.define("six", range_="fd00::/64")
    actor.work()
    found = next(r for r in map(decode_range, stage.people.list(IPRANGES)) if r.span.first.version == 6)
    assert found.totals.usable == found.totals.free == 2**63 - 1


def test_networks_that_come_one_after_the_other_are_counted_together(stage: Stage, actor: Actor) -> None:
    counted: list[float] = []
    count = actor.term._watches.count_pools

    def note() -> None:
        counted.append(stage.clock.monotonic())
        count()

    actor.term._watches.count_pools = note  # type: ignore[method-assign]
    for number in range(40):
        stage.define(f"n{number}", range_=f"10.3.{number}.0/24")
        actor.objects.deliver()
        actor.term.step()
        stage.clock.sleep(0.1)
    actor.work()
    assert len(stage.people.list(IPRANGES)) == 41
    assert len(counted) <= 5
