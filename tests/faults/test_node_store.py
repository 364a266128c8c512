"""A node's store while the store behind it is away, slow, or changed by others (docs/identity.md R10, R12, E20)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path

import msgspec
import pytest
from tests.stand_ins_claims import ADDRESS, MAC, POD, START, WEB_0, Node, container_of, holder, wanted

from homeport.ipam.allocations import Phase, released
from homeport.ipam.identities import ContainerOwner, Owner, PodOwner, Slot
from homeport.ipam.ranges import Span
from homeport.model.errors import IOFailure, TryAgainLater, Unreachable
from homeport.ports import AlreadyExists, Conflict
from homeport.stores.claims import Claims, State
from homeport.stores.memory import MemoryStore
from homeport.stores.sqlite import SqliteStore


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    yield made
    made.close()


# --- what is asked of the store behind ----------------------------------------------------------------------------


def test_a_pod_costs_one_write_and_its_end_none(node: Node) -> None:
    assert node.of_slot(POD) == ()
    made = node.bound(POD)
    assert node.store.of_holder("c1", "net1") == (made,)
    assert node.store.of_node("n1") == (made,)
    node.let_go(made)
    assert node.store.of_holder("c1", "net1") == node.store.of_node("n1") == ()
    assert node.remote.asked == ["create"]
    assert node.woken == 1
    assert node.store.deliver() == 0
    assert node.remote.asked == ["create", "delete"]
    assert node.there() is None
    assert node.states() == []


def test_a_replica_that_returns_before_its_release_was_told_costs_one_write(node: Node) -> None:
    node.let_go(node.bound())
    (kept,) = node.of_slot()
    assert (kept.phase, kept.holder) == (Phase.RETAINED, None)
    node.remote.asked.clear()
    node.take(kept, "c2", "u2")
    assert node.remote.asked == ["replace"]
    assert container_of(node.there()) == "c2"
    assert node.store.deliver() == 0
    assert node.remote.asked == ["replace"]
    assert [e.cause for e in node.remote.ledger()] == ["allocated", "returned"]


def test_a_replica_that_returns_later_is_remembered(node: Node) -> None:
    node.let_go(node.bound())
    node.store.deliver()
    assert node.states() == []
    node.remote.asked.clear()
    (kept,) = node.of_slot()
    assert kept == node.there()
    node.take(kept, "c2")
    assert node.remote.asked == ["replace"]


def test_a_replica_that_returns_after_a_restart_is_asked_for(node: Node) -> None:
    node.let_go(node.bound())
    node.store.deliver()
    node.restart()
    node.remote.asked.clear()
    (kept,) = node.of_slot()
    assert kept == node.there()
    node.take(kept, "c2")
    assert node.remote.asked == ["of_slot", "replace"]


def test_what_is_remembered_may_be_old(node: Node) -> None:
    """The replica was elsewhere since, or its address is another's by now."""
    node.let_go(node.bound())
    node.store.deliver()
    (kept,) = node.of_slot()
    elsewhere = msgspec.structs.replace(kept, phase=Phase.BOUND, holder=holder("c9", "u9", node="n2"))
    moved = MemoryStore.replace(node.remote, elsewhere, cause="returned")
    with pytest.raises(Conflict):
        node.take(kept, "c2")
    assert node.of_slot() == (moved,)
    assert node.states() == []


def test_a_mac_is_noted_later_and_goes_with_the_release(node: Node) -> None:
    made = node.bound()
    noted = node.store.replace(msgspec.structs.replace(made, mac=MAC), cause="MAC noted")
    assert node.store.of_holder("c1", "net1") == (noted,)
    node.let_go(noted)
    node.store.deliver()
    there = node.there()
    assert there is not None
    assert (there.phase, there.mac) == (Phase.RETAINED, MAC)
    assert node.remote.asked == ["create", "replace"]


def test_a_noted_mac_is_told(node: Node) -> None:
    made = node.bound()
    node.store.replace(msgspec.structs.replace(made, mac=MAC), cause="MAC noted")
    assert node.store.pending() == 1
    node.store.deliver()
    assert node.store.of_holder("c1", "net1") == (node.there(),)
    assert [(e.cause, e.after and e.after.mac) for e in node.remote.ledger()] == [
        ("allocated", None),
        ("MAC noted", MAC),
    ]


def test_addresses_let_go_are_freed_before_a_range_is_said_to_be_full(node: Node) -> None:
    node.let_go(node.bound(POD))
    assert node.store.lowest_free("", Span(ADDRESS, ADDRESS), []) == (ADDRESS,)


