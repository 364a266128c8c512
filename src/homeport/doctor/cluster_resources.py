"""Resources that doctor alone looks at. Values only."""

from __future__ import annotations

from homeport.ports import Resource

CUSTOM_RESOURCES = Resource(
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


def definition_of(resource: Resource) -> str:
    """The name of the CustomResourceDefinition that makes a resource known."""
    return f"{resource.plural}.{resource.group}"
