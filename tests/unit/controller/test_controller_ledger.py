"""The ledger has every change once, in its order, whatever becomes of the controllers that keep it (R15)."""

from __future__ import annotations

import pytest
from tests.unit.controller.stages import Actor, Stage

from homeport.controller import ledgering
from homeport.ipam.identities import Replica
from homeport.kube.resources import PODS, STATEFUL_SETS
from homeport.ports import ApiObject
from homeport.stores.kubernetes.ledger import decode_chunk
from homeport.stores.kubernetes.resources import IPLEDGERS


def causes(stage: Stage, number: int) -> list[str]:
    found = (e for e in stage.ledger() if str((e.after or e.before).address) == f"10.0.0.{number}")  # type: ignore[union-attr]
    return [entry.cause for entry in found]


def chunks(stage: Stage) -> list[ApiObject]:
    return sorted(stage.people.list(IPLEDGERS), key=lambda stored: stored.name)


def come_and_go(stage: Stage, number: int) -> None:
    stage.store.delete(stage.stranger(f"s{number}", number), cause="DEL")


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_what_there_was_before_the_first_controller_is_found(stage: Stage) -> None:
    stage.stranger("s", 1)
    stage.actor().work()
    assert causes(stage, 1) == ["found"]
    stage.require_whole_ledger()


def test_a_deletion_says_why_and_when(stage: Stage) -> None:
    actor = stage.actor()
    actor.work()
    held = stage.stranger("s", 1)
    actor.work()
    stage.clock.sleep(60.0)
    stage.store.delete(held, cause="released by somebody")
    actor.work()
    assert causes(stage, 1) == ["allocated", "released by somebody"]
    assert stage.ledger()[-1].at == stage.store_now(-5)


def test_one_that_comes_back_goes_on_where_the_last_one_ended(stage: Stage) -> None:
    """Also what came and went while nobody watched is in it."""
    first = stage.actor()
    first.work()
    come_and_go(stage, 1)
    first.work()
    stage.actor().work()
    come_and_go(stage, 2)
    held = stage.stranger("s", 3)
    stage.actor().work()
    assert [causes(stage, n) for n in (1, 2, 3)] == [["allocated", "DEL"], ["allocated", "DEL"], ["allocated"]]
    assert held.holder is not None
    stage.require_whole_ledger()


def test_where_the_past_is_forgotten_the_difference_is_recorded(stage: Stage) -> None:
    first = stage.actor()
    stays, goes, changes = (stage.bind(Replica(stage.workload("web", 3), n), 1 + n) for n in range(3))
    first.work()
    come_and_go(stage, 9)
    stage.store.delete(goes, cause="DEL")
    stage.keep(changes)
    stage.server.compact()
    stage.actor().work()
    assert causes(stage, 1) == ["found"]
    assert causes(stage, 2) == ["found", "found gone when the controller came back"]
    assert causes(stage, 3) == ["found", "found when the controller came back"]
    assert causes(stage, 9) == []  # nobody can know
    assert stays.holder is not None
    stage.require_chain()


def test_a_quiet_ledger_keeps_up_with_the_versions(stage: Stage) -> None:
    """Else nothing that happens while a later controller starts could be asked for."""
    actor = stage.actor()
    come_and_go(stage, 1)
    stage.stranger("s", 2)
    actor.work()
    for _ in range(300):
        stage.pod("noise", phase="Running")
        stage.pod("noise", phase="Pending")
    actor.work(70.0)
    assert int(decode_chunk(chunks(stage)[-1]).through) >= stage.server.version - 1


def test_a_full_chunk_is_followed_by_the_next(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgering, "CHUNK_ENTRIES", 10)
    actor = stage.actor()
    actor.work()
    for number in range(1, 14):
        come_and_go(stage, number)
        if number % 4 == 0:
            actor.work()
    actor.work()
    assert [decode_chunk(c).count for c in chunks(stage)] == [10, 10, 6]
    stage.require_whole_ledger()
    open_ones = stage.people.list(IPLEDGERS, labels={ledgering.OPEN: "true"})
    assert [c.name for c in open_ones] == [chunks(stage)[-1].name]


def test_two_keepers_write_each_change_once(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgering, "CHUNK_ENTRIES", 7)
    actors = [stage.actor(), stage.actor()]
    for actor in actors:
        actor.work()
    for number in range(1, 21):
        come_and_go(stage, number)
        actors[number % 2].work(0.5 * (number % 5))
    for actor in actors:
        actor.work()
    assert [causes(stage, n) for n in range(1, 21)] == [["allocated", "DEL"]] * 20
    stage.require_whole_ledger()


def test_old_chunks_and_too_many_are_removed_from_the_oldest_on(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgering, "CHUNK_ENTRIES", 2)
    stage.keeping = ledgering.Keeping(days=1, entries=6)
    actor = stage.actor()
    actor.work()
    for number in range(1, 9):
        come_and_go(stage, number)
        actor.work()
    stage.clock.sleep(4000.0)
    come_and_go(stage, 9)
    actor.work()
    assert [decode_chunk(c).number for c in chunks(stage)] == [5, 6, 7, 8, 9]  # as of the hour that had passed
    fresh = stage.actor()  # that has to find where the ledger begins
    stage.clock.advance(days=2)
    come_and_go(stage, 10)
    fresh.work()
    come_and_go(stage, 11)
    stage.clock.sleep(4000.0)
    fresh.work()
    assert [decode_chunk(c).number for c in chunks(stage)] == [10, 11]


def test_a_last_chunk_that_cannot_be_read_is_left_and_told(stage: Stage) -> None:
    stage.stranger("s", 1)
    stage.actor().work()
    (last,) = chunks(stage)
    stage.people.patch(IPLEDGERS, last.name, {"spec": {"data": "bm8="}})
    broken = stage.people.get(IPLEDGERS, last.name)
    come_and_go(stage, 2)
    actor = stage.actor()
    actor.work()
    assert stage.people.get(IPLEDGERS, last.name) == broken
    assert "Unreadable" in actor.reasons()
    assert [c.name[-1] for c in chunks(stage)] == ["1", "2"]


def test_a_database_that_is_set_back_takes_its_ledger_with_it(stage: Stage) -> None:
    """E26: what is told after that begins from what was restored."""
    actor = stage.actor()
    held = stage.stranger("s", 1)
    actor.work()
    restore = stage.save()
    stage.store.delete(held, cause="DEL")
    come_and_go(stage, 2)
    actor.work()
    restore()
    actor.work()
    come_and_go(stage, 3)
    actor.work()
    assert stage.phases() == {1: "Bound"}
    assert [causes(stage, n) for n in (1, 2, 3)] == [["found"], [], ["allocated", "DEL"]]
    stage.require_chain()


def test_the_end_of_a_workload_is_told_from_its_start_to_its_end(stage: Stage) -> None:
    actor: Actor = stage.actor()
    web = stage.workload("web", 1)
    actor.work()
    held = stage.bind(Replica(web, 0), 1)
    actor.work()
    stage.remove(STATEFUL_SETS, "web")
    stage.keep(held)
    actor.work()
    assert stage.phases() == {1: "Retained"}
    stage.remove(PODS, "web-0")
    actor.work()
    assert causes(stage, 1) == ["allocated", "DEL", "ns/StatefulSet/web was deleted"]
    assert actor.reasons() == ["AddressReleased"]
