"""The whereabouts plugin's addresses: R1-R7 and the rows of the matrix that need no kernel (docs/identity.md).

The lab proves the same rows with real interfaces; here every replica is a call.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

import pytest
from tests.stand_ins import attachment_of
from tests.stand_ins_addresses import DUAL, POOL, Cluster, add_and_fail

from homeport.ipam.objects import NodeState
from homeport.model.addresses import MacAddress
from homeport.model.errors import AddressTaken, InvalidNetConf, PoolExhausted, TryAgainLater
from homeport.model.names import PodRef
from homeport.plugins import whereabouts


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
@pytest.mark.parametrize("ipam", [POOL, DUAL], ids=["ipv4", "dual"])
def test_e1_replicas_start_in_any_order(ipam: Mapping[str, Any], order: tuple[int, ...]) -> None:
    cluster = Cluster(ipam)
    web = cluster.world.scale("web", 3)
    found = {n: cluster.replica(web, n) for n in order}
    expected = {n: [f"10.93.97.{12 + n}", f"fd00:93::{1 + n}"][: 1 + (ipam is DUAL)] for n in range(3)}
    assert found == expected


@pytest.mark.parametrize("ipam", [POOL, DUAL], ids=["ipv4", "dual"])
def test_e2_e4_all_are_deleted_and_come_back_elsewhere(ipam: Mapping[str, Any]) -> None:
    cluster = Cluster(ipam)
    web = cluster.world.scale("web", 3)
    before = [cluster.replica(web, n) for n in range(3)]
    for n in range(3):
        cluster.stop(web, n)
    assert set(cluster.phases().values()) == {"Retained"}
    assert cluster.stranger("in-between") not in before
    assert [cluster.replica(web, n, node="n2") for n in (2, 1, 0)] == before[::-1]


def test_e3_a_forced_deletion_waits_for_the_old_container_and_its_late_del_is_harmless() -> None:
    """On the same node the old namespace is still there until the DEL; on another, the probe tells."""
    cluster = Cluster()
    web = cluster.world.scale("web", 1)
    first = cluster.replica(web, 0)
    old = cluster.running.pop(PodRef("ns", "web-0"))[0]
    cluster.probe.answering[ip_address(first[0])] = MacAddress("0a:58:0a:00:00:01")
    with pytest.raises(TryAgainLater, match="0a:58:0a:00:00:01 still answers"):
        cluster.replica(web, 0, node="n2")
    cluster.probe.answering.clear()
    assert cluster.replica(web, 0, node="n2") == first
    held = tuple(cluster.store.all())
    whereabouts.delete(cluster.conf, old, cluster.shells("n1"))  # R7
    assert tuple(cluster.store.all()) == held


def test_e5_a_dead_node_gives_its_replica_up_once_nobody_answers() -> None:
    cluster = Cluster()
    web = cluster.world.scale("web", 1)
    first = cluster.replica(web, 0)
    assert cluster.replica(web, 0, node="n2") == first
    assert cluster.probe.asked == [(ip_address(first[0]), "eth1")]
    moved = [e.cause for e in cluster.store.ledger()][-1]
    assert moved == "moved: nobody answers for 10.93.97.12 since container c1 on node n1 lost its pod"


def test_e6_a_partitioned_node_keeps_its_replica_until_it_is_declared_out_of_service() -> None:
    cluster = Cluster()
    web = cluster.world.scale("web", 1)
    first = cluster.replica(web, 0)
    cluster.probe.answering[ip_address(first[0])] = MacAddress("0a:58:0a:00:00:01")
    with pytest.raises(TryAgainLater):
        cluster.replica(web, 0, node="n2")
    assert [a.holder.node for a in cluster.store.all() if a.holder] == ["n1"]
    cluster.world.nodes["n1"] = NodeState(name="n1", ready=False, out_of_service=True)
    assert cluster.replica(web, 0, node="n2") == first


def test_r12_a_stale_watch_does_not_prove_the_successor_gone() -> None:
    """A node that has not heard of it starts a sandbox of the old pod, while the new one starts elsewhere, unheard."""
    cluster = Cluster()
    web = cluster.world.scale("web", 1)
    old = cluster.world.start(web, 0)
    first = cluster.replica(web, 0, node="n2")
    cluster.world.seen[old.ref] = old
    held = tuple(cluster.store.all())
    with pytest.raises(TryAgainLater, match="not proven gone"):
        cluster.add(old)
    assert tuple(cluster.store.all()) == held
    assert [str(a.address) for a in held] == first


def test_e8_the_addresses_outlive_a_scale_to_zero_while_others_take_some() -> None:
    cluster = Cluster()
    web = cluster.world.scale("web", 3)
    before = [cluster.replica(web, n) for n in range(3)]
    for n in range(3):
        cluster.stop(web, n)
    cluster.world.scale("web", 0)
    other = cluster.world.scale("other", 2)
    assert [cluster.replica(other, n) for n in range(2)] == [["10.93.97.15"], ["10.93.97.16"]]
    cluster.world.scale("web", 3)
    assert [cluster.replica(web, n) for n in range(3)] == before


def test_e14_numbers_and_maps_count_from_the_first_ordinal() -> None:
    cluster = Cluster()
    web = cluster.world.scale("web", 2, start=5)
    assert [cluster.replica(web, n) for n in (5, 6)] == [["10.93.97.12"], ["10.93.97.13"]]


def test_e14_a_moved_start_hands_the_map_on_to_the_new_ordinals() -> None:
    cluster = Cluster({**POOL, "sticky": {"replicas": {"ns/web": ["10.93.97.20", "10.93.97.21"]}}})
    web = cluster.world.scale("web", 2)
    before = [cluster.replica(web, n) for n in range(2)]
    for n in range(2):
        cluster.stop(web, n)
    cluster.world.scale("web", 2, start=5)
    assert [cluster.replica(web, n) for n in (5, 6)] == before == [["10.93.97.20"], ["10.93.97.21"]]


def test_e15_a_stranger_never_gets_a_mapped_address() -> None:
    cluster = Cluster({**POOL, "sticky": {"replicas": {"ns/web": ["10.93.97.12", "10.93.97.13"]}}})
    cluster.world.scale("web", 0)
    assert [cluster.stranger(f"s{n}") for n in range(8)] == [[f"10.93.97.{n}"] for n in range(14, 22)]
    with pytest.raises(PoolExhausted):
        cluster.stranger("one-more")
    web = cluster.world.scale("web", 2)
    assert [cluster.replica(web, n) for n in range(2)] == [["10.93.97.12"], ["10.93.97.13"]]


def test_r3_a_mapped_address_in_use_is_refused_with_its_holder_named() -> None:
    cluster = Cluster()
    cluster.stranger("s")
    annotation = {"homeport.dev/addresses": '{"multustest": ["10.93.97.12"]}'}
    web = cluster.world.scale("web", 1, annotations=annotation)
    with pytest.raises(AddressTaken) as refused:
        cluster.replica(web, 0)
    assert refused.value.msg == (
        "allocate 10.93.97.12 for ns/web-0 multustest/net1: Bound for ns/s multustest/net1, in container c1 on node n1"
    )


@pytest.mark.parametrize(
    "entries",
    ['["10.93.97.12", "10.93.97.12"]', '["10.93.97.99"]', '["10.93.97.12"]'],
    ids=["twice", "outside", "short"],
)
def test_e16_a_wrong_map_is_refused_at_add_and_leaves_nothing(entries: str) -> None:
    cluster = Cluster()
    web = cluster.world.scale("web", 2, annotations={"homeport.dev/addresses": f'{{"multustest": {entries}}}'})
    with pytest.raises(InvalidNetConf):
        cluster.replica(web, 1)
    assert cluster.phases() == {}


def test_e17_a_changed_map_holds_from_the_next_start_and_then_frees_the_old_address() -> None:
    cluster = Cluster()
    web = cluster.world.scale("web", 1)
    pod = cluster.world.start(web, 0)
    assert cluster.add(pod) == ["10.93.97.12"]
    cluster.world.scale("web", 1, annotations={"homeport.dev/addresses": '{"multustest": ["10.93.97.20"]}'})
    cluster.stop(web, 0)
    assert cluster.replica(web, 0) == ["10.93.97.20"]
    assert cluster.phases() == {"10.93.97.20": "Bound"}


def test_e17_a_map_that_cannot_be_served_leaves_the_old_address() -> None:
    cluster = Cluster()
    web = cluster.world.scale("web", 1)
    cluster.replica(web, 0)
    cluster.stranger("s")
    cluster.stop(web, 0)
    cluster.world.scale("web", 1, annotations={"homeport.dev/addresses": '{"multustest": ["10.93.97.13"]}'})
    with pytest.raises(AddressTaken):
        cluster.replica(web, 0)
    assert cluster.phases() == {"10.93.97.12": "Retained", "10.93.97.13": "Bound"}


def test_e18_strangers_exhaust_the_pool_while_a_replica_restarts() -> None:
    cluster = Cluster()
    web = cluster.world.scale("web", 1)
    first = cluster.replica(web, 0)
    cluster.stop(web, 0)
    for n in range(9):
        cluster.stranger(f"s{n}")
    with pytest.raises(PoolExhausted, match="all 10 addresses are taken"):
        cluster.stranger("one-more")
    assert cluster.replica(web, 0) == first


def test_e19_two_workloads_share_a_pool_for_twenty_rounds() -> None:
    cluster = Cluster()
    workloads = [cluster.world.scale(name, 3) for name in ("a", "b")]
    before = {(w, n): cluster.replica(w, n) for n in range(3) for w in workloads}
    assert len({tuple(found) for found in before.values()}) == 6
    for turn in range(20):
        for w, n in before:
            cluster.stop(w, n)
        turned = sorted(before, key=lambda key: hash((turn, key[0].name, key[1])))
        assert {(w, n): cluster.replica(w, n) for w, n in turned} == before


def test_r2_a_replica_that_started_elsewhere_stays_there_when_its_number_falls_free() -> None:
    cluster = Cluster()
    stranger = cluster.world.start_stranger("s")
    cluster.add(stranger)
    web = cluster.world.scale("web", 1)
    assert cluster.replica(web, 0) == ["10.93.97.13"]
    cluster.delete(stranger)
    cluster.stop(web, 0)
    assert cluster.replica(web, 0) == ["10.93.97.13"]


def test_r4_order_lowest_and_sticky_false() -> None:
    cluster = Cluster({**POOL, "sticky": {"order": "lowest"}})
    web = cluster.world.scale("web", 3)
    assert cluster.replica(web, 2) == ["10.93.97.12"]
    cluster = Cluster({**POOL, "sticky": False})
    web = cluster.world.scale("web", 3)
    assert cluster.replica(web, 2) == ["10.93.97.12"]
    cluster.stop(web, 2)
    assert cluster.phases() == {}


def test_r5_the_gateway_and_what_is_excluded_are_never_handed_out() -> None:
    cluster = Cluster({"range": "10.0.0.0/29", "gateway": "10.0.0.1", "exclude": ["10.0.0.4/31"]})
    assert [cluster.stranger(f"s{n}")[0] for n in range(3)] == ["10.0.0.2", "10.0.0.3", "10.0.0.6"]
    with pytest.raises(PoolExhausted):
        cluster.stranger("one-more")


def test_r6_a_later_range_that_is_full_undoes_the_earlier() -> None:
    cluster = Cluster({**POOL, "ipRanges": [{"range": "fd00::1/128"}]})
    web = cluster.world.scale("web", 2)
    assert cluster.replica(web, 0) == ["10.93.97.12", "fd00::1"]
    with pytest.raises(PoolExhausted):
        cluster.stranger("s")
    with pytest.raises(PoolExhausted):
        cluster.replica(web, 1)
    assert cluster.phases() == {"10.93.97.12": "Bound", "10.93.97.13": "Retained", "fd00::1": "Bound"}


def test_r6_e23_an_interface_plugin_that_fails_undoes_its_addresses_and_a_retry_finds_them() -> None:
    cluster = Cluster(DUAL)
    web = cluster.world.scale("web", 1)
    pod = cluster.world.start(web, 0)
    for owner, left in ((pod, "Retained"), (cluster.world.start_stranger("s"), None)):
        shells = cluster.shells("n1")
        attachment = attachment_of(owner, f"failing-{owner.uid}")
        addresses = add_and_fail(cluster, attachment, shells)
        assert [cluster.phases().get(address) for address in addresses] == [left, left]
    assert cluster.add(pod) == ["10.93.97.12", "fd00:93::1"]


def test_r6_a_repeated_add_that_fails_later_keeps_what_the_first_one_holds() -> None:
    """The interface exists, so macvlan refuses the second ADD: the first one's container still runs."""
    cluster = Cluster()
    pod = cluster.world.start_stranger("s")
    cluster.add(pod)
    held = tuple(cluster.store.all())
    add_and_fail(cluster, cluster.running[pod.ref][0], cluster.shells("n1"))
    assert tuple(cluster.store.all()) == held


