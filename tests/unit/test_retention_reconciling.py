"""A pass of reconciliation: E9-E15, E17, and what it must leave alone (docs/identity.md R11-R14)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Any

import pytest
from tests.stand_ins import StandingClock, World, attachment_of, netconf, shells_on

from homeport.ipam.allocations import Allocation
from homeport.ipam.identities import Holder, Workload
from homeport.ipam.objects import NodeState, Pod
from homeport.ipam.pools import Pool, parse_pool
from homeport.ipam.reservations import Reservation, reservations_of
from homeport.model.errors import CniError, IOFailure
from homeport.model.names import PodRef
from homeport.plugins import whereabouts
from homeport.ports import AllocationStore
from homeport.runtime.mapping import Reservations
from homeport.runtime.reconciling import Report, reconcile
from homeport.stores.memory import MemoryStore

POOL = {"range": "10.0.0.0/24", "range_start": "10.0.0.12", "range_end": "10.0.0.21"}


class Cluster:
    """One network, its pods' containers, and passes over its store."""

    def __init__(self, **sticky: Any) -> None:
        self.world = World()
        self.clock = StandingClock()
        self.store: AllocationStore = MemoryStore(now=self.clock.now)
        self.use({**POOL, "sticky": sticky})
        self.gone: set[str] = set()  # containers whose namespace is proven gone
        self.blind = False
        self._containers = 0

    def use(self, ipam: Mapping[str, Any]) -> None:
        self.conf = netconf(ipam)
        self.pool = parse_pool(ipam, network="multustest")

    def add(self, pod: Pod) -> str:
        """A new container of the pod; its address."""
        self._containers += 1
        self.last = attachment_of(pod, f"c{self._containers}")
        shells = shells_on(pod.node, self.store, world=self.world, clock=self.clock)
        (ip,) = whereabouts.add(self.conf, self.last, shells).ips
        return str(ip.address.ip)

    def replicas(self, name: str, count: int, *, start: int = 0) -> tuple[Workload, list[str]]:
        workload = self.world.scale(name, count, start=start)
        return workload, [self.add(self.world.start(workload, n)) for n in range(start, start + count)]

    def delete(self, *refs: PodRef, lost: bool = False) -> None:
        """The pods are gone, with their namespaces; the DELs of their containers are lost, or were answered."""
        for ref in refs:
            pod = self.world.pods.pop(ref)
            for allocation in tuple(self.store.all()):
                if allocation.holder is not None and allocation.holder.pod_uid == pod.uid:
                    holder = allocation.holder
                    self.gone.add(holder.container_id)
                    if not lost:
                        attachment = attachment_of(pod, holder.container_id)
                        whereabouts.delete(self.conf, attachment, shells_on(pod.node, self.store, clock=self.clock))

    def netns_exists(self, holder: Holder) -> bool | None:
        return None if self.blind else holder.container_id not in self.gone

    def pool_of(self, allocation: Allocation) -> Pool | None:
        return self.pool if allocation.slot.network == "multustest" else None

    def reservations(self) -> list[Reservation]:
        return [r for state in self.world.workloads.values() for r in reservations_of(self.pool, state, ifname="net1")]

    def reconcile(self, *, reservations: bool = True, store: AllocationStore | None = None) -> Report:
        return reconcile(
            store or self.store,
            self.world,
            pool_of=self.pool_of,
            netns_exists=self.netns_exists,
            reservations=Reservations(wanted=tuple(self.reservations())) if reservations else None,
            clock=self.clock,
        )

    def phases(self) -> dict[str, str]:
        return {str(a.address).removeprefix("10.0.0."): a.phase.value for a in self.store.all()}


def web(*ordinals: int) -> list[PodRef]:
    return [PodRef("ns", f"web-{n}") for n in ordinals]


def causes(report: Report) -> list[str]:
    return [f"{(c.before or c.after).address}: {c.cause}" for c in report.changes]  # type: ignore[union-attr]


def test_where_nothing_is_gone_nothing_happens_however_often() -> None:
    cluster = Cluster()
    cluster.replicas("web", 3)
    cluster.add(cluster.world.start_stranger("s"))
    before = tuple(cluster.store.ledger())
    for _ in range(2):
        assert cluster.reconcile() == Report()
    assert tuple(cluster.store.ledger()) == before


