"""The whereabouts plugin where pools are shared, contended for, changed or not known: one call after the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from tests.stand_ins import World, attachment_of, netconf, shells_on
from tests.stand_ins_addresses import DUAL, POOL, Cluster

from homeport.cni.invocations import Attachment
from homeport.ipam.allocations import Allocation, Phase
from homeport.ipam.identities import PodOwner
from homeport.ipam.objects import Pod
from homeport.model.addresses import MacAddress
from homeport.model.errors import InvalidNetConf, PoolExhausted, TryAgainLater
from homeport.model.names import AttachmentKey, PodRef
from homeport.plugins import delegation, whereabouts
from homeport.ports import AlreadyExists
from homeport.stores.memory import MemoryStore


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
