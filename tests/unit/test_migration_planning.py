"""What a migration from Whereabouts takes over, and what it refuses to decide."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Any

import msgspec
import pytest
from tests.stand_ins import START

from homeport.ipam.allocations import Allocation, Phase
from homeport.ipam.identities import PodOwner, Replica, Slot, Workload
from homeport.ipam.objects import OwnerReference, Pod, WorkloadState
from homeport.ipam.pools import parse_pool
from homeport.ipam.whereabouts import NodeSlice, Reservation, decode_pool, decode_reservation
from homeport.migration import planning, verifying
from homeport.migration.facts import Extent, Facts, Import, Network, Plan, Reason
from homeport.model.errors import DecodeFailure
from homeport.model.names import PodRef

WEB = Workload("shop", "StatefulSet", "web")
ALL = Extent()
Entry = Mapping[str, str]


def network(name: str = "blue", range_: str = "10.0.0.0/24", **ipam: Any) -> Network:
    """Defined as `shop/NAME`, its CNI network called `NAME`."""
    return Network(f"shop/{name}", parse_pool({"type": "whereabouts", "range": range_, **ipam}, network=name))


def pool(entries: Mapping[str, Any], range_: str = "10.0.0.0/24", name: str = "10.0.0.0-24") -> Any:
    body = json.dumps({"spec": {"range": range_, "allocations": entries}}).encode()
    return decode_pool(name, "7", body)


def entry(pod: str, container: str = "c1", ifname: str = "net1") -> Entry:
    return {"id": container, "podref": pod, **({"ifname": ifname} if ifname else {})}


def pod(
    name: str,
    *uses: tuple[str, str, str],
    node: str = "n1",
    workload: str = "",
    phase: Any = "Running",
    namespace: str = "shop",
) -> Pod:
    """`uses` are (network's definition, interface, address) of its network-status; `workload` its StatefulSet."""
    status = [{"name": "kindnet", "interface": "eth0", "ips": ["10.244.0.9"], "default": True, "dns": {}}]
    status += [{"name": n, "interface": i, "ips": [a], "mac": "0A:58:0a:00:00:01", "dns": {}} for n, i, a in uses]
    owner = OwnerReference(api_version="apps/v1", kind="StatefulSet", name=workload, uid="w") if workload else None
    return Pod(
        ref=PodRef(namespace, name),
        uid=f"uid-{name}",
        node=node,
        phase=phase,
        owner=owner,
        annotations={"k8s.v1.cni.cncf.io/network-status": json.dumps(status)} if uses else {},
    )


def facts(
    pools: Sequence[Any] = (),
    pods: Sequence[Pod] = (),
    networks: Sequence[Network] = (network(),),
    reservations: Sequence[Reservation] = (),
    replicas: int = 3,
    **rest: Any,
) -> Facts:
    return Facts(
        pools=tuple(pools),
        pods={p.ref: p for p in pods},
        networks=tuple(networks),
        reservations={r.name: r for r in reservations},
        workloads={WEB: WorkloadState(workload=WEB, uid="w", replicas=replicas)},
        now=START,
        **rest,
    )


def the_import(plan: Plan) -> Import:
    assert not plan.skipped, plan.skipped
    (only,) = plan.imports
    return only


def the_conflict(plan: Plan) -> str:
    assert not plan.imports
    (only,) = plan.skipped
    assert only.reason is Reason.CONFLICT
    return f"{only.where}: {only.told}"


# --- what is taken over ---


def test_a_replica_keeps_the_address_it_has() -> None:
    web = pod("web-1", ("shop/blue", "net1", "10.0.0.7"), workload="web")
    found = the_import(planning.plan(facts([pool({"7": entry("shop/web-1")})], [web]), ALL))
    allocation = found.allocation
    assert (allocation.scope, str(allocation.address)) == ("", "10.0.0.7")
    assert allocation.slot == Slot(Replica(WEB, 1), "blue", "net1")
    assert allocation.phase is Phase.BOUND
    assert allocation.mac == "0a:58:0a:00:00:01"
    assert allocation.workload_uid == "w"
    assert allocation.holder is not None
    assert (allocation.holder.container_id, allocation.holder.ifname) == ("c1", "net1")
    assert (allocation.holder.pod_uid, allocation.holder.node) == ("uid-web-1", "n1")
    assert (found.origin.pool, found.origin.key, found.origin.entry) == ("10.0.0.0-24", "7", entry("shop/web-1"))


def test_any_other_pod_has_its_address_as_long_as_it_lives() -> None:
    other = pod("other", ("shop/blue", "net1", "10.0.0.8"))
    found = the_import(planning.plan(facts([pool({"8": entry("shop/other")})], [other]), ALL))
    assert found.allocation.slot.owner == PodOwner("shop", "other", "uid-other")
    assert found.allocation.mac is None


def test_a_network_that_is_not_sticky_has_no_replicas() -> None:
    web = pod("web-1", ("shop/blue", "net1", "10.0.0.7"), workload="web")
    plain = network(sticky=False)
    found = the_import(planning.plan(facts([pool({"7": entry("shop/web-1")})], [web], [plain]), ALL))
    assert isinstance(found.allocation.slot.owner, PodOwner)


def test_retention_is_the_network_s() -> None:
    web = pod("web-1", ("shop/blue", "net1", "10.0.0.7"), workload="web")
    keeping = network(sticky={"whenDeleted": "Retain"})
    found = the_import(planning.plan(facts([pool({"7": entry("shop/web-1")})], [web], [keeping]), ALL))
    assert found.allocation.retention.when_deleted == "Retain"


def test_an_entry_of_before_there_were_interface_names() -> None:
    web = pod("web-1", ("shop/blue", "net2", "10.0.0.7"), workload="web")
    found = the_import(planning.plan(facts([pool({"7": entry("shop/web-1", ifname="")})], [web]), ALL))
    assert found.allocation.slot.ifname == "net2"


def test_ipv6_and_a_network_name() -> None:
    net = network(range_="fd00:70::/64", network_name="mynet")
    web = pod("web-1", ("shop/blue", "net1", "fd00:70::7"), workload="web")
    v6 = pool({"7": entry("shop/web-1")}, "fd00:70::/64", "mynet-fd00-70---64")
    reservation = Reservation(name="mynet-fd00-70--7", version="3", podref="shop/web-1", ifname="net1")
    found = the_import(planning.plan(facts([v6], [web], [net], [reservation]), ALL))
    assert (found.allocation.scope, str(found.allocation.address)) == ("mynet", "fd00:70::7")
    assert found.origin.reserved == {"podref": "shop/web-1", "ifname": "net1"}


def test_overlapping_ranges_turned_off_make_the_scope_of_the_subnet() -> None:
    web = pod("web-1", ("shop/blue", "net1", "10.0.0.7"), workload="web")
    net = network(enable_overlapping_ranges=False)
    found = the_import(planning.plan(facts([pool({"7": entry("shop/web-1")})], [web], [net]), ALL))
    assert found.allocation.scope == "#10.0.0.0/24"


def test_the_pool_of_a_node_slice() -> None:
    web = pod("web-1", ("shop/blue", "net1", "10.0.0.7"), workload="web")
    sliced = pool({"7": entry("shop/web-1")}, "10.0.0.0/28", "n1-10.0.0.0-28")
    slices = (NodeSlice("blue", "n1", sliced.subnet),)
    found = the_import(planning.plan(facts([sliced], [web], slices=slices), ALL))
    assert found.allocation.scope == ""
    assert the_conflict(planning.plan(facts([sliced], [web]), ALL)).endswith("the entry is of pod shop/web-1")


def test_of_two_networks_of_one_pool_the_pod_s_own() -> None:
    web = pod("web-1", ("shop/green", "net1", "10.0.0.7"), workload="web")
    nets = (network("blue"), network("green"))
    found = the_import(planning.plan(facts([pool({"7": entry("shop/web-1")})], [web], nets), ALL))
    assert found.allocation.slot.network == "green"


def test_our_own_entries_are_no_one_else_s() -> None:
    ours = pool({"7": {"id": "homeport:0123 shop/web-0 blue/net1", "podref": ""}})
    lone = Reservation(name="10.0.0.9", version="3", podref="homeport", id="homeport:0123")
    assert planning.plan(facts([ours], reservations=[lone]), ALL) == Plan()


# --- no living pod ---


def test_a_replica_that_is_wanted_and_has_no_pod_now_keeps_the_address() -> None:
    found = the_import(planning.plan(facts([pool({"7": entry("shop/web-1")})]), ALL))
    assert found.allocation.slot == Slot(Replica(WEB, 1), "blue", "net1")
    assert found.allocation.phase is Phase.RETAINED
    assert found.allocation.holder is None


@pytest.mark.parametrize("name", ["web-3", "web-01", "web", "gone-0", "web-x"])
def test_nobody_else_s_entry_is_kept(name: str) -> None:
    (skipped,) = planning.plan(facts([pool({"7": entry(f"shop/{name}")})]), ALL).skipped
    assert skipped.reason is Reason.NO_POD
    assert skipped.address == ip_address("10.0.0.7")


def test_a_pod_that_finished_has_no_address() -> None:
    job = pod("job", ("shop/blue", "net1", "10.0.0.7"), phase="Succeeded")
    (skipped,) = planning.plan(facts([pool({"7": entry("shop/job")})], [job]), ALL).skipped
    assert (skipped.reason, skipped.told) == (Reason.NO_POD, "pod shop/job has finished")


def test_a_reservation_alone() -> None:
    dead, alive = (
        Reservation(name="10.0.0.7", version="3", podref="shop/gone"),
        Reservation(name="10.0.0.8", version="3", podref="shop/other"),
    )
    plan = planning.plan(facts(pods=[pod("other", ("shop/blue", "net1", "10.0.0.8"))], reservations=[dead, alive]), ALL)
    assert [(s.where.partition('"')[2][:-1], s.reason) for s in plan.skipped] == [
        ("10.0.0.7", Reason.NO_POD),
        ("10.0.0.8", Reason.CONFLICT),
    ]


# --- what nobody can decide ---

USER = pod("other", ("shop/blue", "net1", "10.0.0.7"))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"podref": "shop/other"}, "container ID"),
        ({"id": "c1"}, "NAMESPACE/NAME"),
        ({"id": "c1", "podref": ""}, "NAMESPACE/NAME"),
        ({"id": "c1", "podref": "other"}, "NAMESPACE/NAME"),
        ({"id": "c1", "podref": "a/b/c"}, "NAMESPACE/NAME"),
        ({"id": 5, "podref": ["x"]}, "NAMESPACE/NAME"),
        ("text", '"text"'),
        (None, "null"),
        (entry("shop/other", ifname="net9"), '"net9"'),
        (entry("shop/pending"), "network-status"),
    ],
)
def test_an_entry_that_does_not_say_whose_it_is(given: Any, told: str) -> None:
    plan = planning.plan(facts([pool({"7": given})], [USER, pod("pending", phase="Pending")]), ALL)
    assert told in the_conflict(plan)