def test_a_lost_del_is_made_up_for() -> None:
    """E21: no leak after one pass."""
    cluster = Cluster()
    cluster.replicas("web", 2)
    cluster.add(cluster.world.start_stranger("s"))
    cluster.delete(*web(0), PodRef("ns", "s"), lost=True)
    assert causes(cluster.reconcile()) == [
        "10.0.0.12: the network namespace of container c1 is gone",
        "10.0.0.14: the network namespace of container c3 is gone",
    ]
    assert cluster.phases() == {"12": "Retained", "13": "Bound"}
    assert cluster.reconcile() == Report()


def test_a_pod_deleted_on_a_node_that_nobody_hears_of_stays_a_doubt() -> None:
    cluster = Cluster()
    cluster.replicas("web", 1)
    cluster.delete(*web(0), lost=True)
    cluster.blind = True
    report = cluster.reconcile()
    assert report.changes == ()
    assert [d.reason for d in report.doubts] == ["its pod is gone, but nobody saw container c1 end"]
    cluster.world.nodes["n1"] = NodeState(name="n1", ready=False, out_of_service=True)
    assert causes(cluster.reconcile()) == ["10.0.0.12: node n1 is out of service"]


def test_a_finished_pod_lets_go_when_its_namespace_is_gone() -> None:
    """R14."""
    cluster = Cluster()
    pod = cluster.world.start_stranger("job")
    cluster.add(pod)
    cluster.world.pods[pod.ref] = Pod(ref=pod.ref, uid=pod.uid, node="n1", phase="Succeeded")
    assert causes(cluster.reconcile()) == []
    cluster.gone.add("c1")
    assert causes(cluster.reconcile()) == ["10.0.0.12: the network namespace of container c1 is gone"]
    assert cluster.phases() == {}


def test_e9_scaled_down_with_release_frees_the_upper_replicas_only() -> None:
    cluster = Cluster(whenScaled="Release")
    workload, before = cluster.replicas("web", 5)
    cluster.world.scale("web", 3)
    cluster.delete(*web(3, 4))
    cluster.reconcile()
    assert cluster.phases() == {"12": "Bound", "13": "Bound", "14": "Bound"}
    busy = [cluster.add(cluster.world.start_stranger(f"s{n}")) for n in range(2)]
    cluster.delete(*web(0, 1, 2))
    cluster.world.scale("web", 5)
    after = [cluster.add(cluster.world.start(workload, n)) for n in range(5)]
    assert after[:3] == before[:3]
    assert set(after[3:]).isdisjoint(busy)
    cluster.reconcile()
    assert len(cluster.phases()) == 7


def test_e10_an_address_is_free_when_its_pod_is_proven_gone_and_not_before() -> None:
    cluster = Cluster()
    workload, _ = cluster.replicas("web", 2)
    del cluster.world.workloads[workload]
    assert cluster.reconcile().changes == ()
    cluster.delete(*web(0))
    cluster.reconcile()
    assert cluster.phases() == {"13": "Bound"}
    cluster.delete(*web(1), lost=True)
    assert causes(cluster.reconcile()) == [
        "10.0.0.13: the network namespace of container c2 is gone",
        "10.0.0.13: ns/StatefulSet/web was deleted",
    ]
    assert cluster.phases() == {}


def test_e11_orphans_keep_their_addresses_and_are_adopted() -> None:
    cluster = Cluster()
    workload, before = cluster.replicas("web", 2)
    del cluster.world.workloads[workload]
    orphan = cluster.world.pods[web(0)[0]]
    whereabouts.delete(
        cluster.conf, attachment_of(orphan, "c1"), shells_on("n1", cluster.store)
    )  # its sandbox restarts
    cluster.reconcile()
    assert cluster.phases() == {"12": "Retained", "13": "Bound"}
    assert cluster.add(orphan) == before[0]
    cluster.world.scale("web", 2)
    cluster.delete(*web(0, 1))
    cluster.reconcile()
    assert [cluster.add(cluster.world.start(workload, n)) for n in range(2)] == before


@pytest.mark.parametrize("where", ["network", "annotation"])
def test_e12_a_deleted_workload_that_retains_has_the_same_addresses_when_it_returns(where: str) -> None:
    """The annotation goes with the workload; what it said is noted with the addresses."""
    cluster = Cluster(**({"whenDeleted": "Retain"} if where == "network" else {}))
    workload, before = cluster.replicas("web", 2)
    if where == "annotation":
        cluster.world.scale("web", 2, annotations={"homeport.dev/retention": '{"whenDeleted": "Retain"}'})
        assert causes(cluster.reconcile()) == ["10.0.0.12: retention changed", "10.0.0.13: retention changed"]
    del cluster.world.workloads[workload]
    cluster.delete(*web(0, 1))
    assert cluster.reconcile() == Report()
    cluster.world.scale("web", 2)
    assert [cluster.add(cluster.world.start(workload, n)) for n in range(2)] == before


