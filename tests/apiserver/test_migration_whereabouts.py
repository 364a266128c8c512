"""Moving from Whereabouts on a real API server: both kinds of nodes race for one range, and a cluster changes over."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import msgspec
import pytest
from testcluster.api import MERGE, Api
from testcluster.control_plane import ADMIN, ControlPlane
from tests.stand_ins_whereabouts import StorageEngineError, WhereaboutsNode, reconcile
from typer.testing import CliRunner

from homeport.cli.main import app
from homeport.host.files import LocalFiles
from homeport.ipam.allocations import Allocation, Phase, released
from homeport.ipam.identities import Holder, PodOwner, Slot
from homeport.ipam.ranges import Span
from homeport.kube import configs
from homeport.kube.objects import KubernetesObjects
from homeport.model.addresses import IPAddress
from homeport.ports import AlreadyExists
from homeport.stores.coexisting import CoexistingStore
from homeport.stores.keeping_coexistence import CoexistenceKeeper
from homeport.stores.kubernetes.resources import IPALLOCATIONS, IPSLOTS
from homeport.stores.kubernetes.store import KubernetesStore
from homeport.stores.whereabouts import POOLS, RESERVATIONS

pytestmark = pytest.mark.root
CRDS = Path(__file__).parent.parent / "fixtures" / "whereabouts" / "crds.yaml"
PATIENCE_SECONDS = 60.0

Connect = Callable[[], KubernetesObjects]


@pytest.fixture
def kubeconfig(control_plane: ControlPlane, admin: Api) -> Path:
    """The administrator's, on a cluster that has Whereabouts' resources."""
    for crd in admin.apply_file(CRDS):
        admin.wait_established(crd["metadata"]["name"])
    return control_plane.kubeconfig(ADMIN)


@pytest.fixture
def connect(kubeconfig: Path) -> Iterator[Connect]:
    """A client of its own for each node; afterwards no allocation is left."""
    config = configs.load(str(kubeconfig), {}, LocalFiles())
    assert config is not None
    made: list[KubernetesObjects] = []

    def connect() -> KubernetesObjects:
        made.append(KubernetesObjects.connect(config, deadline_seconds=20.0))  # races are to be lost, not timed out
        return made[-1]

    yield connect
    objects = connect()
    for resource in (IPALLOCATIONS, IPSLOTS):
        for stored in objects.list(resource):
            objects.delete(resource, stored.name)
    for one in made:
        one.close()


# --- races ---


def claim(store: CoexistingStore, scope: str, range_: str, name: str) -> Allocation | None:
    """The lowest free address for a new pod, as the claiming loop has it; None when there is none."""
    network = ip_network(range_)
    holder = Holder(container_id=f"c-{name}", ifname="net1", netns_path="", node="h", pod_uid=name)
    slot = Slot(PodOwner("shop", name, name), "net", "net1")
    refused: set[IPAddress] = set()
    while True:
        spans = [Span(a, a) for a in refused]
        candidates = store.lowest_free(scope, Span(network[1], network[-2]), spans, count=8)
        if not candidates:
            return None
        for address in candidates:
            wanted = Allocation(
                scope=scope,
                address=address,
                slot=slot,
                phase=Phase.BOUND,
                holder=holder,
                since=datetime.now(UTC),
            )
            try:
                return store.create(wanted, cause="test")
            except AlreadyExists:
                refused.add(address)


@pytest.mark.parametrize("overlapping", [True, False], ids=["overlapping-checked", "pool-alone"])
def test_both_kinds_of_nodes_race_for_every_address_of_a_range(
    connect: Connect, namespace: str, overlapping: bool
) -> None:
    """Eight nodes, each with six pods for 30 addresses; a third of the pods leave again at once."""
    range_ = "10.77.0.0/27"
    scope = "race" if overlapping else f"race#{range_}"
    used: list[tuple[IPAddress, str]] = []
    problems: list[BaseException] = []
    start = threading.Barrier(8)

    def theirs(n: int) -> None:
        node = WhereaboutsNode(connect(), range_, namespace=namespace, network_name="race", overlapping=overlapping)
        start.wait(PATIENCE_SECONDS)
        for k in range(6):
            name = f"w{n}-{k}"
            try:
                (address,) = node.add(name, f"shop/{name}")
            except StorageEngineError:
                continue
            if k % 3:
                used.append((address, name))
            else:
                node.delete(name)

    def ours(n: int) -> None:
        objects = connect()
        store = CoexistingStore(KubernetesStore(objects), objects, namespace)
        start.wait(PATIENCE_SECONDS)
        for k in range(6):
            name = f"h{n}-{k}"
            held = claim(store, scope, range_, name)
            if held is None:
                continue
            if k % 3:
                used.append((held.address, name))
            else:
                store.delete(held, cause="DEL")

    def run(act: Callable[[int], None], n: int) -> None:
        try:
            act(n)
        except BaseException as e:  # noqa: BLE001 -- raised again below
            problems.append(e)

    threads = [threading.Thread(target=run, args=(act, n)) for act in (theirs, ours) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert not problems, [(str(p), getattr(p, "details", "")) for p in problems][:3]
    addresses = [address for address, _ in used]
    assert len(set(addresses)) == len(addresses), sorted(used)
    objects = connect()
    (pool,) = objects.list(POOLS, namespace=namespace)
    entries = msgspec.json.decode(pool.body)["spec"]["allocations"]
    assert {int(a) - int(ip_network(range_)[0]) for a in addresses} <= {int(key) for key in entries}
    # What is left can be had, and no more: nothing was lost on the way.
    store = CoexistingStore(KubernetesStore(objects), objects, namespace)
    live = {f"shop/{name}": [str(address)] for address, name in used}
    reconcile(objects, live, namespace=namespace)
    CoexistenceKeeper(store).keep()
    more = 0
    while claim(store, scope, range_, f"more-{more}") is not None:
        more += 1
    assert more + len(used) == 30


# --- changing over ---


class Shop:
    """A cluster on Whereabouts: two replicas, two pods on two nodes, and an entry of a pod that is gone."""

    def __init__(self, admin: Api, objects: KubernetesObjects, namespace: str, kubeconfig: Path) -> None:
        self.objects = objects
        self.namespace = namespace
        self.node = WhereaboutsNode(objects, "10.78.0.0/24", namespace=namespace)
        self._admin = admin
        self._kubeconfig = kubeconfig
        self.addresses: dict[str, str] = {}
        ipam = {"type": "whereabouts", "range": "10.78.0.0/24"}
        config = {"cniVersion": "1.0.0", "name": "blue", "type": "macvlan", "master": "eth1", "ipam": ipam}
        self.create("k8s.cni.cncf.io/v1", "NetworkAttachmentDefinition", "blue", {"config": json.dumps(config)})
        labels = {"app": "web"}
        container = {"name": "main", "image": "none"}
        template = {"metadata": {"labels": labels}, "spec": {"containers": [container], "schedulerName": "nobody"}}
        spec = {"replicas": 2, "serviceName": "web", "podManagementPolicy": "Parallel", "template": template}
        self.create("apps/v1", "StatefulSet", "web", {**spec, "selector": {"matchLabels": labels}})
        for name, on in (("here", "node-a"), ("there", "node-b")):
            self.create("v1", "Pod", name, {"nodeName": on, "containers": [container]})

    def create(self, version: str, kind: str, name: str, spec: Mapping[str, Any]) -> None:
        metadata = {"name": name, "namespace": self.namespace}
        self._admin.apply({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": dict(spec)})

    def attach(self, pod: str, *, alive: bool = True) -> None:
        """As Whereabouts and Multus do."""
        (address,) = self.node.add(f"c-{pod}", f"{self.namespace}/{pod}")
        self.addresses[pod] = str(address)
        if alive:
            status = [{"name": f"{self.namespace}/blue", "interface": "net1", "ips": [str(address)], "dns": {}}]
            told = {"k8s.v1.cni.cncf.io/network-status": json.dumps(status)}
            path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}"
            self._admin.patch(path, {"metadata": {"annotations": told}}, MERGE)

    def run(self, command: str, *options: str) -> tuple[int, str]:
        """(exit code, output)."""
        where = ["--namespace", self.namespace, "--kubeconfig", str(self._kubeconfig)]
        result = CliRunner().invoke(app, ["migrate", "whereabouts", command, *where, *options])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.output

    def theirs(self) -> Any:
        """All of Whereabouts' objects, without versions."""
        return {
            (resource.plural, o.name): msgspec.json.decode(o.body)["spec"]
            for resource in (POOLS, RESERVATIONS)
            for o in self.objects.list(resource, namespace=self.namespace)
        }

    def ours(self) -> dict[str, str]:
        """Owner to address."""
        return {str(a.slot.owner).partition("/")[2]: str(a.address) for a in KubernetesStore(self.objects).all()}


