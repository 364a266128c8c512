"""What nodes need beside their usual role, with exactly the roles of deploy/: IPAMClaims, and Whereabouts' objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

import pytest
from testcluster.api import MERGE, Api
from testcluster.control_plane import ControlPlane, node_user
from tests.stand_ins_whereabouts import WhereaboutsNode

from homeport.host.files import LocalFiles
from homeport.ipam.allocations import Allocation, Phase
from homeport.ipam.identities import PodOwner, Slot
from homeport.kube import configs
from homeport.kube.client import KubernetesClient
from homeport.model.errors import IOFailure
from homeport.multinet.ipam_claims import IpamClaim
from homeport.stores.coexisting import CoexistingStore
from homeport.stores.keeping_coexistence import CoexistenceKeeper
from homeport.stores.kubernetes.store import KubernetesStore
from homeport.stores.whereabouts import POOLS, RESERVATIONS

pytestmark = pytest.mark.root
FIXTURES = Path(__file__).parent.parent / "fixtures"
CLAIMS = "ipamclaims.k8s.cni.cncf.io"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
NAMESPACE = "kube-system"  # the roles are of this one


@pytest.fixture
def node(control_plane: ControlPlane) -> Iterator[KubernetesClient]:
    """With a node's own role and no other."""
    config = configs.load(str(control_plane.kubeconfig(node_user("node-m"))), {}, LocalFiles())
    assert config is not None
    client = KubernetesClient(config, node="node-m")
    yield client
    client.close()


def test_a_claim_is_read_by_name(node: KubernetesClient, admin: Api, namespace: str) -> None:
    with pytest.raises(IOFailure, match=CLAIMS):
        node.ipam_claim(namespace, "vm-a")  # where its resource is not installed
    admin.apply_file(FIXTURES / "ipam-claims.yaml")
    try:
        admin.wait_established(CLAIMS)
        assert node.ipam_claim(namespace, "vm-a") is None
        metadata = {"name": "vm-a", "namespace": namespace}
        spec = {"network": "tenant", "interface": "net1"}
        admin.apply({"apiVersion": "k8s.cni.cncf.io/v1alpha1", "kind": "IPAMClaim", "metadata": metadata, "spec": spec})
        claim = IpamClaim(namespace=namespace, name="vm-a", network="tenant")
        assert node.ipam_claim(namespace, "vm-a") == claim
        path = f"/apis/k8s.cni.cncf.io/v1alpha1/namespaces/{namespace}/ipamclaims/vm-a/status"
        admin.patch(path, {"status": {"ips": ["10.0.0.7/24"]}}, MERGE)
        found = node.ipam_claim(namespace, "vm-a")
        assert found is not None
        assert found.ips == ("10.0.0.7/24",)
    finally:
        admin.delete(f"{DEFINITIONS}/{CLAIMS}")


def test_a_node_and_the_controller_may_do_what_coexistence_takes(
    control_plane: ControlPlane, node: KubernetesClient, admin: Api, coexistence: Callable[[], None]
) -> None:
    for crd in admin.apply_file(FIXTURES / "whereabouts" / "crds.yaml"):
        admin.wait_established(crd["metadata"]["name"])
    store = CoexistingStore(KubernetesStore(node.objects), node.objects, NAMESPACE)
    slot = Slot(PodOwner("shop", "p", "u"), "net", "net1")
    wanted = Allocation(
        scope="roles#10.80.0.0/29",
        address=ip_address("10.80.0.1"),
        slot=slot,
        phase=Phase.RESERVED,
        since=datetime.now(UTC),
    )
    with pytest.raises(IOFailure, match="forbids"):
        store.create(wanted, cause="test")
    coexistence()
    theirs = WhereaboutsNode(node.objects, "10.80.0.0/29", network_name="roles")
    (address,) = theirs.add("w1", "shop/old")
    assert str(address) == "10.80.0.1"
    stored = store.create(
        Allocation(
            scope="roles",
            address=ip_address("10.80.0.2"),
            slot=slot,
            phase=Phase.RESERVED,
            since=datetime.now(UTC),
        ),
        cause="test",
    )
    config = configs.load(str(control_plane.kubeconfig("controller-m", ["homeport:controllers"])), {}, LocalFiles())
    assert config is not None
    controller = KubernetesClient(config, node="")
    try:
        keeping = CoexistingStore(KubernetesStore(controller.objects), controller.objects, NAMESPACE)
        assert CoexistenceKeeper(keeping).keep().contested == ()
        keeping.delete(stored, cause="test")
    finally:
        controller.close()
    assert [r.name for r in node.objects.list(RESERVATIONS, namespace=NAMESPACE)] == ["roles-10.80.0.1"]
    theirs.delete("w1")
    admin.delete(f"/apis/whereabouts.cni.cncf.io/v1alpha1/namespaces/{NAMESPACE}/ippools/roles-10.80.0.0-29")
    assert node.objects.list(POOLS, namespace=NAMESPACE) == []
