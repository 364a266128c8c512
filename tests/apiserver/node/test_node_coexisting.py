"""A node with Homeport in a cluster whose other nodes run Whereabouts (docs/migration.md): no address twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from testcluster.api import Api
from testcluster.control_plane import ControlPlane
from testcluster.homeport_node import addresses
from tests.apiserver.node.workloads import NETWORKS, Cluster
from tests.stand_ins_whereabouts import WhereaboutsNode

from homeport.host.files import LocalFiles
from homeport.kube import configs
from homeport.kube.objects import KubernetesObjects
from homeport.stores.whereabouts import RESERVATIONS

if TYPE_CHECKING:
    from tests.apiserver.node.conftest import MakeNode

pytestmark = pytest.mark.root
NAMESPACE = "kube-system"
RANGE = "10.97.0.0/29"


@pytest.fixture
def objects(control_plane: ControlPlane, admin: Api, coexistence: Callable[[], None]) -> Iterator[KubernetesObjects]:
    """As an administrator sees them, Whereabouts' among them."""
    for crd in admin.apply_file(Path(__file__).parents[2] / "fixtures/whereabouts/crds.yaml"):
        admin.wait_established(crd["metadata"]["name"])
    coexistence()
    config = configs.load(str(control_plane.kubeconfig("coexisting", ["system:masters"])), {}, LocalFiles())
    assert config is not None
    made = KubernetesObjects.connect(config)
    yield made
    made.close()
    admin.request("DELETE", f"/apis/whereabouts.cni.cncf.io/v1alpha1/namespaces/{NAMESPACE}/ippools")


def test_both_kinds_of_nodes_share_a_range(objects: KubernetesObjects, cluster: Cluster, make_node: MakeNode) -> None:
    theirs = WhereaboutsNode(objects, RANGE)
    assert [str(a) for a in theirs.add("w1", "shop/old-1")] == ["10.97.0.1"]
    node = make_node("node-a", start=False, settings={"whereaboutsNamespace": NAMESPACE})
    cluster.api.create("/api/v1/nodes", {"metadata": {"name": node.name}})
    node.start_daemon()
    ipam = {"type": "whereabouts", "range": RANGE}
    cluster.network("shared", {"type": "macvlan", "master": "eth1", "ipam": ipam})
    metadata = {"name": "new", "annotations": {NETWORKS: "shared"}}
    spec = {"nodeName": node.name, "containers": [{"name": "main", "image": "none"}]}
    pod = cluster.create_pod({"metadata": metadata, "spec": spec})

    sandbox = node.runtime.run_sandbox(pod)
    assert addresses(sandbox.netns)["net1"] == ["10.97.0.2/29"], "the first is Whereabouts'"
    assert [str(a) for a in theirs.add("w2", "shop/old-2")] == ["10.97.0.3"], "the second is Homeport's"
    node.runtime.check(sandbox)

    node.runtime.stop_sandbox(sandbox)
    node.wait(lambda: not node.claims(), 20, "the API server has been told of the release")
    assert [str(a) for a in theirs.add("w3", "shop/old-3")] == ["10.97.0.2"], "it is free again, for both"
    for container in ("w1", "w2", "w3"):
        theirs.delete(container)
    assert objects.list(RESERVATIONS, namespace=NAMESPACE) == []
    node.stop_daemon()
