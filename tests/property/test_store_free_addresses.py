"""SQLite's runs of taken addresses against a plain set."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import IPv4Address
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from homeport.ipam.allocations import Allocation, Phase
from homeport.ipam.identities import ContainerOwner, Slot
from homeport.ipam.ranges import Span
from homeport.stores.sqlite import SqliteStore

BASE = int(IPv4Address("10.0.0.0"))
numbers = st.integers(0, 15)
spans = st.tuples(numbers, numbers).map(lambda p: Span(IPv4Address(BASE + min(p)), IPv4Address(BASE + max(p))))


class FreeAddresses(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = TemporaryDirectory()
        self.store = SqliteStore(Path(self.directory.name) / "allocations.db")
        self.taken: dict[int, Allocation] = {}

    def teardown(self) -> None:
        self.store.close()
        self.directory.cleanup()

    @rule(number=numbers)
    def toggle(self, number: int) -> None:
        if number in self.taken:
            self.store.delete(self.taken.pop(number), cause="test")
            return
        wanted = Allocation(
            scope="",
            address=IPv4Address(BASE + number),
            slot=Slot(ContainerOwner("c"), "net", "net1"),
            phase=Phase.RETAINED,
            since=datetime(2026, 1, 1, tzinfo=UTC),
        )
        self.taken[number] = self.store.create(wanted, cause="test")

    @rule(span=spans, excluding=st.lists(spans, max_size=3), count=st.integers(1, 17))
    def ask(self, span: Span, excluding: list[Span], count: int) -> None:
        free = [
            address
            for address in (IPv4Address(BASE + n) for n in range(16) if n not in self.taken)
            if address in span and not any(address in e for e in excluding)
        ]
        assert list(self.store.lowest_free("", span, excluding, count=count)) == free[:count]

    @invariant()
    def runs_are_as_long_as_can_be(self) -> None:
        with self.store._connection("read") as db:
            rows = db.execute("SELECT first, last FROM runs ORDER BY first").fetchall()
        runs = [(int.from_bytes(first) - BASE, int.from_bytes(last) - BASE) for first, last in rows]
        assert sorted(n for first, last in runs for n in range(first, last + 1)) == sorted(self.taken)
        assert all(a[1] + 1 < b[0] for a, b in pairwise(runs))


TestFreeAddresses = FreeAddresses.TestCase
TestFreeAddresses.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