@pytest.mark.parametrize("key", ["x", "-7", "7.0", str(1 << 63), "", "٧"])
def test_a_key_that_is_no_number(key: str) -> None:
    assert "does not read" in the_conflict(planning.plan(facts([pool({key: entry("shop/other")})], [USER]), ALL))


def test_the_upper_half_of_ipv6_is_what_whereabouts_itself_does_not_read() -> None:
    v6 = pool({str((1 << 63) + 7): entry("shop/other")}, "fd00:70::/64", "fd00-70---64")
    told = the_conflict(planning.plan(facts([v6], [USER], [network(range_="fd00:70::/64")]), ALL))
    assert 'key "9223372036854775815"' in told


@pytest.mark.parametrize(
    ("name", "range_"), [("10.0.0.0-24", "10.0.0.0"), ("10.0.0.0-24", "10.0.1.0/24"), ("10.0.0.0-24", "")]
)
def test_a_pool_whose_range_is_broken_cannot_be_read(name: str, range_: str) -> None:
    with pytest.raises(DecodeFailure, match=r"10\.0\.0\.0-24"):
        pool({}, range_, name)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"spec": 5}', b'{"spec": {"podref": []}}'])
def test_a_reservation_that_cannot_be_read(body: bytes) -> None:
    with pytest.raises(DecodeFailure, match="10-0"):
        decode_reservation("10-0", "1", body)


