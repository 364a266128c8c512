"""`homeport.doctor.cluster` on a real API server, by the role homeport-viewer: a healthy cluster, then broken ones.

A cluster of its own, since what is broken belongs to all of it. There is no kubelet: pods and nodes are what their
status says. The clock of the examination is ten minutes ahead, so that nothing there is too young to be judged.
"""

from __future__ import annotations

import json
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from testcluster import binaries
from testcluster.api import Api
from testcluster.control_plane import ADMIN, ControlPlane
from testcluster.installing import DEPLOY, install

from homeport.doctor.cluster import examine
from homeport.doctor.cluster_checks import CHECKS
from homeport.doctor.findings import Report
from homeport.host.files import LocalFiles
from homeport.ipam.allocations import Allocation, Phase
from homeport.ipam.identities import Holder, Replica, Slot, Workload
from homeport.kube import configs
from homeport.kube.objects import KubernetesObjects
from homeport.ports import LedgerEntry
from homeport.stores.kubernetes.ledger import chunk_body
from homeport.stores.kubernetes.resources import IPALLOCATIONS, IPLEDGERS, IPSLOTS
from homeport.stores.kubernetes.store import KubernetesStore

pytestmark = pytest.mark.root

Cluster = tuple[ControlPlane, Api]

AHEAD = timedelta(minutes=10)
NODE, NAMESPACE = "node-d", "doctored"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
ROLES = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
NADS = f"/apis/k8s.cni.cncf.io/v1/namespaces/{NAMESPACE}/network-attachment-definitions"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
WHEREABOUTS = Path(__file__).parent.parent / "fixtures/whereabouts/crds.yaml"
WEB = Workload(NAMESPACE, "StatefulSet", "web")


