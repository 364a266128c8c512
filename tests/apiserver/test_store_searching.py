"""Free addresses on a real API server: hints by watch, many nodes for the last address, and what kubectl prints."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network

import msgspec
import pytest
import urllib3
from testcluster.control_plane import ControlPlane, node_user
from tests.contract.test_allocation_store import allocation as plain_allocation

from homeport.host.files import LocalFiles
from homeport.ipam.allocations import Allocation, Phase
from homeport.ipam.identities import Owner, PodOwner, Replica, Workload
from homeport.ipam.ranges import Span
from homeport.kube import configs
from homeport.kube.objects import KubernetesObjects
from homeport.model.addresses import IPAddress, MacAddress
from homeport.ports import AlreadyExists
from homeport.stores.kubernetes.hints import RangeReport, Totals, range_body, range_patch
from homeport.stores.kubernetes.resources import IPALLOCATIONS, IPRANGES
from homeport.stores.kubernetes.runs import Runs
from homeport.stores.kubernetes.store import KubernetesStore

pytestmark = pytest.mark.root
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
POOL = Span(ip_address("10.9.0.0"), ip_address("10.9.0.199"))
WEB = Replica(Workload("shop", "StatefulSet", "web"), 3)
WaitUntil = Callable[..., None]


def connect(plane: ControlPlane, user: str) -> KubernetesObjects:
    config = configs.load(str(plane.kubeconfig(user)), {}, LocalFiles())
    assert config is not None
    return KubernetesObjects.connect(config)


def report(taken: Runs) -> RangeReport:
    return RangeReport(
        scope="",
        first=POOL.first,
        last=POOL.last,
        subnet=ip_network("10.9.0.0/24"),
        networks=("shop/lan",),
        totals=Totals(usable=200, bound=taken.count, free=200 - taken.count),
        taken=taken,
        updated=NOW,
    )


def allocation(address: IPAddress, owner: Owner, phase: Phase = Phase.BOUND) -> Allocation:
    of = plain_allocation(str(address), owner, phase=phase, network="lan")
    return msgspec.structs.replace(of, mac=MacAddress("02:00:00:00:00:01"))


def claim(store: KubernetesStore, owner: Owner) -> Allocation:
    """As claiming does it."""
    while True:
        candidates = store.lowest_free("", POOL, [], count=8)
        assert candidates, "the pool is as large as all claims"
        for address in candidates:
            try:
                return store.create(allocation(address, owner), cause="allocated")
            except AlreadyExists:
                continue


def test_hints_come_by_watch(objects: KubernetesObjects, wait_until: WaitUntil) -> None:
    store = KubernetesStore(objects)
    store.start()
    made = objects.create(IPRANGES, range_body(report(Runs(range(10)))))
    try:
        wait_until(lambda: store.lowest_free("", POOL, []) == (POOL.first + 10,))
        objects.patch(IPRANGES, made.name, range_patch(report(Runs(range(20)))), version=made.version)
        wait_until(lambda: store.lowest_free("", POOL, []) == (POOL.first + 20,))
    finally:
        store.close()


def test_ten_nodes_share_the_last_address_of_a_pool(control_plane: ControlPlane, objects: KubernetesObjects) -> None:
    """200 pods at once, twenty threads, a pool of exactly 200, and no controller that would give hints.

    Each with no more rights than a node has.
    """
    claimed: list[Allocation] = []
    with ExitStack() as stack:
        clients = [stack.enter_context(closing(connect(control_plane, node_user(f"n{n}")))) for n in range(10)]
        stores = [KubernetesStore(client) for client in clients]

        def work(number: int) -> None:
            for n in range(10):
                claimed.append(claim(stores[number % 10], PodOwner("shop", f"p{number}-{n}", "u")))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(int(a.address) - int(POOL.first) for a in claimed) == list(range(200))
    assert {o.name for o in objects.list(IPALLOCATIONS)} == {str(a.address) for a in claimed}
    assert KubernetesStore(objects).lowest_free("", POOL, []) == ()


def test_what_kubectl_prints(objects: KubernetesObjects, control_plane: ControlPlane) -> None:
    store = KubernetesStore(objects)
    bound = store.create(allocation(POOL.first, WEB), cause="allocated")
    store.create(allocation(POOL.first + 1, PodOwner("shop", "job-x", "u"), Phase.RETAINED), cause="odd")
    objects.create(IPRANGES, range_body(report(Runs([0, 1]))))
    assert table(control_plane, "ipallocations", wide=False) == [
        ["Name", "Address", "Phase", "Namespace", "Pod", "Interface", "Network", "Node"],
        ["10.9.0.0", "10.9.0.0", "Bound", "shop", "web-3", "net1", "lan", "n1"],
        ["10.9.0.1", "10.9.0.1", "Retained", "shop", "job-x", "net1", "lan", None],
    ]
    wide = table(control_plane, "ipallocations", wide=True)
    assert [row[-3:] for row in wide] == [
        ["Scope", "MAC", "Cause"],
        [None, "02:00:00:00:00:01", "allocated"],
        [None, "02:00:00:00:00:01", "odd"],
    ]
    assert table(control_plane, "ipranges", wide=False) == [
        ["Name", "First", "Last", "Scope", "Usable", "Bound", "Retained", "Reserved", "Quarantined", "Free"],
        ["10.9.0.0.10.9.0.199", "10.9.0.0", "10.9.0.199", None, 200, 2, 0, 0, 0, 198],
    ]
    assert [row[1:] for row in table(control_plane, "ipslots", wide=False)] == [
        ["Namespace", "Pod", "Interface", "Network", "Addresses"],
        ["shop", "web-3", "net1", "lan", str(bound.address)],
    ]


def table(plane: ControlPlane, plural: str, *, wide: bool) -> list[list[object]]:
    """Titles and cells, without ages, as the API server gives them to kubectl."""
    access = plane.access()
    headers = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io", "Authorization": f"Bearer {access.token}"}
    with urllib3.PoolManager(ca_certs=str(access.ca)) as http:
        answer = http.request("GET", f"{access.server}/apis/homeport.dev/v1alpha1/{plural}", headers=headers)
    told = answer.json()
    columns = [
        n for n, c in enumerate(told["columnDefinitions"]) if c["name"] != "Age" and (c["priority"] == 0 or wide)
    ]
    titles = [told["columnDefinitions"][n]["name"] for n in columns]
    return [titles, *([row["cells"][n] for n in columns] for row in told["rows"])]