def test_an_object_that_cannot_be_read() -> None:
    assert "IPPool" in the_conflict(planning.plan(facts(unreadable=('decode IPPool "x": broken',)), ALL))


def test_a_pool_of_another_network_name() -> None:
    named = pool({"7": entry("shop/other")}, name="red-10.0.0.0-24")
    assert "no NetworkAttachmentDefinition" in the_conflict(planning.plan(facts([named], [USER]), ALL))


def test_a_pool_of_a_range_that_no_network_has() -> None:
    narrow = pool({"7": entry("shop/other")}, "10.0.0.0/25", "10.0.0.0-25")
    assert "no NetworkAttachmentDefinition" in the_conflict(planning.plan(facts([narrow], [USER]), ALL))


def test_overlapping_pools_that_both_have_the_address() -> None:
    """What Whereabouts gives a pod with two interfaces in overlapping ranges."""
    twice = pod("other", ("shop/blue", "net1", "10.0.0.7"), ("shop/green", "net2", "10.0.0.7"))
    pools = [
        pool({"7": entry("shop/other")}),
        pool({"7": entry("shop/other", ifname="net2")}, "10.0.0.0/25", "10.0.0.0-25"),
    ]
    nets = (network("blue"), network("green", "10.0.0.0/25"))
    plan = planning.plan(facts(pools, [twice], nets), ALL)
    assert not plan.imports
    assert plan.conflicts


def test_networks_that_disagree_on_what_the_address_is_unique_in() -> None:
    nets = (network("blue"), network("green", enable_overlapping_ranges=False))
    plan = planning.plan(facts([pool({"7": entry("shop/other")})], [USER], nets), ALL)
    assert "enable_overlapping_ranges" in the_conflict(plan)