def test_e13_retain_for_passes_and_the_ledger_says_why() -> None:
    cluster = Cluster(retainFor="72h")
    cluster.replicas("web", 1)
    cluster.world.scale("web", 0)
    cluster.delete(*web(0))
    cluster.clock.advance(hours=71.9)
    assert cluster.reconcile() == Report()
    cluster.clock.advance(hours=0.2)
    cluster.reconcile()
    assert cluster.phases() == {}
    last = tuple(cluster.store.ledger(address=ip_address("10.0.0.12")))[-1]
    assert last.cause == ("ns/StatefulSet/web was scaled to leave ns/web-0 out, and was retained for 3 days, 0:00:00")


def test_e14_ordinals_below_a_new_start_count_as_scaled_down() -> None:
    cluster = Cluster(whenScaled="Release")
    cluster.replicas("web", 2)
    cluster.world.scale("web", 2, start=1)
    cluster.delete(*web(0))
    cluster.reconcile()
    assert cluster.phases() == {"13": "Bound"}


def annotated(text: str) -> dict[str, str]:
    return {"homeport.dev/addresses": f'{{"multustest": {text}}}'}


def test_e15_an_annotated_map_is_reserved_before_there_are_pods_and_withdrawn_with_it() -> None:
    cluster = Cluster()
    workload = cluster.world.scale("web", 0, annotations=annotated('["10.0.0.12", "10.0.0.13"]'))
    assert causes(cluster.reconcile()) == ["10.0.0.12: reserved by a map", "10.0.0.13: reserved by a map"]
    assert cluster.reconcile() == Report()
    assert cluster.add(cluster.world.start_stranger("s")) == "10.0.0.14"
    cluster.world.scale("web", 1)
    assert cluster.add(cluster.world.start(workload, 0)) == "10.0.0.12"
    cluster.world.scale("web", 1, annotations={})
    assert causes(cluster.reconcile()) == ["10.0.0.13: no map gives it to ns/web-1 any more"]
    assert cluster.phases() == {"12": "Bound", "14": "Bound"}


def test_reservations_that_are_not_known_are_neither_made_nor_withdrawn() -> None:
    """R12."""
    cluster = Cluster()
    cluster.world.scale("web", 0, annotations=annotated('["10.0.0.12"]'))
    cluster.reconcile()
    cluster.world.scale("web", 0, annotations={})
    assert cluster.reconcile(reservations=False) == Report()
    assert cluster.phases() == {"12": "Reserved"}


def test_a_reservation_of_a_network_that_cannot_be_read_stays_while_its_workload_does() -> None:
    """R12: the list of reservations lacks what an unreadable network asks for."""
    cluster = Cluster()
    workload = cluster.world.scale("web", 0, annotations=annotated('["10.0.0.12"]'))
    cluster.reconcile()
    cluster.pool_of = lambda allocation: None  # type: ignore[method-assign]
    cluster.reservations = list  # type: ignore[method-assign]
    report = cluster.reconcile()
    assert (report.changes, len(report.doubts)) == ((), 1)
    assert cluster.phases() == {"12": "Reserved"}
    del cluster.world.workloads[workload]
    assert causes(cluster.reconcile()) == ["10.0.0.12: no map gives it to ns/web-0 any more"]


def test_a_mapped_address_that_somebody_has_is_reported() -> None:
    cluster = Cluster()
    cluster.add(cluster.world.start_stranger("s"))
    cluster.world.scale("web", 0, annotations=annotated('["10.0.0.12"]'))
    (blocked,) = cluster.reconcile().blocked
    assert (str(blocked.reservation.slot.owner), str(blocked.by.slot.owner)) == ("ns/web-0", "ns/s")


def test_e17_a_map_changed_while_running() -> None:
    cluster = Cluster()
    workload, _ = cluster.replicas("web", 1)
    cluster.world.scale("web", 1, annotations=annotated('["10.0.0.20"]'))
    cluster.reconcile()
    assert cluster.phases() == {"12": "Bound", "20": "Reserved"}
    cluster.delete(*web(0))
    cluster.reconcile()
    assert cluster.phases() == {"12": "Retained", "20": "Reserved"}  # kept until the new one is in use
    assert cluster.add(cluster.world.start(workload, 0)) == "10.0.0.20"
    assert cluster.phases() == {"20": "Bound"}