class Patient:
    """A cluster with two replicas of a StatefulSet on one node and one network, and whoever looks at it."""

    def __init__(self, plane: ControlPlane, admin: Api) -> None:
        self.admin = admin
        self.objects = connect(plane.kubeconfig(ADMIN))
        self.viewer = connect(plane.kubeconfig("a-viewer", ["test:viewers"]))
        self.store = KubernetesStore(self.objects)
        self.now = datetime.now(UTC) + AHEAD

    def examine(self, *, later: timedelta = timedelta()) -> Report:
        if later:
            self.renew(self.now + later)
        return examine(self.viewer, place="the cluster", now=self.now + later)

    def build(self) -> None:
        self.node()
        self.network("lan", range="10.9.0.0/28")
        for ordinal in range(2):
            self.pod(f"web-{ordinal}")
            self.put(ordinal)
        self.renew(self.now)
        self.write_ledger()

    def clear(self) -> None:
        """Everything that `build` and a test have made; definitions and roles are as they were installed."""
        for resource in (IPALLOCATIONS, IPSLOTS, IPLEDGERS):
            for stored in self.objects.list(resource):
                self.objects.delete(resource, stored.name)
        for pod in self.admin.get(PODS)["items"]:
            self.admin.delete(f"{PODS}/{pod['metadata']['name']}", grace_seconds=0)
        for network in self.admin.get(NADS)["items"]:
            self.admin.delete(f"{NADS}/{network['metadata']['name']}")
        self.admin.delete(f"/api/v1/nodes/{NODE}")
        self.admin.delete(f"{LEASES}/homeport-controller")
        self.admin.delete(f"{WEBHOOKS}/homeport")

    # --- parts ---

    def node(self, **spec: Any) -> None:
        self.admin.create("/api/v1/nodes", {"metadata": {"name": NODE}, "spec": spec})
        self.node_status("True")

    def node_status(self, ready: str) -> None:
        condition = {"type": "Ready", "status": ready, "lastHeartbeatTime": wire(datetime.now(UTC))}
        self.admin.patch(f"/api/v1/nodes/{NODE}/status", {"status": {"conditions": [condition]}})

    def network(self, name: str, **ipam: Any) -> None:
        config = {"cniVersion": "1.0.0", "name": name, "type": "macvlan", "master": "eth1"}
        text = json.dumps({**config, "ipam": {"type": "whereabouts", **ipam}})
        self.admin.create(NADS, {**nad(name), "spec": {"config": text}})

    def pod(self, name: str, networks: str = "lan", *, app: str = "web", image: str = "web:1") -> None:
        notes = {"k8s.v1.cni.cncf.io/networks": networks} if networks else {}
        metadata = {"name": name, "annotations": notes, "labels": {"app.kubernetes.io/name": app}}
        tolerations = [{"operator": "Exists"}]
        spec = {"nodeName": NODE, "containers": [{"name": "main", "image": image}], "tolerations": tolerations}
        self.admin.create(PODS, {"metadata": metadata, "spec": spec})
        running = {"name": "main", "ready": True, "image": image, "imageID": "", "restartCount": 0}
        state = {"running": {"startedAt": wire(datetime.now(UTC))}}
        status = {
            "phase": "Running",
            "startTime": wire(datetime.now(UTC)),
            "containerStatuses": [running | {"state": state}],
        }
        self.admin.patch(f"{PODS}/{name}/status", {"status": status})

    def put(self, ordinal: int, phase: Phase = Phase.BOUND, *, node: str = NODE, uid: str = "") -> Allocation:
        found = self.admin.find(f"{PODS}/web-{ordinal}")
        holder = Holder(
            container_id="c0ffee",
            ifname="net1",
            netns_path="/x",
            node=node,
            pod_uid=uid or (found["metadata"]["uid"] if found else "gone"),
        )
        allocation = Allocation(
            scope="",
            address=ip_address("10.9.0.1") + ordinal,
            slot=Slot(Replica(WEB, ordinal), "lan", "net1"),
            phase=phase,
            holder=holder if phase is Phase.BOUND else None,
            since=datetime.now(UTC),
        )
        return self.store.create(allocation, cause="test")

    def renew(self, at: datetime, holder: str = "a-controller") -> None:
        self.admin.delete(f"{LEASES}/homeport-controller")
        spec = {"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": wire(at), "acquireTime": wire(at)}
        self.admin.create(LEASES, {"metadata": {"name": "homeport-controller"}, "spec": spec})

    def write_ledger(self) -> None:
        (first, *_) = self.store.all()
        entry = LedgerEntry(at=datetime.now(UTC), cause="test", before=None, after=first)
        self.objects.create(IPLEDGERS, chunk_body(1, [entry], through=str(first.version)))

    def register(self, bundle: bytes, policy: str = "Ignore") -> None:
        client = {"url": "https://127.0.0.1:1/", "caBundle": b64encode(bundle).decode()}
        webhook = {
            "name": "networks.homeport.dev",
            "clientConfig": client,
            "failurePolicy": policy,
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "rules": [
                {
                    "apiGroups": ["homeport.dev"],
                    "apiVersions": ["v9"],
                    "resources": ["nothing"],
                    "operations": ["CREATE"],
                }
            ],
        }
        self.admin.create(WEBHOOKS, {"metadata": {"name": "homeport"}, "webhooks": [webhook]})


def connect(kubeconfig: Path) -> KubernetesObjects:
    config = configs.load(str(kubeconfig), {}, LocalFiles())
    assert config is not None
    return KubernetesObjects.connect(config)