def test_a_reservation_of_another_pod() -> None:
    other = Reservation(name="10.0.0.7", version="3", podref="shop/stranger")
    plan = planning.plan(facts([pool({"7": entry("shop/other")})], [USER], reservations=[other]), ALL)
    assert "shop/stranger" in the_conflict(plan)


def test_an_address_on_a_network_that_is_not_the_pool_s() -> None:
    elsewhere = pod("other", ("shop/red", "net1", "10.0.0.7"))
    plan = planning.plan(facts([pool({"7": entry("shop/other")})], [elsewhere]), ALL)
    assert "shop/red" in the_conflict(plan)


def test_the_gateway_s_address() -> None:
    net = network(gateway="10.0.0.7")
    assert "gateway" in the_conflict(planning.plan(facts([pool({"7": entry("shop/other")})], [USER], [net]), ALL))


@pytest.mark.parametrize("text", ["nonsense", "{}", '[{"ips": "10.0.0.7"}]'])
def test_a_network_status_that_cannot_be_read(text: str) -> None:
    broken = msgspec.structs.replace(USER, annotations={"k8s.v1.cni.cncf.io/network-status": text})
    assert "network-status" in the_conflict(planning.plan(facts([pool({"7": entry("shop/other")})], [broken]), ALL))


# --- what our own store has ---


def test_what_was_imported_is_there_already() -> None:
    first = the_import(planning.plan(facts([pool({"7": entry("shop/other")})], [USER]), ALL))
    present = (msgspec.structs.replace(first.allocation, version=9),)
    again = planning.plan(facts([pool({"7": entry("shop/other")})], [USER], present=present), ALL)
    assert [i.known for i in again.imports] == list(present)
    assert again.to_make == ()


def test_an_address_that_our_own_store_gave_to_somebody_else() -> None:
    slot = Slot(PodOwner("shop", "stranger", "uid"), "blue", "net1")
    taken = Allocation(scope="", address=ip_address("10.0.0.7"), slot=slot, phase=Phase.BOUND, since=START, version=9)
    plan = planning.plan(facts([pool({"7": entry("shop/other")})], [USER], present=(taken,)), ALL)
    assert "shop/stranger" in the_conflict(plan)


# --- while both are there ---


def test_beside_whereabouts_only_replicas_and_the_nodes_named_are_taken_over() -> None:
    web = pod("web-1", ("shop/blue", "net1", "10.0.0.7"), workload="web", node="n1")
    here, there = (
        pod("here", ("shop/blue", "net1", "10.0.0.8"), node="n2"),
        pod("there", ("shop/blue", "net1", "10.0.0.9"), node="n3"),
    )
    entries = {"7": entry("shop/web-1"), "8": entry("shop/here", "c2"), "9": entry("shop/there", "c3")}
    plan = planning.plan(facts([pool(entries)], [web, here, there]), Extent(coexist=True, nodes=frozenset({"n2"})))
    assert [str(i.allocation.address) for i in plan.imports] == ["10.0.0.7", "10.0.0.8"]
    (left,) = plan.skipped
    assert (left.reason, str(left.address)) == (Reason.LEFT, "10.0.0.9")


# --- comparing ---


def outcomes(given: Facts) -> list[tuple[str, bool]]:
    done = list(verifying.verify(planning.plan(given, ALL), given))
    return [(d.outcome.partition(",")[0], d.failed) for d in done]


def test_what_is_compared() -> None:
    entries = [pool({"7": entry("shop/other")})]
    first = the_import(planning.plan(facts(entries, [USER]), ALL))
    assert outcomes(facts(entries, [USER])) == [("not imported", True)]
    here = (msgspec.structs.replace(first.allocation, version=9),)
    assert outcomes(facts(entries, [USER], present=here)) == [("the same", False)]
    assert outcomes(facts(pods=[USER], present=here)) == [("the same", False)], "Whereabouts' entry is ours by now"
    assert outcomes(facts(present=here)) == [("bound to a pod that is gone", False)]
    renewed = msgspec.structs.replace(USER, uid="another")
    assert outcomes(facts(pods=[renewed], present=here)) == [("bound to a pod that is gone", False)]
    elsewhere = msgspec.structs.replace(pod("other", ("shop/blue", "net1", "10.0.0.8")), uid=USER.uid)
    told = 'pod shop/other does not have it on "net1" by its network-status'
    assert outcomes(facts(pods=[elsewhere], present=here)) == [(told, True)]
    kept = (msgspec.structs.replace(here[0], phase=Phase.RETAINED, holder=None),)
    assert outcomes(facts(pods=[USER], present=kept)) == [("retained", False)]
