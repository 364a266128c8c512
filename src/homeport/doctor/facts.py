"""What a node says of itself, as far as it could be looked at. Values only; no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Literal

import msgspec

from homeport.doctor.cluster_facts import Seen
from homeport.ipam.allocations import Allocation
from homeport.ipam.objects import Pod
from homeport.model.addresses import IPAddress, IPInterface
from homeport.model.names import AttachmentKey
from homeport.ports import Link, Place
from homeport.stores.claims import HeldClaim


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """Where everything is on the node, by the daemon's configuration.

    `generated` is the file that the daemon writes for the runtime in `runtime_dir`, "" when it is to write none.
    `shim_types` are the plugin types that lead to the daemon, `shim` the one that it writes. `built_in` are the types
    that run inside the daemon, unless `exec_types` has them. `store` is a file of allocations, "" where the cluster has
    them. `whereabouts_namespace` is where Whereabouts' objects are, or "".
    """

    node: str
    version: str
    config_file: str
    warnings: tuple[str, ...] = ()
    socket: str
    state_dir: str
    cni_dir: str
    bin_dir: str
    runtime_dir: str
    generated: str = ""
    shim: str
    shim_types: frozenset[str]
    readiness_file: str = ""
    kubeconfig: str = ""
    store: str = ""
    whereabouts_namespace: str = ""
    exec_types: frozenset[str] = frozenset()
    built_in: frozenset[str] = frozenset()

    @property
    def journal(self) -> str:
        return f"{self.state_dir}/journal"

    @property
    def claims(self) -> str:
        return f"{self.state_dir}/claims.db"


# --- files ---------------------------------------------------------------------------------------------------------


class FileFact(msgspec.Struct, frozen=True, kw_only=True):
    """What stat(2) says of a path; `mode` is its twelve permission bits."""

    kind: Literal["file", "directory", "socket", "other"]
    mode: int
    uid: int


class RuntimeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A file of the runtime's directory. `problem` is why it cannot be read as a network, "" when it can.

    `types` are its plugins', in order. `cluster_network` is the primary plugin's file that ours names, "" otherwise.
    """

    name: str
    problem: str = ""
    types: tuple[str, ...] = ()
    cluster_network: str = ""


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """An executable of the directory of plugins. `version` is what ours says of itself, "" when it says none."""

    file: FileFact
    is_ours: bool
    version: str = ""


class JournalEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A file of the journal. `problem` is why it cannot be read as a DEL, "" when it can."""

    name: str
    age_seconds: float
    problem: str = ""


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """What is left of the file system a directory is on: shares from 0 to 1. No inodes at all count as all free."""

    path: str
    free_bytes: int
    free: float
    free_inodes: float


class Database(msgspec.Struct, frozen=True, kw_only=True):
    """A SQLite file of ours, as its own check finds it; `problem` is "" when it is whole."""

    path: str
    problem: str = ""


class FileFacts(msgspec.Struct, frozen=True, kw_only=True):
    """`modes` has each path of ours that matters, None for one that is not there. `programs` is by plugin type, those
    that are not there left out. `shim_environs` are what runtimes that run here tell the shim: variable to value, by
    the runtime's name.
    """

    modes: Mapping[str, FileFact | None]
    runtime_configs: Seen[tuple[RuntimeConfig, ...] | None]
    programs: Seen[Mapping[str, Program] | None]
    journal: Seen[tuple[JournalEntry, ...] | None]
    rooms: Seen[tuple[Room, ...]]
    databases: tuple[Database, ...]
    primary_path: str  # "" when none is named
    primary_types: tuple[str, ...]
    primary: bool | None  # whether the primary plugin's file is there; None when none is named
    readiness: bool | None  # as `primary`, for the readiness file
    shim_environs: Mapping[str, Mapping[str, str]]
    strangers: tuple[str, ...]  # daemons of other meta-plugins that run here, "NAME (process 17)"


# --- the daemon ----------------------------------------------------------------------------------------------------


class Answering(Enum):
    """What came of asking the daemon's socket."""

    READY = "ready"
    UNREADY = "not ready"
    MISSING = "no socket"
    REFUSED = "nobody listens"
    SILENT = "no answer"


