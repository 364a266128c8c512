"""The whereabouts plugin's addresses: R1-R7 and the rows of the matrix that need no kernel (docs/identity.md).

The lab proves the same rows with real interfaces; here every replica is a call.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

import pytest
from tests.stand_ins import Neighbourhood, StandingClock, World, attachment_of, netconf, shells_on

from homeport.cni.invocations import Attachment
from homeport.cni.netconfs import NetConf
from homeport.ipam.allocations import Allocation, Phase
from homeport.ipam.identities import PodOwner, Workload
from homeport.ipam.objects import NodeState, Pod
from homeport.model.addresses import MacAddress
from homeport.model.errors import AddressTaken, InvalidNetConf, LinkExists, PoolExhausted, TryAgainLater
from homeport.model.names import AttachmentKey, PodRef
from homeport.plugins import delegation, whereabouts
from homeport.ports import AllocationStore, AlreadyExists, Shells
from homeport.stores.memory import MemoryStore

POOL = {"range": "10.93.96.0/20", "range_start": "10.93.97.12", "range_end": "10.93.97.21"}
DUAL = {**POOL, "ipRanges": [{"range": "fd00:93::/64"}]}


class Cluster:
    """Three nodes that share a store, and the containers of their pods."""

    def __init__(self, ipam: Mapping[str, Any] = POOL, *, store: AllocationStore | None = None) -> None:
        self.world = World()
        self.clock = StandingClock()
        self.store = store or MemoryStore(now=self.clock.now)
        self.probe = Neighbourhood()
        self.conf = netconf(ipam)
        self.running: dict[PodRef, list[Attachment]] = {}
        self._containers = 0

    def add(self, pod: Pod, *, conf: NetConf | None = None, ifname: str = "net1", **args: str) -> list[str]:
        """ADD in a new container of the pod; the addresses without prefix."""
        self._containers += 1
        attachment = attachment_of(pod, f"c{self._containers}", ifname=ifname, **args)
        self.running.setdefault(pod.ref, []).append(attachment)
        return self.repeat(attachment, pod, conf=conf)

    def repeat(self, attachment: Attachment, pod: Pod, *, conf: NetConf | None = None) -> list[str]:
        result = whereabouts.add(conf or self.conf, attachment, self.shells(pod.node))
        return [str(ip.address.ip) for ip in result.ips]

    def delete(self, pod: Pod, *, conf: NetConf | None = None) -> None:
        """DEL of every container of the pod's name."""
        for attachment in self.running.pop(pod.ref, []):
            whereabouts.delete(conf or self.conf, attachment, self.shells(pod.node))

    def replica(self, workload: Workload, ordinal: int, *, node: str = "n1", **keys: Any) -> list[str]:
        """The replica's pod, as new, and its addresses."""
        return self.add(self.world.start(workload, ordinal, node=node), **keys)

    def stop(self, workload: Workload, ordinal: int) -> None:
        self.delete(self.world.pods[PodRef(workload.namespace, f"{workload.name}-{ordinal}")])

    def stranger(self, name: str) -> list[str]:
        return self.add(self.world.start_stranger(name))

    def shells(self, node: str) -> Shells:
        return shells_on(node, self.store, world=self.world, clock=self.clock, probe=self.probe)

    def phases(self) -> dict[str, str]:
        return {str(a.address): a.phase.value for a in self.store.all()}


def add_and_fail(cluster: Cluster, attachment: Attachment, shells: Shells) -> list[str]:
    """An interface plugin whose IPAM succeeds and whose own work does not; the addresses it had for a moment."""
    addresses: list[str] = []

    def fail() -> None:
        with shells.host.operation():
            addresses.extend(str(ip.address.ip) for ip in whereabouts.add(cluster.conf, attachment, shells).ips)
            raise LinkExists("create link")

    with pytest.raises(LinkExists):
        fail()
    return addresses


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


@pytest.mark.parametrize("second", [POOL, {"range": "10.93.97.0/24"}], ids=["same", "overlapping"])
def test_two_interfaces_of_a_pod_never_share_an_address(second: Mapping[str, Any]) -> None:
    cluster = Cluster()
    web = cluster.world.scale("web", 2)
    other = netconf(second, name="second")
    found = []
    for n in range(2):
        pod = cluster.world.start(web, n)
        found += [*cluster.add(pod), *cluster.add(pod, conf=other, ifname="net2")]
    assert len(set(found)) == 4


def test_scopes_keep_pools_apart() -> None:
    cluster = Cluster()
    apart = netconf({**POOL, "network_name": "blue"}, name="blue")
    pod = cluster.world.start_stranger("s")
    assert cluster.add(pod) == cluster.add(pod, conf=apart, ifname="net2") == ["10.93.97.12"]