# --- while it is away ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [Unreachable("away"), TryAgainLater("no answer")])
@pytest.mark.parametrize("owner", [WEB_0, POD], ids=["replica", "pod"])
def test_e20_a_new_sandbox_of_the_same_pod(node: Node, owner: Owner, error: Exception) -> None:
    made = node.bound(owner)
    node.passed += 1
    node.remote.away(error)
    node.let_go(made)
    assert node.store.deliver() == 1
    assert node.remote.asked == ["create", "get"], "whether it answers at all"
    node.restart()
    (kept,) = node.of_slot(owner)
    taken = node.take(kept, "c2")
    assert container_of(taken) == "c2"
    node.restart()
    assert node.of_slot(owner) == node.store.of_holder("c2", "net1") == (taken,)
    node.remote.away(None)
    assert node.store.deliver() == 0
    assert container_of(node.there()) == "c2"
    assert node.states() == [State.BOUND]


def test_e20_a_release_that_was_never_sent_can_be_taken_back(node: Node) -> None:
    node.let_go(node.bound())
    node.remote.away(Unreachable("away"))
    assert node.store.deliver() == 1
    assert node.remote.asked == ["create", "replace"], "it answered a moment ago"
    (kept,) = node.of_slot()
    assert container_of(node.take(kept, "c2")) == "c2"


def test_e20_what_may_be_deleted_already_is_nobodys(node: Node) -> None:
    made = node.bound(POD)
    node.remote.away(TryAgainLater("no answer"))
    node.let_go(made)
    assert node.store.deliver() == 1
    assert node.of_slot(POD) == ()


def test_e20_what_may_be_retained_already_may_be_on_another_node(node: Node) -> None:
    made = node.bound()
    node.remote.away(TryAgainLater("no answer"))
    node.let_go(made)
    assert node.store.deliver() == 1
    (kept,) = node.of_slot()
    with pytest.raises(TryAgainLater):
        node.take(kept, "c2")


def test_e20_another_pod_waits(node: Node) -> None:
    """Somebody may have seen to it that the replica's address is another's by now."""
    node.let_go(node.bound())
    node.remote.away(Unreachable("away"))
    (kept,) = node.of_slot()
    with pytest.raises(Unreachable):
        node.take(kept, "c2", "u2")
    assert node.states() == [State.RETAINING]
    node.remote.away(None)
    node.store.deliver()
    there = node.there()
    assert there is not None
    assert there.phase is Phase.RETAINED


def test_e20_ends_well_when_the_object_was_noted_something_meanwhile(node: Node) -> None:
    made = node.bound()
    node.let_go(made)
    node.remote.away(Unreachable("away"))
    (kept,) = node.of_slot()
    node.take(kept, "c2")
    MemoryStore.replace(node.remote, msgspec.structs.replace(made, workload_uid="w2"), cause="noted")
    node.remote.away(None)
    node.restart()
    assert node.store.deliver() == 0
    assert container_of(node.there()) == "c2"
    assert node.store.of_holder("c2", "net1") == (node.there(),)


def test_e20_an_address_that_became_anothers_stays_so(node: Node) -> None:
    made = node.bound()
    node.let_go(made)
    node.remote.away(Unreachable("away"))
    (kept,) = node.of_slot()
    node.take(kept, "c2")
    node.remote.away(None)
    stranger = MemoryStore.replace(node.remote, msgspec.structs.replace(made, slot=Slot(POD, "net", "net1")), cause="x")
    assert node.store.deliver() == 0
    assert node.there() == stranger
    assert node.states() == [State.BOUND]
    assert any("10.0.0.1 is Bound for ns/p" in trouble for trouble in node.troubles)


def test_nothing_is_asked_again_and_again_while_nobody_answers(node: Node) -> None:
    for n in range(1, 9):
        made = node.store.create(
            msgspec.structs.replace(wanted(POD), address=ip_address(f"10.0.0.{n}")), cause="allocated"
        )
        node.let_go(made)
    node.remote.asked.clear()
    node.remote.away(TryAgainLater("no answer"))
    assert [node.store.deliver() for _ in range(5)] == [8] * 5
    assert node.remote.asked == ["delete"] * 3


def test_one_that_is_refused_does_not_hold_up_the_others(node: Node) -> None:
    for n in (1, 2, 3):
        made = node.store.create(
            msgspec.structs.replace(wanted(POD), address=ip_address(f"10.0.0.{n}")), cause="allocated"
        )
        node.let_go(made)
    errors = iter([IOFailure("forbidden")])
    node.remote.refuse = lambda _name: next(errors, None)
    assert node.store.deliver() == 1
    assert node.store.deliver() == 0
    assert node.troubles == ["forbidden"]