@pytest.fixture
def shop(admin: Api, connect: Connect, namespace: str, kubeconfig: Path, wait_until: Callable[..., None]) -> Shop:
    shop = Shop(admin, connect(), namespace, kubeconfig)
    pods = f"/api/v1/namespaces/{namespace}/pods"
    wait_until(lambda: len(admin.get(pods)["items"]) == 4, deadline=30.0)
    for pod in ("web-1", "here", "web-0", "there"):
        shop.attach(pod)
    shop.attach("gone", alive=False)
    return shop


LIVING = ("web-0", "web-1", "here", "there")


def test_a_cluster_changes_over_without_a_changed_address(shop: Shop) -> None:
    before = shop.theirs()
    code, text = shop.run("plan", "-o", "json")
    assert code == 0
    planned = json.loads(text)
    assert {i["address"] for i in planned["imports"]} == {shop.addresses[p] for p in LIVING}
    assert [s["reason"] for s in planned["skipped"]] == ["no living pod"]
    assert shop.run("apply", "--dry-run")[0] == 0
    assert shop.ours() == {}
    assert shop.run("verify")[0] == 1

    assert shop.run("apply") == (0, "4 imported\n")
    assert shop.ours() == {pod: shop.addresses[pod] for pod in LIVING}
    assert shop.run("verify") == (0, "4 the same\n")
    assert shop.run("apply") == (0, "4 there already\n")
    assert shop.theirs() == before, "without --coexist, Whereabouts' own objects are left as they are"

    assert shop.run("rollback") == (0, "4 removed\n")
    assert shop.ours() == {}
    assert shop.objects.list(IPSLOTS) == []
    assert shop.theirs() == before
    assert shop.run("rollback") == (0, "nothing to do\n")


