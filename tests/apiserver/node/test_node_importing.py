"""A pod that Whereabouts gave its address, on a node that changes over: it keeps it, and its DEL gives it back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from testcluster.api import Api
from testcluster.control_plane import ControlPlane
from testcluster.homeport_node import addresses
from tests.apiserver.node.workloads import NETWORKS, Cluster
from tests.stand_ins_whereabouts import WhereaboutsNode
from typer.testing import CliRunner

from homeport.cli.main import app
from homeport.host.files import LocalFiles
from homeport.kube import configs
from homeport.kube.objects import KubernetesObjects
from homeport.stores.kubernetes.store import KubernetesStore
from homeport.stores.whereabouts import POOLS

if TYPE_CHECKING:
    from tests.apiserver.node.conftest import MakeNode

pytestmark = pytest.mark.root
NAMESPACE = "kube-system"
RANGE = "10.98.0.0/29"
WITH_WHEREABOUTS = {"whereaboutsNamespace": NAMESPACE}


@pytest.fixture
def kubeconfig(control_plane: ControlPlane, admin: Api, coexistence: Callable[[], None]) -> Path:
    for crd in admin.apply_file(Path(__file__).parents[2] / "fixtures/whereabouts/crds.yaml"):
        admin.wait_established(crd["metadata"]["name"])
    coexistence()
    return control_plane.kubeconfig("migrating", ["system:masters"])


@pytest.fixture
def objects(kubeconfig: Path, admin: Api) -> Iterator[KubernetesObjects]:
    config = configs.load(str(kubeconfig), {}, LocalFiles())
    assert config is not None
    made = KubernetesObjects.connect(config)
    yield made
    for resource in ("ippools", "overlappingrangeipreservations"):
        admin.request("DELETE", f"/apis/whereabouts.cni.cncf.io/v1alpha1/namespaces/{NAMESPACE}/{resource}")
    made.close()


def test_a_running_pod_is_taken_over_with_its_node(
    kubeconfig: Path, objects: KubernetesObjects, cluster: Cluster, make_node: MakeNode
) -> None:
    node = make_node("node-a", start=False, settings=WITH_WHEREABOUTS)
    cluster.api.create("/api/v1/nodes", {"metadata": {"name": node.name}})
    node.start_daemon()
    ipam = {"type": "whereabouts", "range": RANGE}
    cluster.network("shared", {"type": "macvlan", "master": "eth1", "ipam": ipam})
    metadata = {"name": "old", "annotations": {NETWORKS: "shared"}}
    spec = {"nodeName": node.name, "containers": [{"name": "main", "image": "none"}]}
    sandbox = node.runtime.run_sandbox(cluster.create_pod({"metadata": metadata, "spec": spec}))
    has = addresses(sandbox.netns)["net1"]

    # From here on it is as Multus and Whereabouts leave it: a result on the node, an entry of theirs, nothing of ours.
    node.stop_daemon()
    store = KubernetesStore(objects)
    (ours,) = store.all()
    store.delete(ours, cause="as if it had never been")
    for file in node.disk.state_dir.glob("claims.db*"):
        file.unlink()
    for resource in ("ippools", "overlappingrangeipreservations"):
        cluster.api.request("DELETE", f"/apis/whereabouts.cni.cncf.io/v1alpha1/namespaces/{NAMESPACE}/{resource}")
    theirs = WhereaboutsNode(objects, RANGE)
    assert [f"{a}/29" for a in theirs.add(sandbox.container_id, f"{sandbox.namespace}/old")] == has

    node.start_daemon()
    where = ["--kubeconfig", str(kubeconfig), "--coexist", "--node", node.name]
    done = CliRunner().invoke(app, ["migrate", "whereabouts", "apply", *where])
    assert (done.exit_code, done.output) == (0, "1 imported\n")
    node.wait(lambda: node.claims(), 60, "the node has found the interface that the allocation is of")
    (allocation,) = store.all()
    assert allocation.holder is not None
    assert allocation.holder.netns_path.endswith(sandbox.netns)
    assert addresses(sandbox.netns)["net1"] == has
    theirs.delete(sandbox.container_id)  # a late DEL of theirs changes nothing
    (pool,) = objects.list(POOLS, namespace=NAMESPACE)
    assert len(json.loads(pool.body)["spec"]["allocations"]) == 1

    node.runtime.stop_sandbox(sandbox)
    node.wait(lambda: not node.claims(), 30, "the API server has been told of the release")
    assert list(store.all()) == []
    assert [f"{a}/29" for a in theirs.add("next", "shop/next")] == has, "it is free again, for both"
    node.stop_daemon()
