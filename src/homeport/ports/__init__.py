"""What the core and the plugins ask of the outside world. Protocols and values only; no I/O.

Calls are synchronous. A lookup returns the thing, or None only when it is *proven* absent; everything else raises
a `CniError`. `netns` is a path to a network namespace, or None for the host's own side (in the lab: the node's).
"""

from homeport.ipam.attaches import Attach
from homeport.ipam.objects import NodeState, OwnerReference, Pod, WorkloadState
from homeport.ipam.ranges import Span
from homeport.ports.allocations import AllocationStore, AlreadyExists, Conflict, FileAllocations, LedgerEntry, Place
from homeport.ports.clusters import Cluster, Devices, Event, Kubernetes, NetworkDefinition
from homeport.ports.kernel import BridgeVlan, Host, KernelRoute, Link, LinkAddress, Probe, Rule
from homeport.ports.objects import (
    USUAL_DELETION,
    ApiObject,
    Deletion,
    ObjectChanged,
    ObjectExists,
    Objects,
    PatchRefused,
    Resource,
    Watching,
)
from homeport.ports.plugins import Delegates, Plugin, Shells, ignore
from homeport.ports.programs import Clock, Completed, Exec, Files

__all__ = [
    "USUAL_DELETION",
    "AllocationStore",
    "AlreadyExists",
    "ApiObject",
    "Attach",
    "BridgeVlan",
    "Clock",
    "Cluster",
    "Completed",
    "Conflict",
    "Delegates",
    "Deletion",
    "Devices",
    "Event",
    "Exec",
    "FileAllocations",
    "Files",
    "Host",
    "KernelRoute",
    "Kubernetes",
    "LedgerEntry",
    "Link",
    "LinkAddress",
    "NetworkDefinition",
    "NodeState",
    "ObjectChanged",
    "ObjectExists",
    "Objects",
    "OwnerReference",
    "PatchRefused",
    "Place",
    "Plugin",
    "Pod",
    "Probe",
    "Resource",
    "Rule",
    "Shells",
    "Span",
    "Watching",
    "WorkloadState",
    "ignore",
]