# --- lost answers -------------------------------------------------------------------------------------------------


def test_a_claim_that_was_never_sent_leaves_nothing(node: Node) -> None:
    node.remote.away(Unreachable("away"))
    with pytest.raises(Unreachable):
        node.bound(POD)
    assert node.states() == []


@pytest.mark.parametrize("owner", [WEB_0, POD], ids=["replica", "pod"])
def test_a_claim_whose_answer_was_lost_is_let_go_of(node: Node, owner: Owner) -> None:
    node.remote.lose = TryAgainLater("the answer was lost")
    with pytest.raises(TryAgainLater):
        node.bound(owner)
    node.remote.lose = None
    node.restart()
    held = node.store.get("", ADDRESS)
    assert container_of(held) == "c1", "what may be there is let go of"
    assert held is not None
    node.let_go(held)
    assert node.store.deliver() == 0
    there = node.there()
    assert (None if there is None else there.phase) == (Phase.RETAINED if owner == WEB_0 else None)


def test_a_claim_that_may_still_come_is_awaited_before_it_is_forgotten(node: Node) -> None:
    node.remote.away(TryAgainLater("no answer"))
    with pytest.raises(TryAgainLater):
        node.bound(POD)
    held = node.store.get("", ADDRESS)
    assert held is not None
    node.let_go(held)
    node.remote.away(None)
    assert node.store.deliver() == 1, "it is not there, but may be under way"
    MemoryStore.create(node.remote, wanted(POD), cause="allocated")
    assert node.store.deliver() == 0
    assert node.there() is None


def test_a_claim_that_never_came_is_forgotten(node: Node) -> None:
    node.remote.away(TryAgainLater("no answer"))
    with pytest.raises(TryAgainLater):
        node.bound(POD)
    held = node.store.get("", ADDRESS)
    assert held is not None
    node.let_go(held)
    node.remote.away(None)
    node.at += timedelta(minutes=1)
    assert node.store.deliver() == 0
    assert node.states() == []


def test_the_slot_asks_what_became_of_its_lost_claim(node: Node) -> None:
    node.remote.lose = TryAgainLater("the answer was lost")
    with pytest.raises(TryAgainLater):
        node.bound()
    node.remote.lose = None
    assert node.of_slot() == (node.there(),)
    assert node.states() == [State.BOUND]


def test_a_slot_whose_lost_claim_was_not_carried_out_claims_anew(node: Node) -> None:
    node.remote.away(TryAgainLater("no answer"))
    with pytest.raises(TryAgainLater):
        node.bound()
    node.remote.away(None)
    assert node.of_slot() == ()
    assert node.bound(container_id="c2") == node.there()


# --- while others change things -----------------------------------------------------------------------------------


def test_a_late_release_changes_nothing_for_the_new_holder(node: Node) -> None:
    made = node.bound()
    node.let_go(made)
    elsewhere = msgspec.structs.replace(made, holder=holder("c9", "u9", node="n2"))
    moved = MemoryStore.replace(node.remote, elsewhere, cause="moved")
    assert node.store.deliver() == 0
    assert node.there() == moved


def test_a_release_goes_on_when_only_a_note_was_changed(node: Node) -> None:
    made = node.bound()
    node.let_go(made)
    MemoryStore.replace(node.remote, msgspec.structs.replace(made, workload_uid="w2"), cause="noted")
    assert node.store.deliver() == 0
    there = node.there()
    assert there is not None
    assert there.phase is Phase.RETAINED


def test_a_claim_at_an_old_version_is_looked_at_again(node: Node) -> None:
    """Its DEL was lost, and the replica was elsewhere since."""
    made = node.bound()
    MemoryStore.replace(node.remote, released(made, at=START) or made, cause="proven gone")
    with pytest.raises(Conflict):
        node.take(made, "c2", "u2")
    assert node.states() == []
    (kept,) = node.of_slot()
    assert container_of(node.take(kept, "c2", "u2")) == "c2"


def test_two_interfaces_of_a_node_never_ask_for_one_address(node: Node) -> None:
    first = node.bound(POD)
    node.remote.asked.clear()
    with pytest.raises(AlreadyExists) as told:
        node.bound(PodOwner("ns", "q", "u2"), "c2")
    assert told.value.present == first
    assert node.remote.asked == []


