"""A migration that is broken off at any request, or raced, and goes on or back: on an API server in memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from ipaddress import ip_address
from typing import Any

import msgspec
import pytest
from tests.stand_ins import START
from tests.stand_ins_objects import Call, MemoryObjects, MemoryServer
from tests.stand_ins_whereabouts import WhereaboutsNode

from homeport.cli import migrate_undoing
from homeport.ipam.allocations import Allocation, Phase
from homeport.ipam.identities import PodOwner, Slot, Workload
from homeport.ipam.objects import OwnerReference, Pod, WorkloadState
from homeport.ipam.pools import parse_pool
from homeport.ipam.whereabouts import decode_pool, decode_reservation
from homeport.migration import applying, planning
from homeport.migration.applying import Done
from homeport.migration.facts import Extent, Facts, Network, Plan
from homeport.migration.marking import LABEL, MarkingObjects, Note, note_of
from homeport.model.errors import DecodeFailure, IOFailure, TryAgainLater
from homeport.model.names import PodRef
from homeport.ports import ApiObject
from homeport.stores.coexisting import CoexistingStore
from homeport.stores.keeping_coexistence import CoexistenceKeeper
from homeport.stores.kubernetes.resources import IPALLOCATIONS, IPSLOTS
from homeport.stores.kubernetes.store import KubernetesStore
from homeport.stores.whereabouts import POOLS, RESERVATIONS, WhereaboutsRecords

WEB = Workload("shop", "StatefulSet", "web")
NAMES = ("web-0", "web-1", "other")


class Killed(BaseException):
    """The command was killed."""


class Cluster:
    """Two replicas and another pod, all of them with addresses of Whereabouts."""

    def __init__(self) -> None:
        self.server = MemoryServer()
        self.objects = MemoryObjects(self.server)
        self.store = KubernetesStore(self.objects)
        node = WhereaboutsNode(self.objects, "10.0.0.0/24")
        self.addresses = {name: str(node.add(f"c-{name}", f"shop/{name}")[0]) for name in NAMES}
        self.node = node

    def client(self, on_call: Callable[[int, Call], None] = lambda _n, _call: None) -> MemoryObjects:
        """Another client, whose requests are counted from 1."""
        objects = MemoryObjects(self.server)
        objects.on_call = lambda call: on_call(len(objects.calls), call)
        return objects

    def facts(self) -> Facts:
        pools = [decode_pool(o.name, o.version, o.body) for o in self.objects.list(POOLS)]
        reservations = [decode_reservation(o.name, o.version, o.body) for o in self.objects.list(RESERVATIONS)]
        pods = [self._pod(name) for name in NAMES]
        return Facts(
            pools=tuple(pools),
            reservations={r.name: r for r in reservations},
            networks=(Network("shop/blue", parse_pool({"range": "10.0.0.0/24"}, network="blue")),),
            pods={pod.ref: pod for pod in pods},
            workloads={WEB: WorkloadState(workload=WEB, uid="w", replicas=2)},
            present=tuple(self.store.all()),
            now=START,
        )

    def _pod(self, name: str) -> Pod:
        owner = OwnerReference(api_version="apps/v1", kind="StatefulSet", name="web", uid="w")
        status = [{"name": "shop/blue", "interface": "net1", "ips": [self.addresses[name]]}]
        return Pod(
            ref=PodRef("shop", name),
            uid=f"uid-{name}",
            node="n1",
            phase="Running",
            owner=owner if name.startswith("web-") else None,
            annotations={"k8s.v1.cni.cncf.io/network-status": json.dumps(status)},
        )

    def plan(self) -> Plan:
        plan = planning.plan(self.facts(), Extent())
        assert not plan.skipped, plan.skipped
        return plan

    def apply(self, objects: MemoryObjects, *, coexist: bool = False) -> list[Done]:
        marking = MarkingObjects(objects)
        coexisting = CoexistingStore(KubernetesStore(objects), objects)

        def protect(allocation: Allocation) -> str:
            coexisting.protect(allocation)
            return ""

        return list(
            applying.apply(
                self.plan(),
                KubernetesStore(marking),
                noting=marking.noting,
                protect=protect if coexist else None,
            )
        )

    def roll_back(self, objects: MemoryObjects) -> list[Done]:
        give_back = partial(migrate_undoing.give_back, WhereaboutsRecords(objects, "kube-system"))
        store = KubernetesStore(objects)
        done = list(applying.roll_back(migrate_undoing.made(objects), store, give_back=give_back))
        migrate_undoing.remove_records(objects, store)
        return done

    def ours(self) -> dict[str, str]:
        return {str(a.slot.owner).partition("/")[2]: str(a.address) for a in self.store.all()}

    def theirs(self) -> Any:
        listed = [o for resource in (POOLS, RESERVATIONS) for o in self.objects.list(resource)]
        return {o.name: msgspec.json.decode(o.body)["spec"] for o in listed}


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.mark.parametrize("coexist", [False, True])
def test_an_apply_that_is_broken_off_at_any_request_goes_on(coexist: bool) -> None:
    whole = Cluster()
    client = whole.client()
    whole.apply(client, coexist=coexist)
    for broken in range(1, len(client.calls) + 1):
        cluster = Cluster()

        def die(number: int, call: Call, broken: int = broken) -> None:
            if number >= broken:
                raise Killed

        with pytest.raises(Killed):
            cluster.apply(cluster.client(die), coexist=coexist)
        before = cluster.ours()
        assert before.items() <= whole.ours().items()
        done = cluster.apply(cluster.client(), coexist=coexist)
        assert not any(d.failed for d in done), done
        assert cluster.ours() == whole.ours() == cluster.addresses
        assert all(o.name and note_of(o) is not None for o in cluster.objects.list(IPALLOCATIONS))
        if coexist:
            assert all(e["podref"] == "" for e in cluster.theirs()["10.0.0.0-24"]["allocations"].values())


@pytest.mark.parametrize("coexist", [False, True])
def test_a_rollback_that_is_broken_off_at_any_request_goes_on(coexist: bool) -> None:
    whole = Cluster()
    before = whole.theirs()
    whole.apply(whole.client(), coexist=coexist)
    client = whole.client()
    whole.roll_back(client)
    assert whole.theirs() == before
    for broken in range(1, len(client.calls) + 1):
        cluster = Cluster()
        cluster.apply(cluster.client(), coexist=coexist)

        def die(number: int, call: Call, broken: int = broken) -> None:
            if number >= broken:
                raise Killed

        with pytest.raises(Killed):
            cluster.roll_back(cluster.client(die))
        cluster.roll_back(cluster.client())
        assert cluster.ours() == {}
        assert cluster.theirs() == before
        assert cluster.objects.list(IPSLOTS) == []


def test_a_keeper_at_work_does_not_make_a_rollback_lose_an_entry() -> None:
    whole = Cluster()
    before = whole.theirs()
    whole.apply(whole.client(), coexist=True)
    client = whole.client()
    whole.roll_back(client)
    for moment in range(1, len(client.calls) + 1):
        cluster = Cluster()
        cluster.apply(cluster.client(), coexist=True)
        keeper = CoexistenceKeeper(CoexistingStore(cluster.store, cluster.objects))

        def keep(number: int, call: Call, moment: int = moment, keeper: CoexistenceKeeper = keeper) -> None:
            if number == moment:
                keeper.keep()

        assert not any(d.failed for d in cluster.roll_back(cluster.client(keep)))
        assert cluster.theirs() == before


def test_an_api_server_that_is_away_ends_an_apply(cluster: Cluster) -> None:
    client = cluster.client()
    client.fail("create", "before", resource=IPALLOCATIONS)
    with pytest.raises(TryAgainLater):
        cluster.apply(client)


def test_one_address_that_is_refused_does_not_keep_the_others(cluster: Cluster) -> None:
    client = cluster.client()

    def refuse(call: Call) -> None:
        if call.verb == "create" and call.name == cluster.addresses["other"]:
            raise IOFailure("no")

    client.on_call = refuse
    done = cluster.apply(client)
    assert [d.failed for d in done] == [False, False, True]
    assert applying.counted(done) == {"imported": 2, "failed": 1}


def test_an_address_that_was_given_away_since_the_plan_is_told(cluster: Cluster) -> None:
    slot = Slot(PodOwner("shop", "stranger", "u"), "blue", "net1")
    plan = cluster.plan()
    address = ip_address(cluster.addresses["other"])
    taken = Allocation(scope="", address=address, slot=slot, phase=Phase.RESERVED, since=START)
    cluster.store.create(taken, cause="test")
    marking = MarkingObjects(cluster.client())
    done = list(applying.apply(plan, KubernetesStore(marking), noting=marking.noting))
    assert [d.outcome for d in done if d.failed] == ["taken meanwhile: Reserved for shop/stranger blue/net1"]
    assert all(d.failed is False for d in cluster.roll_back(cluster.client()))
    assert cluster.ours() == {"stranger": cluster.addresses["other"]}, "made by somebody else"


def test_what_was_used_since_stays(cluster: Cluster) -> None:
    cluster.apply(cluster.client())
    (web,) = (a for a in cluster.store.all() if str(a.slot.owner) == "shop/web-0")
    assert web.holder is not None
    again = msgspec.structs.replace(web.holder, container_id="new")
    cluster.store.replace(msgspec.structs.replace(web, holder=again), cause="moved")
    done = cluster.roll_back(cluster.client())
    assert [d.failed for d in done] == [True, False, False]
    assert cluster.ours() == {"web-0": cluster.addresses["web-0"]}
    assert [o.name.partition("-")[0] for o in cluster.objects.list(IPSLOTS)] == ["web"]


def test_a_note_that_was_edited_by_hand_stops_a_rollback(cluster: Cluster) -> None:
    cluster.apply(cluster.client())
    name = cluster.addresses["other"]
    cluster.objects.patch(IPALLOCATIONS, name, {"metadata": {"annotations": {"homeport.dev/migration": "{"}}})
    with pytest.raises(DecodeFailure, match=r"homeport\.dev/migration"):
        cluster.roll_back(cluster.client())
    assert len(cluster.ours()) == 3


def test_an_allocation_with_the_label_alone_is_nobody_s(cluster: Cluster) -> None:
    cluster.apply(cluster.client())
    name = cluster.addresses["other"]
    cluster.objects.patch(IPALLOCATIONS, name, {"metadata": {"annotations": {"homeport.dev/migration": None}}})
    cluster.roll_back(cluster.client())
    assert cluster.ours() == {"other": name}


def test_the_mark_of_a_migration() -> None:
    body = b'{"metadata": {"labels": {"%s": "whereabouts"}}}' % LABEL.encode()
    stored = ApiObject(name="x", uid="u", version="1", body=body)
    assert note_of(stored) is None
    with pytest.raises(DecodeFailure):
        note_of(msgspec.structs.replace(stored, body=b"[]"))
    assert Note.__struct_config__.frozen
