"""E22: a controller that dies before or after any write, or meets another before any write, frees nothing wrongly."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.unit.controller.stages import Actor, Killed, Stage

from homeport.ipam.allocations import Allocation, Phase
from homeport.ipam.identities import Replica
from homeport.kube.resources import NODES, PODS, STATEFUL_SETS

SETTLED = {1: "Bound", 5: "Retained", 6: "Bound", 7: "Bound", 9: "Retained", 20: "Reserved", 21: "Reserved"}


class Everything:
    """Something of all that a controller has to do, and of all that it has to leave alone."""

    def __init__(self) -> None:
        self.stage = stage = Stage(whenScaled="Release")
        stage.node("dead")
        web, gone, kept = (stage.workload(name, 3) for name in ("web", "gone", "kept"))
        self.untouched: list[Allocation] = []
        scaled = [stage.bind(Replica(web, n), 1 + n) for n in range(3)]
        orphans = [stage.bind(Replica(gone, n), 4 + 2 * n) for n in range(2)]
        wanted = stage.bind(Replica(kept, 0), 5)
        stranded = stage.bind(Replica(kept, 1), 9, node="dead")
        self.stranger = stage.stranger("alive", 7)
        stage.stranger("dead", 8, node="dead")
        # One controller has noted what the workloads ask for, while there were such.
        stage.actor().work()
        stage.workload("map", 0, addresses=[20, 21])
        stage.keep(stage.bind(Replica(stage.workload("unmapped", 0), 0), 22), Phase.RESERVED)
        stage.workload("web", 1)
        for allocation in (*scaled[1:], orphans[0], wanted):
            self.end(allocation)
        stage.remove(STATEFUL_SETS, "gone")
        stage.remove(PODS, "kept-1")
        stage.remove(PODS, "dead")
        stage.remove(NODES, "dead")
        self.untouched = [self.now(a) for a in (scaled[0], orphans[1], wanted, self.stranger)]
        assert stranded.holder is not None

    def end(self, allocation: Allocation) -> None:
        owner = allocation.slot.owner
        assert isinstance(owner, Replica)
        self.stage.keep(self.now(allocation))
        self.stage.remove(PODS, owner.pod.name)

    def now(self, allocation: Allocation) -> Allocation:
        found = self.stage.store.get(allocation.scope, allocation.address)
        assert found is not None
        return found

    def require_settled(self) -> None:
        assert self.stage.phases() == SETTLED
        self.stage.require_untouched(*self.untouched)
        self.stage.require_whole_ledger()
        assert str(self.stage.range().taken) == "0,4-6,8,19-20"


def kill() -> None:
    raise Killed


def writes_of_a_whole_run() -> int:
    world = Everything()
    actor = world.stage.actor()
    actor.work()
    world.require_settled()
    writes, calls = actor.writes(), len(actor.objects.calls)
    actor.work(400.0)  # and a full pass more finds nothing to do, nor to ask
    assert {c.resource.plural for c in actor.objects.calls[calls:]} <= {"ipledgers"}
    world.require_settled()
    return writes


WRITES = range(1, writes_of_a_whole_run() + 1)


@pytest.mark.parametrize("number", WRITES)
def test_killed_before_a_write(number: int) -> None:
    world = Everything()
    first = world.stage.actor()
    first.on_write(number, kill)
    with pytest.raises(Killed):
        first.work()
    world.stage.require_untouched(*world.untouched)
    world.stage.actor().work()
    world.require_settled()


@pytest.mark.parametrize("number", WRITES)
def test_killed_after_a_write(number: int) -> None:
    world = Everything()
    first = world.stage.actor()
    first.on_write(number, lambda: setattr(first.objects, "on_done", lambda _call: kill()))
    with pytest.raises(Killed):
        first.work()
    world.stage.actor().work()
    world.require_settled()


@pytest.mark.parametrize("number", WRITES)
def test_another_does_everything_before_a_write(number: int) -> None:
    world = Everything()
    first, second = world.stage.actor(), world.stage.actor()
    first.on_write(number, second.work)
    first.work()
    second.work()
    world.require_settled()


@pytest.mark.parametrize("fate", ["before", "after"])
@pytest.mark.parametrize("number", WRITES)
def test_a_write_whose_answer_is_lost(number: int, fate: str) -> None:
    world = Everything()
    actor = world.stage.actor()
    actor.on_write(number, lambda: actor.objects.fail("", fate))  # type: ignore[arg-type]
    actor.work(60.0)
    world.require_settled()


def test_two_step_by_step() -> None:
    world = Everything()
    actors = [world.stage.actor(), world.stage.actor()]
    take_turns(actors)
    world.require_settled()


def take_turns(actors: list[Actor], *, act: Callable[[Actor], object] = lambda actor: actor.term.step()) -> None:
    clock = actors[0].term._clock
    for _ in range(200):
        for actor in actors:
            act(actor)
            actor.objects.deliver()
        clock.sleep(0.1)
