"""Allocations as objects: whatever they are they come back, and whatever comes in is a value or a `DecodeFailure`."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.stand_ins_objects import MemoryObjects

from homeport.ipam.allocations import Allocation, Phase, Retention
from homeport.ipam.identities import ContainerOwner, Holder, Owner, PodOwner, Replica, Slot, Workload
from homeport.model.addresses import MacAddress
from homeport.model.errors import DecodeFailure
from homeport.ports import ApiObject
from homeport.stores.kubernetes import names
from homeport.stores.kubernetes.hints import decode_range
from homeport.stores.kubernetes.ledger import decode_chunk, decode_entries
from homeport.stores.kubernetes.resources import IPALLOCATIONS
from homeport.stores.kubernetes.slots import SlotRecord, decode_slot, slot_body
from homeport.stores.kubernetes.wire import create_body, decode, decode_record, patch_body

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
MACS = st.none() | st.from_regex(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", fullmatch=True).map(MacAddress)
INSTANTS = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
OWNERS: st.SearchStrategy[Owner] = st.one_of(
    st.builds(Replica, st.builds(Workload, TEXT, TEXT, TEXT), st.integers(0, 2**31)),
    st.builds(PodOwner, TEXT, TEXT, TEXT),
    st.builds(ContainerOwner, TEXT),
)
HOLDERS = st.builds(
    Holder,
    container_id=TEXT,
    ifname=TEXT,
    netns_path=st.just("") | TEXT,
    node=st.just("") | TEXT,
    pod_uid=st.just("") | TEXT,
    mac=MACS,
)
RETENTIONS = st.builds(
    Retention,
    when_scaled=st.sampled_from(["Retain", "Release"]),
    when_deleted=st.sampled_from(["Retain", "Release"]),
    retain_for=st.none() | st.timedeltas(timedelta(0), timedelta(days=3650)),
    adopt=st.sampled_from(["SameName", "Never"]),
)


@st.composite
def allocations(draw: st.DrawFn) -> Allocation:
    """All at one place, so that any may follow any other."""
    phase = draw(st.sampled_from(Phase))
    return Allocation(
        scope="Ünïcode'\";",
        address=ip_address("fd00::1"),
        slot=Slot(draw(OWNERS), draw(TEXT), draw(TEXT)),
        phase=phase,
        holder=draw(HOLDERS) if phase is Phase.BOUND else None,
        mac=draw(MACS),
        since=draw(INSTANTS),
        retention=draw(RETENTIONS),
        workload_uid=draw(st.just("") | TEXT),
    )


def at(allocation: Allocation, stored: ApiObject) -> Allocation:
    return msgspec.structs.replace(allocation, version=int(stored.version))


@given(allocations(), st.lists(allocations(), max_size=3))
def test_any_allocation_follows_any_other_without_a_trace_of_it(first: Allocation, others: list[Allocation]) -> None:
    objects = MemoryObjects()
    stored = objects.create(IPALLOCATIONS, create_body(first, cause="one", changed=NOW, write="w0"))
    assert decode(stored) == at(first, stored)
    for number, other in enumerate(others):
        patch = patch_body(other, cause=f"{number}", changed=NOW, write=f"w{number}")
        stored = objects.patch(IPALLOCATIONS, stored.name, patch, version=stored.version)
        record = decode_record(stored)
        assert record.allocation == at(other, stored)
        assert (record.cause, record.changed, record.write) == (f"{number}", NOW, f"w{number}")
        labels = msgspec.json.decode(stored.body)["metadata"]["labels"]
        expected = names.allocation_labels(other)
        assert {name: labels.get(name) for name in expected} == expected
        assert set(labels) <= {*expected, names.NODE}
        assert labels.keys().isdisjoint(name for name, value in expected.items() if value is None)


@given(
    st.builds(Slot, st.builds(Replica, st.builds(Workload, TEXT, TEXT, TEXT), st.integers(0, 9)), TEXT, TEXT),
    st.lists(st.tuples(st.just("") | TEXT, st.ip_addresses()), max_size=4),
)
def test_a_record_of_a_slot_comes_back(slot: Slot, places: list[Any]) -> None:
    record = SlotRecord(slot=slot, places=tuple(places), writes=3, version="9")
    body = slot_body(record)
    stored = ApiObject(name=body["metadata"]["name"], uid="u", version="9", body=json.dumps(body).encode())
    assert decode_slot(stored) == record


DECODERS: list[Callable[[ApiObject], object]] = [decode, decode_slot, decode_range, decode_chunk, decode_entries]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
GOOD = create_body(
    Allocation(
        scope="",
        address=ip_address("10.0.0.1"),
        slot=Slot(Replica(Workload("n", "StatefulSet", "w"), 0), "lan", "net1"),
        phase=Phase.BOUND,
        holder=Holder(container_id="c", ifname="net1", netns_path="/x", node="n", mac=MacAddress("02:00:00:00:00:01")),
        mac=MacAddress("02:00:00:00:00:01"),
        since=NOW,
        retention=Retention(retain_for=timedelta(hours=1)),
    ),
    cause="c",
    changed=NOW,
    write="w",
)
GOOD["metadata"]["resourceVersion"] = "5"


def paths(value: Any, to: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(value, dict):
        return [to]
    return [to, *(path for key, inner in value.items() for path in paths(inner, (*to, key)))]


@pytest.mark.parametrize("decoder", DECODERS, ids=lambda d: d.__name__)
@given(raw=st.binary(max_size=40) | JSON.map(lambda v: json.dumps(v).encode()), name=st.text(max_size=10))
def test_anything_at_all_is_a_failure_that_names_the_object(
    decoder: Callable[[ApiObject], object], raw: bytes, name: str
) -> None:
    with pytest.raises(DecodeFailure) as failed:
        decoder(ApiObject(name=name, uid="u", version="5", body=raw))
    assert f" {name}: " in str(failed.value)


@given(st.sampled_from(paths(GOOD)), JSON | st.sampled_from([1e300, -1e300, "9" * 400, "0000-01-01T00:00:00Z", -1]))
def test_an_object_with_anything_in_one_place(path: tuple[str, ...], value: Any) -> None:
    body = json.loads(json.dumps(GOOD))
    inner: Any = {"": body}
    steps = ("", *path)
    for step in steps[:-1]:
        inner = inner[step]
    inner[steps[-1]] = value
    stored = ApiObject(name="10.0.0.1", uid="u", version="5", body=json.dumps(inner[""] if not path else body).encode())
    found = outcome(stored)
    if isinstance(found, DecodeFailure):
        assert "ipallocations 10.0.0.1: " in str(found)
    else:
        assert (found.scope, found.address) == ("", ip_address("10.0.0.1"))
        assert (found.holder is None) == (found.phase is not Phase.BOUND)


def outcome(stored: ApiObject) -> Allocation | DecodeFailure:
    try:
        return decode(stored)
    except DecodeFailure as failure:
        return failure
