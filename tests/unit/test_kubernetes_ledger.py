"""What a watch tells becomes a ledger, and chunks of it are read back whole or not at all (R15)."""

from __future__ import annotations

import gzip
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

import msgspec
import pytest
from tests.stand_ins_objects import MemoryObjects

from homeport.ipam.allocations import Allocation, Phase, Retention
from homeport.ipam.identities import ContainerOwner, Holder, PodOwner, Replica, Slot, Workload
from homeport.model.addresses import MacAddress
from homeport.model.errors import DecodeFailure
from homeport.ports import LedgerEntry
from homeport.stores.kubernetes.ledger import Chronicle, chunk_body, decode_chunk, decode_entries
from homeport.stores.kubernetes.resources import IPLEDGERS
from homeport.stores.kubernetes.store import KubernetesStore
from homeport.stores.kubernetes.wire import Record

NOW = datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)
BOUND = Allocation(
    scope="blue",
    address=ip_address("fd00::1"),
    slot=Slot(Replica(Workload("shop", "StatefulSet", "web"), 7), "lan", "net1"),
    phase=Phase.BOUND,
    holder=Holder(
        container_id="c1", ifname="net1", netns_path="", node="n1", pod_uid="u1", mac=MacAddress("02:00:00:00:00:01")
    ),
    mac=MacAddress("02:00:00:00:00:01"),
    since=NOW,
    retention=Retention(when_deleted="Retain", retain_for=timedelta(hours=1.5), adopt="Never"),
    workload_uid="w1",
    version=5,
)
KEPT = msgspec.structs.replace(BOUND, phase=Phase.RETAINED, holder=None, version=6)


def record(allocation: Allocation, cause: str, minute: int) -> Record:
    return Record(allocation=allocation, cause=cause, changed=NOW + timedelta(minutes=minute), write=cause)


def entry(cause: str, minute: int, before: Allocation | None, after: Allocation | None) -> LedgerEntry:
    return LedgerEntry(at=NOW + timedelta(minutes=minute), cause=cause, before=before, after=after)


def test_creations_and_changes_have_the_cause_and_the_time_of_their_writer() -> None:
    chronicle = Chronicle()
    first, second = record(BOUND, "allocated", 1), record(KEPT, "DEL", 2)
    assert chronicle.changed(None, first) == entry("allocated", 1, None, BOUND)
    assert chronicle.changed(first, second) == entry("DEL", 2, BOUND, KEPT)


def test_the_cause_that_was_noted_is_that_of_the_deletion() -> None:
    chronicle = Chronicle()
    noted = record(msgspec.structs.replace(KEPT, version=7), "scaled", 3)
    assert chronicle.changed(record(KEPT, "DEL", 2), noted) is None
    assert chronicle.gone(noted, now=NOW) == entry("scaled", 3, KEPT, None)


def test_a_cause_noted_twice_is_told_once() -> None:
    """The first deletion lost against the second."""
    chronicle = Chronicle()
    one = record(msgspec.structs.replace(KEPT, version=7), "scaled", 3)
    two = record(msgspec.structs.replace(KEPT, version=8), "released by hand", 4)
    assert chronicle.changed(record(KEPT, "DEL", 2), one) is None
    assert chronicle.changed(one, two) is None
    assert chronicle.gone(two, now=NOW) == entry("released by hand", 4, KEPT, None)


def test_a_deletion_that_was_announced_and_did_not_happen_leaves_no_trace() -> None:
    chronicle = Chronicle()
    noted = record(msgspec.structs.replace(KEPT, version=7), "scaled", 3)
    back = msgspec.structs.replace(BOUND, version=8)
    chronicle.changed(record(KEPT, "DEL", 2), noted)
    assert chronicle.changed(noted, record(back, "returned", 4)) == entry("returned", 4, KEPT, back)
    assert chronicle.gone(record(back, "returned", 4), now=NOW) == entry("DEL", 0, back, None)


def test_a_deletion_that_nobody_explained() -> None:
    assert Chronicle().gone(record(BOUND, "allocated", 1), now=NOW).cause == "DEL"
    assert Chronicle().gone(record(KEPT, "DEL", 1), now=NOW).cause == "deleted"


ENTRIES = (
    entry("allocated", 1, None, BOUND),
    entry("DEL", 2, BOUND, KEPT),
    entry("scaled", 3, KEPT, None),
    entry("", 0, None, msgspec.structs.replace(BOUND, slot=Slot(PodOwner("a", "b", "c"), "n", "i"), version=9)),
    entry("x", 4, None, msgspec.structs.replace(KEPT, slot=Slot(ContainerOwner("c"), "n", "i"), mac=None, version=10)),
)


def test_a_chunk_is_read_back_whole() -> None:
    stored = MemoryObjects().create(IPLEDGERS, chunk_body(3, ENTRIES, through="77"))
    assert decode_entries(stored) == ENTRIES
    chunk = decode_chunk(stored)
    assert (chunk.number, chunk.begin, chunk.end) == (3, NOW, NOW + timedelta(minutes=4))
    assert (chunk.through, chunk.count) == ("77", 5)


def packed(raw: bytes) -> str:
    return b64encode(gzip.compress(raw, mtime=0)).decode()


GOOD = chunk_body(3, ENTRIES, through="77")["spec"]["data"]


@pytest.mark.parametrize(
    "data",
    [
        "====",
        "no base64!",
        b64encode(b"no gzip").decode(),
        GOOD[:-24],
        packed(b"no JSON"),
        packed(b"{}"),
        packed(b"[{}]"),
        packed(b'[{"at":"2026-01-01T00:00:00","cause":"","before":null,"after":null}]'),
        packed(b"[" * 100_000),
        packed(b" " * (64 * 1024 * 1024 + 1)),
    ],
    ids=lambda d: d[:16],
)
def test_a_broken_chunk_is_named_and_never_passed_over(data: str) -> None:
    objects = MemoryObjects()
    objects.create(IPLEDGERS, chunk_body(2, ENTRIES, through="70"))
    body: dict[str, Any] = chunk_body(3, ENTRIES, through="77")
    body["spec"]["data"] = data
    objects.create(IPLEDGERS, body)
    with pytest.raises(DecodeFailure, match="ipledgers ledger-00000000000000000003"):
        KubernetesStore(objects).ledger()


def test_what_is_called_otherwise_is_no_chunk() -> None:
    objects = MemoryObjects()
    body = chunk_body(3, ENTRIES, through="77")
    body["metadata"]["name"] = "ledger-3"
    stored = objects.create(IPLEDGERS, body)
    with pytest.raises(DecodeFailure, match="ipledgers ledger-3"):
        decode_chunk(stored)


def test_chunks_of_another_time_are_not_unpacked() -> None:
    objects = MemoryObjects()
    body: dict[str, Any] = chunk_body(1, ENTRIES, through="70")
    body["spec"]["data"] = "broken"
    objects.create(IPLEDGERS, body)
    later = [msgspec.structs.replace(e, at=e.at + timedelta(days=1)) for e in ENTRIES]
    objects.create(IPLEDGERS, chunk_body(2, later, through="77"))
    store = KubernetesStore(objects)
    assert list(store.ledger(since=NOW + timedelta(hours=1))) == later
    assert list(store.ledger(until=NOW - timedelta(hours=1))) == []
    with pytest.raises(DecodeFailure):
        store.ledger()
