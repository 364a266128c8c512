"""What a cluster needs before Homeport's nodes join: the custom resource, our roles, the kubelets'. I/O: HTTPS."""

from __future__ import annotations

from testcluster.api import Api
from testcluster.binaries import ROOT

DEPLOY = ROOT / "deploy"

KUBELETS = {  # what a cluster's installer does; Kubernetes leaves the role without a subject
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRoleBinding",
    "metadata": {"name": "testcluster-kubelets"},
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:node"},
    "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:nodes"}],
}


def install(admin: Api) -> None:
    """Applies the files of deploy/ as they are; may be repeated."""
    resources = [crd for path in sorted((DEPLOY / "crds").glob("*.yaml")) for crd in admin.apply_file(path)]
    admin.apply_file(DEPLOY / "rbac.yaml")
    admin.apply(KUBELETS)
    for crd in resources:
        admin.wait_established(crd["metadata"]["name"])
