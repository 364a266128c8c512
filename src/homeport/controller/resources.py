"""Resources that the controller reads and are not Homeport's own. Values only."""

from __future__ import annotations

from homeport.ports import Resource

PODS = Resource(group="", version="v1", plural="pods", kind="Pod", namespaced=True)
NODES = Resource(group="", version="v1", plural="nodes", kind="Node")
STATEFUL_SETS = Resource(group="apps", version="v1", plural="statefulsets", kind="StatefulSet", namespaced=True)
DEFINITIONS = Resource(
    group="k8s.cni.cncf.io",
    version="v1",
    plural="network-attachment-definitions",
    kind="NetworkAttachmentDefinition",
    namespaced=True,
)