def test_overlap_is_looked_for_unless_turned_off() -> None:
    cluster = Cluster()
    pod = cluster.world.start_stranger("s")
    assert cluster.add(pod) == ["10.93.97.12"]
    free = {**POOL, "enable_overlapping_ranges": False}
    for name, ipam, expected in (
        ("same", {**free}, "10.93.97.12"),
        (
            "wider",
            {"range": "10.93.0.0/16", "range_start": "10.93.97.12", "enable_overlapping_ranges": False},
            "10.93.97.12",
        ),
        ("twin", {**free}, "10.93.97.13"),  # the same range, whatever the network is called
    ):
        assert cluster.add(pod, conf=netconf(ipam, name=name), ifname=name) == [expected]


def test_overlapping_ranges_of_one_interface_give_two_addresses_and_the_same_again() -> None:
    cluster = Cluster({"range": "10.0.0.0/24", "ipRanges": [{"range": "10.0.0.0/25"}]})
    web = cluster.world.scale("web", 1)
    first = cluster.replica(web, 0)
    assert first == ["10.0.0.1", "10.0.0.2"]
    cluster.stop(web, 0)
    assert cluster.replica(web, 0) == first


def test_a_changed_range_gives_a_new_address_and_frees_the_old() -> None:
    cluster = Cluster()
    web = cluster.world.scale("web", 1)
    cluster.replica(web, 0)
    cluster.stop(web, 0)
    cluster.conf = netconf({"range": "10.1.0.0/24"})
    assert cluster.replica(web, 0) == ["10.1.0.1"]
    assert cluster.phases() == {"10.1.0.1": "Bound"}


def test_r11_adopt_never_starts_anew() -> None:
    cluster = Cluster({**POOL, "sticky": {"adopt": "Never", "whenDeleted": "Retain"}})
    cluster.stranger("s")
    web = cluster.world.scale("web", 1)
    assert cluster.replica(web, 0) == ["10.93.97.13"]
    cluster.stop(web, 0)
    assert cluster.replica(web, 0) == ["10.93.97.13"]
    cluster.stop(web, 0)
    cluster.delete(cluster.world.pods[PodRef("ns", "s")])
    del cluster.world.workloads[web]
    cluster.world.scale("web", 1)
    assert cluster.replica(web, 0) == ["10.93.97.12"]


def test_an_unreachable_cluster_is_waited_for_and_a_del_does_without_it() -> None:
    """R10, R12: nothing is guessed."""
    cluster = Cluster()
    web = cluster.world.scale("web", 1)
    cluster.replica(web, 0)
    cluster.world.unreachable = True
    with pytest.raises(TryAgainLater):
        cluster.repeat(attachment_of(cluster.world.pods[PodRef("ns", "web-0")], "c9"), cluster.world.start(web, 0))
    cluster.stop(web, 0)
    assert cluster.phases() == {"10.93.97.12": "Retained"}


def test_a_pod_the_cluster_does_not_know_or_has_replaced_waits() -> None:
    cluster = Cluster()
    gone = cluster.world.start_stranger("s")
    cluster.world.start_stranger("s")
    with pytest.raises(TryAgainLater, match=r"found UID uid-2, expected uid-1: the pod was replaced"):
        cluster.add(gone)
    del cluster.world.pods[gone.ref]
    with pytest.raises(TryAgainLater, match="look up pod ns/s: not found"):
        cluster.add(gone)


def test_gc_lets_go_of_this_nodes_unknown_interfaces_only() -> None:
    cluster = Cluster()
    web = cluster.world.scale("web", 2)
    cluster.replica(web, 0)
    cluster.replica(web, 1, node="n2")
    strangers = [cluster.stranger(name) for name in ("known", "unknown")]
    known = cluster.running[PodRef("ns", "known")][0]
    other = netconf(POOL, name="other")
    cluster.add(cluster.world.start_stranger("elsewhere"), conf=other)
    raw = {"cni.dev/valid-attachments": [{"containerID": known.container_id, "ifname": "net1"}]}
    conf = netconf(POOL, **raw)
    assert conf.valid_attachments == frozenset({AttachmentKey("multustest", known.container_id, "net1")})
    whereabouts.gc(conf, Attachment(container_id="", ifname=""), cluster.shells("n1"))
    assert cluster.phases() == {
        "10.93.97.12": "Retained",
        "10.93.97.13": "Bound",
        strangers[0][0]: "Bound",
        "10.93.97.16": "Bound",
    }
    with pytest.raises(InvalidNetConf, match="valid-attachments"):
        whereabouts.gc(cluster.conf, Attachment(container_id="", ifname=""), cluster.shells("n1"))