def test_r6_r8_a_move_that_fails_halfway_leaves_both_addresses_with_the_old_holder() -> None:
    """Silent on one family, heard on the other: it lives, and its DEL is still to come."""
    cluster = Cluster(DUAL)
    web = cluster.world.scale("web", 1)
    cluster.replica(web, 0)
    old = cluster.running.pop(PodRef("ns", "web-0"))[0]
    cluster.probe.answering[ip_address("fd00:93::1")] = MacAddress("0a:58:0a:00:00:01")
    with pytest.raises(TryAgainLater, match="still answers for fd00:93::1"):
        cluster.replica(web, 0, node="n2")
    assert [a.holder.container_id for a in cluster.store.all() if a.holder] == ["c1", "c1"]
    whereabouts.delete(cluster.conf, old, cluster.shells("n1"))
    assert set(cluster.phases().values()) == {"Retained"}


def test_e17_an_undone_attachment_has_its_old_address_back() -> None:
    cluster = Cluster()
    web = cluster.world.scale("web", 1)
    cluster.replica(web, 0)
    cluster.stop(web, 0)
    cluster.world.scale("web", 1, annotations={"homeport.dev/addresses": '{"multustest": ["10.93.97.20"]}'})
    add_and_fail(cluster, attachment_of(cluster.world.start(web, 0), "c"), cluster.shells("n1"))
    assert cluster.phases() == {"10.93.97.12": "Retained", "10.93.97.20": "Retained"}


def test_r7_add_and_del_may_be_repeated() -> None:
    cluster = Cluster(DUAL)
    pod = cluster.world.start_stranger("s")
    first = cluster.add(pod)
    written = len(tuple(cluster.store.ledger()))
    attachment = cluster.running[pod.ref][0]
    assert cluster.repeat(attachment, pod) == first
    assert len(tuple(cluster.store.ledger())) == written
    for _ in range(2):
        whereabouts.delete(cluster.conf, attachment, cluster.shells("n1"))
    assert cluster.phases() == {}


def test_a_pods_new_sandbox_has_the_old_ones_addresses_without_its_del() -> None:
    """E20, E21: the same pod UID."""
    cluster = Cluster()
    for pod in (cluster.world.start_stranger("s"), cluster.world.start(cluster.world.scale("web", 1), 0)):
        first = cluster.add(pod)
        old = cluster.running[pod.ref].pop()
        assert cluster.add(pod) == first
        whereabouts.delete(cluster.conf, old, cluster.shells("n1"))
        assert cluster.phases()[first[0]] == "Bound"