def test_an_interrupted_migration_goes_on(shop: Shop) -> None:
    store = KubernetesStore(shop.objects)
    shop.run("apply")
    half = [a for a in store.all() if a.slot.workload is None]
    for allocation in half:
        store.delete(allocation, cause="as if it had not been made yet")
    code, text = shop.run("apply")
    assert (code, sorted(text.strip().split(", "))) == (0, ["2 imported", "2 there already"])


def test_node_by_node_beside_whereabouts(shop: Shop, namespace: str) -> None:
    before = shop.theirs()
    assert shop.run("apply", "--coexist", "--node", "node-a") == (0, "3 imported\n")
    assert shop.run("verify", "--coexist", "--node", "node-a") == (0, "3 the same\n")
    assert set(shop.ours()) == {"web-0", "web-1", "here"}
    assert shop.theirs() != before
    # The drained node's own DEL, and the reconciler, leave the replica's address alone; nobody else gets it.
    shop.node.delete("c-web-0")
    reconcile(shop.objects, {}, namespace=namespace)
    (fresh,) = shop.node.add("c-new", "shop/new")
    assert str(fresh) not in {shop.addresses[p] for p in ("web-0", "web-1", "here")}
    store = CoexistingStore(KubernetesStore(shop.objects), shop.objects, namespace)
    assert CoexistenceKeeper(store).keep().contested == ()
    # The replica comes back on a node of ours.
    (web,) = (a for a in store.all() if str(a.address) == shop.addresses["web-0"])
    left = released(web, at=datetime.now(UTC))
    assert left is not None
    returned = store.replace(left, cause="DEL")
    assert returned.phase is Phase.RETAINED
    code, text = shop.run("rollback", "-o", "json")
    outcomes = {o["address"]: (o["failed"], o["outcome"].partition(":")[0]) for o in json.loads(text)}
    assert code == 1, "what Homeport used since is not taken from it"
    assert outcomes == {
        shop.addresses["web-0"]: (True, "kept"),
        shop.addresses["web-1"]: (False, "removed"),
        shop.addresses["here"]: (False, "removed"),
    }


def test_a_rollback_gives_whereabouts_its_entries_back(shop: Shop) -> None:
    before = shop.theirs()
    shop.run("apply", "--coexist", "--node", "node-a", "--node", "node-b")
    assert shop.theirs() != before
    assert shop.run("rollback", "--dry-run") == (0, "4 to be removed\n")
    assert shop.run("rollback") == (0, "4 removed\n")
    assert shop.theirs() == before


def test_with_a_conflict_nothing_is_done(shop: Shop, namespace: str) -> None:
    spec = {"range": "10.79.0.0/24", "allocations": {"9": {"id": "c", "podref": "shop/unknown"}}}
    stranger = {"metadata": {"name": "10.79.0.0-24"}, "spec": spec}
    shop.objects.create(POOLS, stranger, namespace=namespace)
    for options in ((), ("--coexist",)):
        code, text = shop.run("apply", *options)
        assert code == 1
        assert "no NetworkAttachmentDefinition has this range" in text
        assert shop.ours() == {}
    assert shop.run("apply", "--skip-conflicts")[0] == 2, "without Whereabouts nothing would keep the address"
    assert shop.run("apply", "--coexist", "--skip-conflicts") == (0, "2 imported\n")


def test_a_pool_that_cannot_be_read_is_a_conflict(shop: Shop, namespace: str) -> None:
    broken = {"metadata": {"name": f"x-{secrets.token_hex(3)}"}, "spec": {"range": "what", "allocations": {}}}
    shop.objects.create(POOLS, broken, namespace=namespace)
    code, text = shop.run("plan")
    assert code == 1
    assert '"what"' in text


def test_the_first_address_that_was_taken_meanwhile_is_told(shop: Shop) -> None:
    slot = Slot(PodOwner("shop", "stranger", "uid"), "blue", "net1")
    address = ip_address(shop.addresses["here"])
    taken = Allocation(scope="", address=address, slot=slot, phase=Phase.RESERVED, since=datetime.now(UTC))
    KubernetesStore(shop.objects).create(taken, cause="test")
    code, text = shop.run("plan")
    assert code == 1
    assert "shop/stranger" in text