def wire(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ") if at.microsecond else at.strftime("%Y-%m-%dT%H:%M:%SZ")


def nad(name: str) -> dict[str, Any]:
    return {"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition", "metadata": {"name": name}}


def authority(until: datetime) -> bytes:
    """A certificate that ends then, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    begun = builder.not_valid_before(until - timedelta(days=30)).not_valid_after(until)
    return begun.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.fixture(scope="module")
def cluster(programs: binaries.Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with ControlPlane(tmp_path_factory.mktemp("doctored"), programs=programs) as plane:
        admin = Api(plane.access())
        install(admin)
        rbac = {"apiGroup": "rbac.authorization.k8s.io"}
        binding = {
            "metadata": {"name": "test-viewers"},
            "roleRef": {**rbac, "kind": "ClusterRole", "name": "homeport-viewer"},
            "subjects": [{**rbac, "kind": "Group", "name": "test:viewers"}],
        }
        admin.create("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding)
        admin.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        yield plane, admin
        admin.close()


@pytest.fixture
def patient(cluster: Cluster, wait_until: Callable[..., None]) -> Iterator[Patient]:
    made = Patient(*cluster)
    wait_until(lambda: made.admin.find(f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default"), 20.0)
    wait_until(lambda: not made.examine().unlooked, 20.0)  # the authorizer watches roles
    made.build()
    yield made
    made.clear()
    for connection in (made.objects, made.viewer):
        connection.close()


def ids(report: Report) -> list[str]:
    return [d.id for d in report.diagnoses]


def test_a_healthy_cluster_has_nothing_and_a_viewer_sees_all_of_it(patient: Patient) -> None:
    report = patient.examine()

    assert report.diagnoses == ()
    assert report.unlooked == ()
    assert report.exit_code == 0


def lose_pod(patient: Patient) -> None:
    patient.admin.delete(f"{PODS}/web-1", grace_seconds=0)


def replace_pod(patient: Patient) -> None:
    lose_pod(patient)
    patient.pod("web-1", networks="")


def lose_node(patient: Patient) -> None:
    patient.admin.delete(f"/api/v1/nodes/{NODE}")
    lose_pod(patient)


def run_unserved(patient: Patient) -> None:
    patient.pod("visitor-x")


def run_elsewhere(patient: Patient) -> None:
    for allocation in list(patient.store.all()):
        patient.store.delete(allocation, cause="test")


def quarantine(patient: Patient) -> None:
    patient.put(5, Phase.QUARANTINED)


def fill(patient: Patient, count: int) -> None:
    for ordinal in range(2, count):
        patient.put(ordinal, Phase.RETAINED)


def write_nonsense(patient: Patient) -> None:
    (stored, *_) = patient.objects.list(IPALLOCATIONS)
    patient.objects.patch(IPALLOCATIONS, stored.name, {"spec": {"address": "10.9.0.14"}})


def forget_slot(patient: Patient) -> None:
    (stored, *_) = patient.objects.list(IPSLOTS)
    patient.objects.delete(IPSLOTS, stored.name)


def forget_ledger(patient: Patient) -> None:
    (stored,) = patient.objects.list(IPLEDGERS)
    patient.objects.delete(IPLEDGERS, stored.name)


def break_network(patient: Patient) -> None:
    patient.network("broken", range="10.9.0.300/28")


def doubt_network(patient: Patient) -> None:
    patient.network("doubtful", range="10.80.0.0/28", exclude=["10.99.0.1"])


def run_two_controllers(patient: Patient) -> None:
    for n in range(2):
        patient.pod(f"controller-{n}", networks="", app="homeport-controller", image=f"homeport:{n}")


BREAKAGES: dict[str, tuple[Callable[[Patient], object], str]] = {
    "its pod is gone": (lose_pod, "holder-gone"),
    "its pod is another": (replace_pod, "holder-gone"),
    "its node is gone too": (lose_node, "holder-gone"),
    "a pod without an address": (run_unserved, "pod-without-allocation"),
    "a node whose pods have none": (run_elsewhere, "node-not-served"),
    "an address in quarantine": (quarantine, "address-quarantined"),
    "a full range": (partial(fill, count=14), "range-full"),
    "a range that is nearly full": (partial(fill, count=13), "range-nearly-full"),
    "an allocation that is not its name's": (write_nonsense, "object-unreadable"),
    "a replica without its slot": (forget_slot, "slot-missing"),
    "no ledger": (forget_ledger, "ledger-behind"),
    "a network that cannot be": (break_network, "networks-broken"),
    "a network that is doubtful": (doubt_network, "networks-doubtful"),
    "two controllers of two images": (run_two_controllers, "controllers-differ"),
    "no lease": (lambda p: p.admin.delete(f"{LEASES}/homeport-controller"), "controller-missing"),
    "a lease that nobody renews": (lambda p: p.renew(p.now - timedelta(minutes=5)), "controller-silent"),
    "a lease that nobody holds": (lambda p: p.renew(p.now, holder=""), "controller-silent"),
    "a lease from the future": (lambda p: p.renew(p.now + timedelta(minutes=5)), "clocks-differ"),
    "no authority": (lambda p: p.register(b""), "webhook-unverifiable"),
    "an authority that is over": (lambda p: p.register(authority(p.now - AHEAD)), "webhook-unverifiable"),
    "one that will be": (lambda p: p.register(authority(p.now + AHEAD)), "webhook-certificate-ends"),
    "a webhook that blocks": (lambda p: p.register(authority(p.now + timedelta(days=20)), "Fail"), "webhook-blocks"),
}
SHOWS_AS_WELL = {"an allocation that is not its name's": {"pod-without-allocation"}}
"""What follows from a breakage by its nature."""


@pytest.mark.parametrize(("breakage", "expected"), BREAKAGES.values(), ids=BREAKAGES)
def test_each_breakage_is_found_and_nothing_else(
    patient: Patient, breakage: Callable[[Patient], object], expected: str, request: pytest.FixtureRequest
) -> None:
    breakage(patient)

    report = patient.examine()

    case = request.node.callspec.id
    assert set(ids(report)) - SHOWS_AS_WELL.get(case, set()) == {expected}
    assert report.unlooked == ()
    severities = {check.id: check.severity for check in CHECKS}
    for diagnosis in report.diagnoses:
        assert diagnosis.severity is severities[diagnosis.id]
        assert diagnosis.run
        texts = (diagnosis.place, diagnosis.found, diagnosis.expected, diagnosis.why)
        assert all(text and not text.endswith(".") for text in texts)


def test_a_node_that_is_not_ready_asks_for_proof(patient: Patient) -> None:
    lose_pod(patient)
    patient.node_status("False")

    (diagnosis,) = patient.examine().diagnoses

    assert diagnosis.id == "holder-gone"
    assert any("out-of-service" in command for command in diagnosis.run)


def test_slots_that_nobody_clears_away(patient: Patient) -> None:
    for allocation in list(patient.store.all()):
        patient.store.delete(allocation, cause="test")
    for ordinal in range(2):
        patient.admin.delete(f"{PODS}/web-{ordinal}", grace_seconds=0)

    assert ids(patient.examine()) == []
    assert ids(patient.examine(later=timedelta(hours=2))) == ["slots-of-no-use"]


def test_what_has_just_changed_is_not_judged(patient: Patient) -> None:
    patient.now = datetime.now(UTC)
    patient.renew(patient.now)
    lose_pod(patient)
    run_unserved(patient)

    assert patient.examine().diagnoses == ()


def test_whereabouts_beside_homeport(patient: Patient) -> None:
    for document in patient.admin.apply_file(WHEREABOUTS):
        patient.admin.wait_established(document["metadata"]["name"])
    pools = "/apis/whereabouts.cni.cncf.io/v1alpha1/namespaces/kube-system/ippools"
    spec = {"range": "10.9.0.0/28", "allocations": {"9": {"id": "abc", "podref": f"{NAMESPACE}/other"}}}
    pool = {"metadata": {"name": "10.9.0.0-28"}, "spec": spec}
    try:
        patient.admin.create(pools, {"apiVersion": "whereabouts.cni.cncf.io/v1alpha1", "kind": "IPPool", **pool})
        assert ids(patient.examine()) == ["whereabouts-unaware"]
        ours = {"id": "homeport:x", "podref": ""}
        patient.admin.patch(f"{pools}/10.9.0.0-28", {"spec": {"allocations": {"1": ours, "2": ours}}})
        assert ids(patient.examine()) == [], "coexistence"
        theirs = {"id": "abc", "podref": f"{NAMESPACE}/another"}
        patient.admin.patch(f"{pools}/10.9.0.0-28", {"spec": {"allocations": {"2": theirs}}})
        assert ids(patient.examine()) == ["address-contested"]
    finally:
        patient.admin.delete(f"{pools}/10.9.0.0-28")


def test_roles_and_definitions_of_an_older_version(patient: Patient) -> None:
    path = f"{ROLES}/homeport-node"
    rules = patient.admin.get(path)["rules"]
    definition = f"{DEFINITIONS}/ipslots.homeport.dev"
    whole = patient.admin.get(definition)["spec"]
    without = json.loads(json.dumps(whole))
    del without["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["writes"]
    try:
        patient.admin.patch(path, {"rules": rules[:-1]})
        patient.admin.patch(definition, {"spec": without})
        assert ids(patient.examine()) == ["definition-old", "role-lacks"]
        patient.admin.delete(path)
        patient.admin.patch(definition, {"spec": whole})
        (diagnosis,) = patient.examine().diagnoses
        assert (diagnosis.place, diagnosis.found) == ("clusterrole homeport-node", "not there")
    finally:
        patient.admin.patch(definition, {"spec": whole})
        patient.admin.apply_file(DEPLOY / "rbac.yaml")


def test_a_definition_that_is_missing_is_said_and_hides_nothing_else(
    patient: Patient, wait_until: Callable[..., None]
) -> None:
    definition = f"{DEFINITIONS}/ipranges.homeport.dev"
    patient.admin.delete(definition)
    try:
        wait_until(lambda: patient.admin.find(definition) is None, 20.0)  # its objects go first
        assert ids(patient.examine()) == ["definition-missing"]
    finally:
        install(patient.admin)


def test_what_may_not_be_looked_at_is_said_and_nothing_is_concluded_from_it(cluster: Cluster, patient: Patient) -> None:
    stranger = connect(cluster[0].kubeconfig("a-stranger", ["nobody"]))

    report = examine(stranger, place="the cluster", now=patient.now)

    stranger.close()
    assert report.diagnoses == ()
    assert len(report.unlooked) == 12
    assert all("forbids" in unlooked.why for unlooked in report.unlooked)
    assert report.exit_code == 2


def test_an_api_server_that_is_away_is_said(tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    cluster = {"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}
    context = {"name": "x", "context": {"cluster": "c", "user": "u"}}
    user: dict[str, Any] = {"name": "u", "user": {}}
    kubeconfig.write_text(
        json.dumps({"clusters": [cluster], "contexts": [context], "users": [user], "current-context": "x"})
    )
    objects = connect(kubeconfig)

    report = examine(objects, place="the cluster")

    objects.close()
    assert report.diagnoses == ()
    assert report.exit_code == 2


def test_the_command_says_the_same(cluster: Cluster, patient: Patient) -> None:
    """By its own clock: the lease is renewed now."""

    def run(*words: str, groups: str = "test:viewers") -> subprocess.CompletedProcess[str]:
        kubeconfig = cluster[0].kubeconfig(f"of-{groups.replace(':', '-')}", [groups])
        argv = [sys.executable, "-m", "homeport", "doctor", "--cluster", "--kubeconfig", str(kubeconfig), *words]
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)

    patient.renew(datetime.now(UTC))
    healthy = run()
    assert (healthy.returncode, healthy.stderr) == (0, "")
    assert healthy.stdout.endswith(": nothing is wrong\n")

    break_network(patient)
    broken = run("-o", "json")
    assert broken.returncode == 1
    (diagnosis,) = json.loads(broken.stdout)["diagnoses"]
    assert (diagnosis["id"], diagnosis["place"]) == ("networks-broken", f"{NAMESPACE}/broken")

    refused = run(groups="nobody")
    assert refused.returncode == 2
    assert refused.stdout.count("not looked at: ") == 12
    elsewhere = run("-n", "default")
    assert "lease default/homeport-controller" in elsewhere.stdout
