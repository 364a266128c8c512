"""Resources that Homeport reads and are not its own. Values only."""

from __future__ import annotations

from homeport.ports import Resource

PODS = Resource(group="", version="v1", plural="pods", kind="Pod", namespaced=True)
NAMESPACES = Resource(group="", version="v1", plural="namespaces", kind="Namespace")
EVENTS = Resource(group="", version="v1", plural="events", kind="Event", namespaced=True)
NODES = Resource(group="", version="v1", plural="nodes", kind="Node")
STATEFUL_SETS = Resource(group="apps", version="v1", plural="statefulsets", kind="StatefulSet", namespaced=True)
DEPLOYMENTS = Resource(group="apps", version="v1", plural="deployments", kind="Deployment", namespaced=True)
DAEMON_SETS = Resource(group="apps", version="v1", plural="daemonsets", kind="DaemonSet", namespaced=True)
REPLICA_SETS = Resource(group="apps", version="v1", plural="replicasets", kind="ReplicaSet", namespaced=True)
JOBS = Resource(group="batch", version="v1", plural="jobs", kind="Job", namespaced=True)
CRON_JOBS = Resource(group="batch", version="v1", plural="cronjobs", kind="CronJob", namespaced=True)
DEFINITIONS = Resource(
    group="k8s.cni.cncf.io",
    version="v1",
    plural="network-attachment-definitions",
    kind="NetworkAttachmentDefinition",
    namespaced=True,
)
ROLES = Resource(group="rbac.authorization.k8s.io", version="v1", plural="clusterroles", kind="ClusterRole")
LEASES = Resource(group="coordination.k8s.io", version="v1", plural="leases", kind="Lease", namespaced=True)
CUSTOM_RESOURCES = Resource(
    group="apiextensions.k8s.io", version="v1", plural="customresourcedefinitions", kind="CustomResourceDefinition"
)
WEBHOOKS = Resource(
    group="admissionregistration.k8s.io",
    version="v1",
    plural="validatingwebhookconfigurations",
    kind="ValidatingWebhookConfiguration",
)


def definition_of(resource: Resource) -> str:
    """The name of the CustomResourceDefinition that makes a resource known."""
    return f"{resource.plural}.{resource.group}"
