"""What every `AllocationStore` owes its callers, asked of each of them (docs/identity.md R1, R12, R15)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import msgspec
import pytest
from tests.stand_ins_keeping import Keeper, KeptStore
from tests.stand_ins_objects import MemoryObjects

from homeport.ipam.allocations import Allocation, Phase, Retention
from homeport.ipam.identities import ContainerOwner, Holder, Owner, PodOwner, Replica, Slot, Workload
from homeport.ipam.ranges import Span
from homeport.model.addresses import IPAddress, MacAddress
from homeport.ports import AllocationStore, AlreadyExists, Conflict
from homeport.stores.claims import Claims
from homeport.stores.memory import MemoryStore
from homeport.stores.nodes import NodeStore
from homeport.stores.sqlite import SqliteStore

NOW = datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)
WEB = Workload("ns", "StatefulSet", "web")


class Ticking:
    """A clock that a store reads: each reading a second later."""

    def __init__(self) -> None:
        self.at = NOW

    def __call__(self) -> datetime:
        self.at += timedelta(seconds=1)
        return self.at


class Told(NodeStore):
    """A node's store that tells the store behind it at once what it lets go, and answers as that one does.

    By itself it answers first: only the node's own interfaces let go, and none of them goes on from the answer.
    """

    def replace(self, allocation: Allocation, *, cause: str) -> Allocation:
        replaced = super().replace(allocation, cause=cause)
        assert self.deliver() == 0
        behind = self.remote.get(replaced.scope, replaced.address)
        assert behind
        return behind

    def delete(self, allocation: Allocation, *, cause: str) -> None:
        super().delete(allocation, cause=cause)
        assert self.deliver() == 0


def open_memory(tmp_path: Path) -> Iterator[AllocationStore]:
    yield MemoryStore(now=Ticking())


def open_sqlite(tmp_path: Path) -> Iterator[AllocationStore]:
    sqlite = SqliteStore(tmp_path / "state" / "allocations.db", now=Ticking())
    yield sqlite
    sqlite.close()


def open_kubernetes(tmp_path: Path) -> Iterator[AllocationStore]:
    """On an API server in memory; tests/apiserver/test_store_contract.py has it on a real one."""
    objects, now = MemoryObjects(), Ticking()
    keeper = Keeper(objects, now)
    yield KeptStore(objects, keeper, now)
    keeper.stop()


def open_node(tmp_path: Path) -> Iterator[AllocationStore]:
    claims = Claims(tmp_path / "claims.db")
    for behind in open_kubernetes(tmp_path):
        yield Told(behind, claims, node="n1")
    claims.close()


@pytest.fixture(
    params=[open_memory, open_sqlite, open_kubernetes, open_node], ids=lambda o: o.__name__.removeprefix("open_")
)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AllocationStore]:
    yield from request.param(tmp_path)


def address(text: str) -> IPAddress:
    return ip_address(text)


def span(first: str, last: str) -> Span:
    return Span(ip_address(first), ip_address(last))


def holder(container_id: str = "c1", ifname: str = "net1") -> Holder:
    return Holder(container_id=container_id, ifname=ifname, netns_path="/run/netns/x", node="n1", pod_uid="u1")


def allocation(
    text: str, owner: Owner | None = None, *, scope: str = "", phase: Phase = Phase.BOUND, network: str = "net"
) -> Allocation:
    return Allocation(
        scope=scope,
        address=ip_address(text),
        slot=Slot(owner or Replica(WEB, 0), network, "net1"),
        phase=phase,
        holder=holder() if phase is Phase.BOUND else None,
        since=NOW,
    )


OWNERS: list[Owner] = [Replica(WEB, 7), PodOwner("ns", "p", "uid"), ContainerOwner("abc")]


class TestAllocationStore:
    @pytest.mark.parametrize("owner", OWNERS, ids=lambda o: type(o).__name__)
    @pytest.mark.parametrize("text", ["10.0.0.1", "255.255.255.255", "fd00::1", "::"])
    def test_what_was_created_is_read_back_whole(self, store: AllocationStore, owner: Owner, text: str) -> None:
        full = msgspec.structs.replace(
            allocation(text, owner, scope="Ünïcode'\";"),
            mac=MacAddress("0a:58:0a:00:00:01"),
            retention=Retention(when_deleted="Retain", retain_for=timedelta(hours=72, seconds=1), adopt="Never"),
            workload_uid="w1",
        )
        created = store.create(full, cause="test")
        assert created == msgspec.structs.replace(full, version=created.version)
        assert created.version > 0
        assert store.get(full.scope, full.address) == created
        assert tuple(store.all()) == (created,)

    def test_a_second_claim_of_an_address_is_told_of_the_first(self, store: AllocationStore) -> None:
        first = store.create(allocation("10.0.0.1"), cause="test")
        with pytest.raises(AlreadyExists) as refused:
            store.create(allocation("10.0.0.1", PodOwner("ns", "p", "u")), cause="test")
        assert refused.value.present == first
        assert tuple(store.all()) == (first,)
        assert len(tuple(store.ledger())) == 1

    def test_an_address_is_unique_in_its_scope_alone(self, store: AllocationStore) -> None:
        store.create(allocation("10.0.0.1", scope="a"), cause="test")
        store.create(allocation("10.0.0.1", scope="b"), cause="test")
        assert store.get("c", address("10.0.0.1")) is None
        assert [a.scope for a in store.all()] == ["a", "b"]
        assert [a.scope for a in store.all("b")] == ["b"]

    def test_families_do_not_meet(self, store: AllocationStore) -> None:
        """0.0.0.1 and ::1 are the same number."""
        store.create(allocation("0.0.0.1"), cause="test")
        assert store.get("", address("::1")) is None
        store.create(allocation("::1"), cause="test")
        assert [str(a.address) for a in store.all()] == ["0.0.0.1", "::1"]

    def test_replacing_and_deleting_need_the_stored_version(self, store: AllocationStore) -> None:
        first = store.create(allocation("10.0.0.1"), cause="test")
        second = store.replace(msgspec.structs.replace(first, phase=Phase.RETAINED, holder=None), cause="test")
        assert second.version not in (0, first.version)
        for stale in (first, allocation("10.0.0.1")):
            with pytest.raises(Conflict):
                store.replace(stale, cause="test")
            with pytest.raises(Conflict):
                store.delete(stale, cause="test")
        assert store.get("", second.address) == second
        store.delete(second, cause="test")
        assert store.get("", second.address) is None
        with pytest.raises(Conflict):
            store.delete(second, cause="test")
        with pytest.raises(Conflict):
            store.replace(second, cause="test")

    def test_a_version_is_never_used_twice(self, store: AllocationStore) -> None:
        """Else whoever saw the first allocation could delete the one that took its place."""
        first = store.create(allocation("10.0.0.1"), cause="test")
        store.delete(first, cause="test")
        second = store.create(allocation("10.0.0.1", PodOwner("ns", "p", "u")), cause="test")
        with pytest.raises(Conflict):
            store.delete(first, cause="test")
        assert store.get("", second.address) == second

    def test_what_belongs_together_is_found_together(self, store: AllocationStore) -> None:
        four = store.create(allocation("10.0.0.2"), cause="test")
        six = store.create(allocation("fd00::2"), cause="test")
        other_network = store.create(allocation("10.0.0.3", network="other"), cause="test")
        other_replica = store.create(allocation("10.0.0.1", Replica(WEB, 1), phase=Phase.RETAINED), cause="test")
        stranger = store.create(allocation("10.0.0.9", PodOwner("ns", "web-0", "u")), cause="test")
        assert store.of_slot(four.slot) == (four, six)
        assert store.of_owner(Replica(WEB, 0)) == (four, other_network, six)
        assert store.of_workload(WEB) == (other_replica, four, other_network, six)
        assert store.of_holder("c1", "net1") == (four, other_network, stranger, six)
        assert store.of_holder("c1", "net2") == ()
        assert store.of_slot(Slot(Replica(WEB, 2), "net", "net1")) == ()

    def test_a_holder_that_let_go_is_not_found(self, store: AllocationStore) -> None:
        bound = store.create(allocation("10.0.0.1"), cause="test")
        kept = store.replace(msgspec.structs.replace(bound, phase=Phase.RETAINED, holder=None), cause="test")
        assert store.of_holder("c1", "net1") == ()
        again = store.replace(msgspec.structs.replace(kept, phase=Phase.BOUND, holder=holder("c2")), cause="test")
        assert store.of_holder("c2", "net1") == (again,)

    def test_the_lowest_free_addresses_ascend_and_skip_what_is_excluded(self, store: AllocationStore) -> None:
        for text in ("10.0.0.1", "10.0.0.2", "10.0.0.5"):
            store.create(allocation(text), cause="test")
        pool = span("10.0.0.1", "10.0.0.10")
        excluded = [span("10.0.0.9", "10.0.0.200"), span("10.0.0.3", "10.0.0.3"), span("fd00::", "fd00::ff")]
        found = store.lowest_free("", pool, excluded, count=9)
        assert [str(a) for a in found] == ["10.0.0.4", "10.0.0.6", "10.0.0.7", "10.0.0.8"]
        assert store.lowest_free("", pool, excluded, count=2) == found[:2]
        assert store.lowest_free("", pool, excluded) == found[:1]
        assert store.lowest_free("other", pool, [], count=1) == (address("10.0.0.1"),)

    def test_a_search_may_begin_anywhere_in_the_span(self, store: AllocationStore) -> None:
        for text in ("10.0.0.1", "10.0.0.6"):
            store.create(allocation(text), cause="test")
        pool, excluded = span("10.0.0.1", "10.0.0.8"), [span("10.0.0.3", "10.0.0.3")]
        found = store.lowest_free("", pool, excluded, count=9, near=address("10.0.0.5"))
        assert [str(a) for a in found] == ["10.0.0.5", "10.0.0.7", "10.0.0.8", "10.0.0.2", "10.0.0.4"]
        assert store.lowest_free("", pool, excluded, count=2, near=address("10.0.0.5")) == found[:2]
        assert store.lowest_free("", pool, excluded, near=address("10.0.0.9")) == (address("10.0.0.2"),)
        assert store.lowest_free("", pool, excluded, near=address("fd00::1")) == (address("10.0.0.2"),)

    def test_no_address_is_free_in_a_full_or_wholly_excluded_span(self, store: AllocationStore) -> None:
        store.create(allocation("10.0.0.1"), cause="test")
        assert store.lowest_free("", span("10.0.0.1", "10.0.0.1"), []) == ()
        assert store.lowest_free("", span("10.0.0.2", "10.0.0.3"), [span("10.0.0.0", "10.0.0.255")]) == ()

    @pytest.mark.parametrize(("first", "last"), [("0.0.0.0", "255.255.255.255"), ("::", "ffff:" * 7 + "ffff")])
    def test_the_ends_of_a_family_are_addresses_too(self, store: AllocationStore, first: str, last: str) -> None:
        whole = span(first, last)
        top = store.create(allocation(last), cause="test")
        store.create(allocation(first), cause="test")
        assert store.lowest_free("", whole, [], count=1) == (whole.first + 1,)
        assert store.lowest_free("", Span(whole.last - 1, whole.last), [], count=5) == (whole.last - 1,)
        store.delete(top, cause="test")
        assert store.lowest_free("", Span(whole.last, whole.last), []) == (whole.last,)

    def test_a_freed_address_is_free_at_once_wherever_it_lay(self, store: AllocationStore) -> None:
        """In the middle, at the end, at the start and alone in a run of taken addresses."""
        pool = span("10.0.0.1", "10.0.0.9")
        taken = [store.create(allocation(f"10.0.0.{n}"), cause="test") for n in (3, 1, 2, 5, 4)]
        by_number = {int(str(a.address).rpartition(".")[2]): a for a in taken}
        for number in (3, 5, 1, 2, 4):
            store.delete(by_number.pop(number), cause="test")
            expected = [n for n in range(1, 10) if n not in by_number]
            found = [int(str(a).rpartition(".")[2]) for a in store.lowest_free("", pool, [], count=9)]
            assert found == expected

    def test_every_change_is_in_the_ledger_once_with_before_and_after(self, store: AllocationStore) -> None:
        first = store.create(allocation("10.0.0.1"), cause="allocated")
        second = store.replace(msgspec.structs.replace(first, phase=Phase.RETAINED, holder=None), cause="DEL")
        store.delete(second, cause="scaled")
        entries = tuple(store.ledger(address=first.address))
        assert [(e.cause, e.before, e.after) for e in entries] == [
            ("allocated", None, first),
            ("DEL", first, second),
            ("scaled", second, None),
        ]
        assert [e.at for e in entries] == [NOW + timedelta(seconds=n) for n in (1, 2, 3)]

    def test_the_ledger_answers_for_an_address_and_a_time(self, store: AllocationStore) -> None:
        for text in ("10.0.0.1", "10.0.0.2", "fd00::1"):
            store.create(allocation(text), cause=text)
        at = NOW + timedelta(seconds=2)
        assert [e.cause for e in store.ledger()] == ["10.0.0.1", "10.0.0.2", "fd00::1"]
        assert [e.cause for e in store.ledger(since=at)] == ["10.0.0.2", "fd00::1"]
        assert [e.cause for e in store.ledger(until=at)] == ["10.0.0.1", "10.0.0.2"]
        assert [e.cause for e in store.ledger(address=address("10.0.0.2"), since=at, until=at)] == ["10.0.0.2"]
        assert tuple(store.ledger(address=address("10.0.0.3"))) == ()

    def test_a_refused_change_leaves_no_trace(self, store: AllocationStore) -> None:
        first = store.create(allocation("10.0.0.1"), cause="allocated")
        before = tuple(store.all()), tuple(store.ledger()), store.lowest_free("", span("10.0.0.1", "10.0.0.9"), [])
        with pytest.raises(AlreadyExists):
            store.create(allocation("10.0.0.1"), cause="refused")
        with pytest.raises(Conflict):
            store.replace(msgspec.structs.replace(first, version=first.version + 99), cause="refused")
        assert before == (
            tuple(store.all()),
            tuple(store.ledger()),
            store.lowest_free("", span("10.0.0.1", "10.0.0.9"), []),
        )

    def test_of_many_threads_that_claim_one_address_one_has_it(self, store: AllocationStore) -> None:
        outcomes: list[str] = []
        gate = threading.Barrier(8)

        def race(number: int) -> Callable[[], None]:
            def run() -> None:
                gate.wait()
                try:
                    store.create(allocation("10.0.0.1", PodOwner("ns", f"p{number}", "u")), cause="race")
                except AlreadyExists:
                    outcomes.append("told")
                else:
                    outcomes.append("won")

            return run

        threads = [threading.Thread(target=race(n)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == ["told"] * 7 + ["won"]
        assert len(tuple(store.all())) == 1