class DaemonFacts(msgspec.Struct, frozen=True, kw_only=True):
    """`problem` is what /readyz says against it, or how it failed to answer. `version` is "" when it told none.

    `is_here` is whether it lives in the network namespace that was looked at; None when nobody listens.
    """

    answering: Answering
    problem: str = ""
    version: str = ""
    is_here: bool | None = None


# --- the kernel ----------------------------------------------------------------------------------------------------


class HostLink(msgspec.Struct, frozen=True, kw_only=True):
    """A link of the node's own namespace, with its addresses."""

    link: Link
    addresses: tuple[IPInterface, ...] = ()


class KernelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """`kinds` tells of each link type that networks ask for whether the kernel can make it.

    `sysctls` has what was asked, None for a setting that the kernel lacks. `uplink` is the default route's link.
    """

    links: tuple[HostLink, ...]
    kinds: Mapping[str, bool]
    sysctls: Mapping[str, str | None]
    uplink: str = ""


# --- networks, pods, addresses -------------------------------------------------------------------------------------


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """One plugin of a network that needs something of the node. `master` is "" where the default route's link is meant,
    and None where the plugin is on none. `is_in_pod`: the master is looked for in the pod's own namespace.
    """

    network: str  # NAMESPACE/NAME
    plugin: str
    master: str | None = None
    mtu_bytes: int = 0
    is_in_pod: bool = False
    is_gateway: bool = False


class SeenPod(msgspec.Struct, frozen=True, kw_only=True):
    """A pod of this node and the networks it selects; None where its selection cannot be read."""

    pod: Pod
    networks: frozenset[str] | None = frozenset()


class Attached(msgspec.Struct, frozen=True, kw_only=True):
    """An interface by the result that its ADD left. `is_there`: its namespace is.

    `wanted` are the addresses it was given, `found` those that the kernel has on it; None when it has no such link.
    `has_pool`: its network gives every interface an address of a range. `makes_link`: a plugin of its network makes a
    link of the kernel, and not, say, a device for DPDK.
    """

    key: AttachmentKey
    netns: str
    pod: str  # NAMESPACE/NAME, "" when the runtime told none
    pod_uid: str
    age_seconds: float
    is_there: bool
    wanted: frozenset[IPAddress] = frozenset()
    found: frozenset[IPAddress] | None = None
    has_pool: bool = False
    makes_link: bool = False


class ApiFacts(msgspec.Struct, frozen=True, kw_only=True):
    """How the API server answers: `seconds` for one short question, `skew_seconds` how far its clock is ahead of ours,
    None when it told no time.
    """

    place: str
    seconds: float
    skew_seconds: float | None


class NodeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was read of one node, or `Unseen`. `allocations` are those that say this node holds them, with
    those of addresses that `claims` has; a place that has none is not in it. `unreadable` names what cannot be decoded.

    Attachments and claims were read before allocations and pods and once more after them: what was not the same both
    times is left out. So a pod that is not there was gone while its interface was still there, and what is being given
    back at this moment is not told of. `passing` are the addresses of claims that were left out.
    """

    now: datetime
    site: Site
    files: FileFacts
    daemon: Seen[DaemonFacts]
    kernel: Seen[KernelFacts]
    api: Seen[ApiFacts | None]
    uses: Seen[tuple[Use, ...]]
    pods: Seen[tuple[SeenPod, ...]]
    claims: Seen[tuple[HeldClaim, ...]]
    allocations: Seen[Mapping[Place, Allocation]]
    attached: Seen[tuple[Attached, ...]]
    passing: frozenset[Place] = frozenset()
    unreadable: tuple[tuple[str, str], ...] = ()  # (what, why)