def test_e17_an_old_address_that_was_still_in_use_at_the_start_goes_with_its_late_del() -> None:
    """The replica moved to another node; its old container's DEL came after."""
    cluster = Cluster()
    workload, _ = cluster.replicas("web", 1)
    old, old_pod = cluster.last, cluster.world.pods[web(0)[0]]
    cluster.world.scale("web", 1, annotations=annotated('["10.0.0.20"]'))
    assert cluster.add(cluster.world.start(workload, 0, node="n2")) == "10.0.0.20"
    assert cluster.phases() == {"12": "Bound", "20": "Bound"}
    whereabouts.delete(cluster.conf, old, shells_on(old_pod.node, cluster.store))
    assert causes(cluster.reconcile()) == ["10.0.0.12: the slot has other addresses now"]


@pytest.mark.parametrize(
    "unknown",
    [
        lambda c: setattr(c.world, "unreachable", True),
        lambda c: c.world.scale("web", 0, annotations={"homeport.dev/retention": "{"}),
    ],
    ids=["cluster", "annotation"],
)
def test_what_cannot_be_known_frees_nothing(unknown: Callable[[Cluster], None]) -> None:
    """R12."""
    cluster = Cluster(whenScaled="Release")
    cluster.replicas("web", 1)
    cluster.world.scale("web", 0)
    cluster.delete(*web(0))
    unknown(cluster)
    report = cluster.reconcile(reservations=False)
    assert (report.changes, len(report.doubts)) == ((), 1)
    assert cluster.phases() == {"12": "Retained"}


def test_a_network_nobody_knows_keeps_to_what_was_noted() -> None:
    """Its NAD was deleted first, the workload after it."""
    cluster = Cluster(whenDeleted="Retain")
    workload, _ = cluster.replicas("web", 1)
    cluster.pool = parse_pool({}, network="other")
    del cluster.world.workloads[workload]
    cluster.delete(*web(0))
    assert cluster.reconcile() == Report()
    assert cluster.phases() == {"12": "Retained"}


def test_a_store_that_fails_ends_the_pass() -> None:
    cluster = Cluster()
    cluster.replicas("web", 1)
    cluster.delete(*web(0), lost=True)

    class Failing(MemoryStore):
        def replace(self, allocation: Allocation, *, cause: str) -> Allocation:
            raise IOFailure("write allocation store: disk I/O error")

    failing = Failing()
    for allocation in cluster.store.all():
        failing.create(allocation, cause="copy")
    with pytest.raises(CniError, match="disk I/O error"):
        cluster.reconcile(store=failing)


class Racing(MemoryStore):
    """Before each change of ours, somebody else makes the same one: a second pass, at the same moment."""

    def __init__(self, rival: Callable[[], object]) -> None:
        super().__init__()
        self.rival: Callable[[], object] | None = rival

    def _interrupt(self) -> None:
        rival, self.rival = self.rival, None
        if rival is not None:
            rival()
            self.rival = rival

    def replace(self, allocation: Allocation, *, cause: str) -> Allocation:
        self._interrupt()
        return super().replace(allocation, cause=cause)

    def delete(self, allocation: Allocation, *, cause: str) -> None:
        self._interrupt()
        super().delete(allocation, cause=cause)


def test_two_passes_at_once_do_everything_once() -> None:
    cluster = Cluster(whenScaled="Release")
    reports: list[Report] = []
    racing = Racing(lambda: reports.append(cluster.reconcile()))
    rival, racing.rival = racing.rival, None
    cluster.store = racing
    cluster.replicas("web", 3)
    cluster.world.scale("web", 1)
    cluster.delete(*web(1, 2), lost=True)
    racing.rival = rival
    reports.append(cluster.reconcile())
    assert cluster.phases() == {"12": "Bound"}
    changes = [change for report in reports for change in report.changes]
    assert len(changes) == len({(c.before, c.after) for c in changes}) == 4


def test_a_replica_that_returns_during_a_pass_is_left_alone() -> None:
    cluster = Cluster(whenScaled="Release")
    racing = Racing(lambda: None)
    cluster.store = racing
    workload, before = cluster.replicas("web", 1)
    cluster.world.scale("web", 0)
    cluster.delete(*web(0))

    def come_back() -> None:
        cluster.world.scale("web", 1)
        racing.rival = None
        assert cluster.add(cluster.world.start(workload, 0)) == before[0]

    racing.rival = come_back
    assert cluster.reconcile().changes == ()
    assert cluster.phases() == {"12": "Bound"}