def test_an_address_of_another_node_is_told_and_forgotten(node: Node) -> None:
    theirs = MemoryStore.create(node.remote, wanted(PodOwner("ns", "q", "u2"), "c2"), cause="theirs")
    with pytest.raises(AlreadyExists) as told:
        node.bound(POD)
    assert told.value.present == theirs
    assert node.states() == []


def test_the_same_container_may_come_again_before_its_release_was_told(node: Node) -> None:
    owner = ContainerOwner("c1")
    made = node.bound(owner)
    node.let_go(made)
    (kept,) = node.of_slot(owner)
    assert kept.phase is Phase.RETAINED, "it is not held: the release would be told after all"
    node.take(kept, "c1")
    assert node.store.deliver() == 0
    assert container_of(node.there()) == "c1"


def test_a_surplus_address_that_is_kept_after_all(node: Node) -> None:
    node.let_go(node.bound())
    (kept,) = node.of_slot()
    node.store.delete(kept, cause="replaced")
    assert node.of_slot() == ()
    node.store.create(kept, cause="undone")
    assert node.store.deliver() == 0
    there = node.there()
    assert there is not None
    assert there.phase is Phase.RETAINED


def test_a_bound_claim_that_the_store_lost_is_made_again(node: Node) -> None:
    made = node.bound()
    MemoryStore.delete(node.remote, made, cause="somebody deleted it")
    (claim,) = node.store.claims.all()
    assert node.store.restore(claim, over=0, cause="restored")
    assert not node.store.restore(claim, over=0, cause="restored"), "it is another by now"
    assert node.store.deliver() == 0
    assert container_of(node.there()) == "c1"
    assert node.store.of_holder("c1", "net1") == (node.there(),)


def test_a_late_release_takes_nothing_from_the_next_container(node: Node) -> None:
    """It has read what the former one held, and writes while the next one's claim is on its way (R7)."""
    former = node.bound()

    def late(name: str) -> None:
        node.remote.refuse = lambda _name: None
        assert name == "replace"
        with pytest.raises(Conflict):
            node.let_go(former)
        (claim,) = node.store.claims.all()
        assert not node.store.let_go(claim, cause="gone")

    node.remote.refuse = late
    taken = node.take(former, "c2")
    assert node.store.of_holder("c2", "net1") == (taken,)
    assert node.store.deliver() == 0
    assert container_of(node.there()) == "c2"


def test_a_claim_whose_holder_is_gone_is_let_go_once(node: Node) -> None:
    made = node.bound()
    (claim,) = node.store.claims.all()
    assert node.store.let_go(claim, cause="gone")
    assert not node.store.let_go(claim, cause="gone")
    (left,) = node.store.claims.all()
    assert left.state is (State.DELETING if made.slot.workload is None else State.RETAINING)
    assert node.store.deliver() == 0
    assert node.store.claims.all() == ()


# --- the file -----------------------------------------------------------------------------------------------------


def test_claims_outlive_the_process_whole(node: Node) -> None:
    full = msgspec.structs.replace(wanted(WEB_0), scope="Ünïcode'", mac=MAC, workload_uid="w1")
    made = node.store.create(full, cause="allocated")
    before = node.store.claims.all()
    node.store.claims.note_link("net", "eth1")
    node.restart()
    assert node.store.claims.all() == before
    assert before[0].allocation == made
    assert node.store.claims.link("net") == "eth1"
    assert node.store.claims.link("other") is None


def test_a_disk_that_fails_while_the_claim_is_made_loses_nothing(node: Node) -> None:
    def make_readonly(name: str) -> None:
        if name == "create":
            node.store.claims._db.execute("PRAGMA query_only = ON")

    node.remote.refuse = make_readonly
    with pytest.raises(IOFailure, match="write claims of this node"):
        node.bound(POD)
    (held,) = node.store.of_holder("c1", "net1")
    with pytest.raises(IOFailure):
        node.let_go(held)
    node.remote.refuse = lambda _name: None
    node.restart()
    (held,) = node.store.of_holder("c1", "net1")
    node.let_go(held)
    assert node.store.deliver() == 0
    assert node.there() is None


def test_a_row_that_cannot_be_read_is_not_taken_for_none(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.bound()
    node.store.claims._db.execute("UPDATE claims SET note = '{}'")
    node.close()
    with pytest.raises(IOFailure, match=r"note of 10\.0\.0\.1 is unreadable"):
        Claims(tmp_path / "state" / "claims.db")


def test_another_programs_file_is_refused(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "claims.db")
    store.create(wanted(POD), cause="x")
    store.close()
    with pytest.raises(IOFailure, match="another program's database"):
        Claims(tmp_path / "claims.db")