def test_r9_the_mac_moves_with_a_replicas_addresses_and_with_no_others() -> None:
    cluster = Cluster(DUAL)
    mac = MacAddress("0a:58:0a:00:00:01")
    web = cluster.world.scale("web", 1)
    for pod, expected in ((cluster.world.start(web, 0), mac), (cluster.world.start_stranger("s"), None)):
        cluster.add(pod)
        attachment = cluster.running[pod.ref][-1]
        shells = cluster.shells("n1")
        assert delegation.moving_mac(cluster.conf, attachment, shells) is None
        delegation.note_mac(cluster.conf, attachment, shells, mac)
        assert delegation.moving_mac(cluster.conf, attachment, shells) == expected
        written = len(tuple(cluster.store.ledger()))
        delegation.note_mac(cluster.conf, attachment, shells, mac)
        assert len(tuple(cluster.store.ledger())) == written
    cluster.stop(web, 0)
    cluster.replica(web, 0, node="n2")
    attachment = cluster.running[PodRef("ns", "web-0")][-1]
    assert delegation.moving_mac(cluster.conf, attachment, cluster.shells("n2")) == mac
    static = netconf({"type": "static"})
    assert delegation.moving_mac(static, attachment, cluster.shells("n2")) is None
    delegation.note_mac(static, attachment, cluster.shells("n2"), mac)


class Contended(MemoryStore):
    """Somebody else takes each candidate just before we do, `times` times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def create(self, allocation: Any, *, cause: str) -> Any:
        if self.times and allocation.slot.owner.name != "thief":
            self.times -= 1
            thief = attachment_of(World().start_stranger("thief"), f"thief-{self.times}", ifname=f"t{self.times}")
            whereabouts.add(netconf(POOL), thief, shells_on("n9", self))
        return super().create(allocation, cause=cause)


def test_a_race_for_every_candidate_is_won_in_the_end_or_the_pool_is_exhausted() -> None:
    cluster = Cluster(store=Contended(9))
    assert cluster.stranger("s") == ["10.93.97.21"]
    cluster = Cluster(store=Contended(10))
    with pytest.raises(PoolExhausted):
        cluster.stranger("s")


class Changing(MemoryStore):
    """Somebody else changes an allocation just before we do, once."""

    changed = False

    def replace(self, allocation: Allocation, *, cause: str) -> Allocation:
        if not self.changed:
            self.changed = True
            present = self.get(allocation.scope, allocation.address)
            assert present is not None
            super().replace(present, cause="rival")
        return super().replace(allocation, cause=cause)


def test_an_allocation_that_changes_between_reading_and_writing_is_read_again() -> None:
    store = Changing()
    cluster = Cluster(store=store)
    web = cluster.world.scale("web", 1)
    first = cluster.replica(web, 0)
    cluster.stop(web, 0)  # a DEL meets it, and then an ADD
    assert cluster.phases() == {"10.93.97.12": "Retained"}
    store.changed = False
    assert cluster.replica(web, 0) == first
    assert [e.cause for e in store.ledger()] == ["allocated", "rival", "DEL", "rival", "returned"]


def test_a_container_outside_kubernetes_owns_its_address_as_long_as_it_lives() -> None:
    store = MemoryStore()
    shells = shells_on("n1", store)
    attachment = attachment_of(None, "c1")
    (ip,) = whereabouts.add(netconf(POOL), attachment, shells).ips
    assert str(ip.address) == "10.93.97.12/20"
    whereabouts.delete(netconf(POOL), attachment, shells)
    assert tuple(store.all()) == ()


def test_a_network_without_replicas_does_without_the_cluster() -> None:
    cluster = Cluster({**POOL, "sticky": False})
    web = cluster.world.scale("web", 1)
    pod = cluster.world.start(web, 0)
    cluster.world.unreachable = True
    assert cluster.add(pod) == ["10.93.97.12"]
    (allocation,) = cluster.store.all()
    assert allocation.slot.owner == PodOwner("ns", "web-0", pod.uid)


def test_a_static_pod_is_known_by_its_own_uid() -> None:
    """The API server has only a mirror of it, with a UID of its own; every other mismatch is a replaced pod."""
    cluster = Cluster()
    pod = cluster.world.start_stranger("static")
    cluster.world.pods[pod.ref] = Pod(ref=pod.ref, uid="mirror", annotations={"kubernetes.io/config.source": "file"})
    assert cluster.add(pod) == ["10.93.97.12"]
    assert [a.slot.owner for a in cluster.store.all()] == [PodOwner("ns", "static", pod.uid)]


def test_a_del_of_one_network_leaves_another_alone() -> None:
    cluster = Cluster()
    pod = cluster.world.start_stranger("s")
    cluster.add(pod)
    cluster.repeat(cluster.running[pod.ref][0], pod, conf=netconf(POOL, name="other"))
    cluster.delete(pod)
    assert cluster.phases() == {"10.93.97.13": "Bound"}


def test_without_a_cluster_a_pod_is_itself_and_not_a_replica() -> None:
    store = MemoryStore()
    world = World()
    pod = world.start(world.scale("web", 1), 0)
    whereabouts.add(netconf(POOL), attachment_of(pod, "c1"), shells_on("n1", store))
    (allocation,) = store.all()
    assert (str(allocation.slot.owner), allocation.phase) == ("ns/web-0", Phase.BOUND)
    with pytest.raises(AlreadyExists):
        store.create(allocation, cause="test")
    whereabouts.delete(netconf(POOL), attachment_of(pod, "c1"), shells_on("n1", store))
    assert tuple(store.all()) == ()
