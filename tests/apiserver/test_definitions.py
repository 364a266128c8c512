"""What the API server itself refuses in our objects, and what the store says of those edited by hand (R12)."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from testcluster.api import Api, ApiError
from tests.contract.test_allocation_store import allocation as plain_allocation

from homeport.ipam.allocations import Allocation, Phase
from homeport.ipam.identities import ContainerOwner, Owner, PodOwner, Replica, Workload
from homeport.ipam.ranges import Span
from homeport.kube.objects import KubernetesObjects
from homeport.model.errors import DecodeFailure, IOFailure
from homeport.ports import LedgerEntry
from homeport.stores.kubernetes.hints import RangeReport, Totals, decode_range, range_body, range_patch
from homeport.stores.kubernetes.ledger import chunk_body, decode_chunk, decode_entries
from homeport.stores.kubernetes.resources import IPALLOCATIONS, IPLEDGERS, IPRANGES, IPSLOTS
from homeport.stores.kubernetes.runs import Runs
from homeport.stores.kubernetes.slots import SlotRecord, slot_body
from homeport.stores.kubernetes.store import KubernetesStore
from homeport.stores.kubernetes.wire import create_body

pytestmark = pytest.mark.root
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
WEB = Replica(Workload("shop", "StatefulSet", "web"), 3)
OWNERS: list[Owner] = [WEB, PodOwner("shop", "p", "u"), ContainerOwner("c9")]
ROOT = "/apis/homeport.dev/v1alpha1"
KINDS = {"apiVersion": "homeport.dev/v1alpha1", "kind": "IPAllocation"}


def allocation(text: str = "10.9.0.3", owner: Owner = WEB, phase: Phase = Phase.BOUND) -> Allocation:
    return plain_allocation(text, owner, phase=phase)


def manifest(of: Allocation | None = None) -> dict[str, Any]:
    return {**KINDS, **create_body(of or allocation(), cause="allocated", changed=NOW, write="w1")}


def edited(path: str, value: Any) -> dict[str, Any]:
    """A good manifest with one key set to something else, or with None removed."""
    body: dict[str, Any] = copy.deepcopy(manifest())
    *steps, last = path.split(".")
    inner = body
    for step in steps:
        inner = inner[step]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return body


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.address", "10.9.0.300"),
        ("spec.address", "10.9.0.3/24"),
        ("spec.address", "fd00::1%eth0"),
        ("spec.address", "nowhere"),
        ("spec.address", None),
        ("spec.network", "x" * 254),
        ("spec.scope", "x" * 254),
        ("spec.interface", "sixteen-letters-"),
        ("spec.owner", None),
        ("spec.owner.kind", "Somebody"),
        ("spec.owner.kind", "Pod"),
        ("spec.owner.kind", "Container"),
        ("spec.owner.workload", None),
        ("spec.owner.ordinal", -1),
        ("spec.owner.ordinal", "3"),
        ("spec.retention.whenScaled", "Perhaps"),
        ("spec.retention.retainFor", -1),
        ("status", None),
        ("status.phase", "Lost"),
        ("status.phase", None),
        ("status.phase", "Retained"),
        ("status.holder", None),
        ("status.holder.containerID", None),
        ("status.holder.mac", "02:00"),
        ("status.mac", "02-00-00-00-00-01"),
        ("status.since", "yesterday"),
        ("status.since", None),
        ("status.cause", "x" * 1025),
        ("status.cause", "x" * 900_000),
    ],
    ids=lambda v: str(v)[:24],
)
def test_the_api_server_refuses_what_cannot_be(admin: Api, objects: KubernetesObjects, path: str, value: Any) -> None:
    body = edited(path, value)
    with pytest.raises(ApiError) as refused:
        admin.create(f"{ROOT}/ipallocations", body)
    assert refused.value.status == 422
    assert objects.get(IPALLOCATIONS, "10.9.0.3") is None
    admin.create(f"{ROOT}/ipallocations", manifest())
    key, _, inner = path.partition(".")
    with pytest.raises(ApiError) as refused:
        admin.patch(f"{ROOT}/ipallocations/10.9.0.3", {key: _nested(inner, value)})
    assert refused.value.status == 422


def _nested(path: str, value: Any) -> Any:
    for step in reversed(path.split(".") if path else []):
        value = {step: value}
    return value


@pytest.mark.parametrize(
    "owner", [WEB, PodOwner("shop", "p", "u"), ContainerOwner("c9")], ids=lambda o: type(o).__name__
)
@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("text", ["10.9.0.3", "fd00::3", "::", "::ffff:10.9.0.3"])
def test_the_api_server_takes_what_the_store_writes(
    objects: KubernetesObjects, owner: Owner, phase: Phase, text: str
) -> None:
    store = KubernetesStore(objects)
    made = store.create(allocation(text, owner, phase), cause="x" * 3000)
    assert store.get("", made.address) == made


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"spec": {"address": "10.9.0.4"}}, "10.9.0.4"),
        ({"spec": {"scope": "blue"}}, "blue"),
        ({"spec": {"owner": {"name": "db-0"}}}, "db-0"),
        ({"spec": {"owner": {"ordinal": 4}}}, "web-3"),
        ({"status": {"since": "0000-01-01T00:00:00Z"}}, "since"),
    ],
)
def test_an_object_edited_by_hand_is_named_and_never_passed_over(
    admin: Api, objects: KubernetesObjects, changes: dict[str, Any], found: str
) -> None:
    store = KubernetesStore(objects)
    made = store.create(allocation(), cause="allocated")
    store.create(allocation("10.9.0.5", PodOwner("shop", "p", "u")), cause="allocated")
    admin.patch(f"{ROOT}/ipallocations/10.9.0.3", changes)
    before = objects.get(IPALLOCATIONS, "10.9.0.3")
    for question in (
        lambda: store.get("", made.address),
        lambda: tuple(store.all()),
        lambda: store.of_slot(made.slot),
        lambda: store.of_holder("c1", "net1"),
        lambda: store.create(allocation("10.9.0.3", PodOwner("shop", "q", "u")), cause="allocated"),
    ):
        with pytest.raises(DecodeFailure, match=r"ipallocations 10\.9\.0\.3") as failed:
            question()
        assert found in str(failed.value)
    assert objects.get(IPALLOCATIONS, "10.9.0.3") == before
    assert store.lowest_free("", Span(ip_address("10.9.0.1"), ip_address("10.9.0.6")), [], count=9) == tuple(
        ip_address(f"10.9.0.{n}") for n in (1, 2, 4, 6)
    ), "its name holds the address, whatever it says"


def test_a_slot_that_names_rubbish_is_refused_or_named(admin: Api, objects: KubernetesObjects) -> None:
    slot = allocation().slot
    body = slot_body(SlotRecord(slot=slot, places=(("", ip_address("10.9.0.3")),)))
    name = body["metadata"]["name"]
    for wrong in (
        {"addresses": [{"address": "nowhere"}]},
        {"addresses": [{"scope": "x"}]},
        {"owner": {"kind": "Pod", "namespace": "shop", "name": "p", "uid": "u"}},
        {"addresses": [{"address": "10.9.0.3"}] * 1001},
    ):
        with pytest.raises(IOFailure):
            objects.create(IPSLOTS, {**body, "spec": {**body["spec"], **wrong}})
    objects.create(IPSLOTS, body)
    admin.patch(f"{ROOT}/ipslots/{name}", {"spec": {"interface": "net2"}})
    with pytest.raises(DecodeFailure, match=f"ipslots {name}"):
        KubernetesStore(objects).of_slot(slot)


def report(taken: Runs) -> RangeReport:
    return RangeReport(
        scope="",
        first=ip_address("fd00::1"),
        last=ip_address("fd00::ffff:ffff:ffff:fffe"),
        subnet=ip_network("fd00::/64"),
        networks=("shop/lan",),
        totals=Totals(usable=2**64 - 2, bound=taken.count, free=2**64),
        taken=taken,
        updated=NOW,
    )


def test_a_range_of_more_addresses_than_anybody_can_count(objects: KubernetesObjects) -> None:
    empty = objects.create(IPRANGES, range_body(report(Runs())))
    assert decode_range(empty).taken.count == 0
    scattered = Runs(range(2**63, 2**63 + 20_000, 2))
    changed = objects.patch(IPRANGES, empty.name, range_patch(report(scattered)), version=empty.version)
    read = decode_range(changed)
    assert (len(read.taken), read.up_to) == (4000, 2**63 + 2 * 4000 - 1)
    assert read.totals.usable == 2**63 - 1
    back = objects.patch(IPRANGES, empty.name, range_patch(report(Runs([5]))), version=changed.version)
    assert (str(decode_range(back).taken), decode_range(back).up_to) == ("5", None)


@pytest.mark.parametrize("taken", ["1-", "a", "1,,2", "-3"])
def test_a_range_with_rubbish_for_runs_is_refused(admin: Api, objects: KubernetesObjects, taken: str) -> None:
    body = range_body(report(Runs([1])))
    body["status"]["taken"] = taken
    with pytest.raises(IOFailure):
        objects.create(IPRANGES, body)


def test_a_full_chunk_of_the_ledger_fits(objects: KubernetesObjects) -> None:
    long = allocation("fd00::1", PodOwner("n" * 63, "p" * 253, "u" * 36))
    entries = [LedgerEntry(at=NOW, cause=f"{n}" * 200, before=long, after=long) for n in range(200)]
    stored = objects.create(IPLEDGERS, chunk_body(7, entries, through="123"))
    assert (decode_chunk(stored).number, decode_chunk(stored).count) == (7, 200)
    assert decode_entries(stored) == tuple(entries)
