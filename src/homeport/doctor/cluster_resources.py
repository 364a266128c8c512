"""Resources that doctor looks at from afar and are not Homeport's own. Values only."""

from __future__ import annotations

from homeport.ports import Resource

DEFINITIONS = Resource(
    group="apiextensions.k8s.io", version="v1", plural="customresourcedefinitions", kind="CustomResourceDefinition"
)
ROLES = Resource(group="rbac.authorization.k8s.io", version="v1", plural="clusterroles", kind="ClusterRole")
LEASES = Resource(group="coordination.k8s.io", version="v1", plural="leases", kind="Lease", namespaced=True)
WEBHOOKS = Resource(
    group="admissionregistration.k8s.io",
    version="v1",
    plural="validatingwebhookconfigurations",
    kind="ValidatingWebhookConfiguration",
)
PODS = Resource(group="", version="v1", plural="pods", kind="Pod", namespaced=True)
NODES = Resource(group="", version="v1", plural="nodes", kind="Node")
STATEFUL_SETS = Resource(group="apps", version="v1", plural="statefulsets", kind="StatefulSet", namespaced=True)
NETWORKS = Resource(
    group="k8s.cni.cncf.io",
    version="v1",
    plural="network-attachment-definitions",
    kind="NetworkAttachmentDefinition",
    namespaced=True,
)


def definition_of(resource: Resource) -> str:
    """The name of the CustomResourceDefinition that makes a resource known."""
    return f"{resource.plural}.{resource.group}"
