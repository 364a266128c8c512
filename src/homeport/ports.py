"""What the core and the plugins ask of the outside world. Protocols and values only; no I/O.

Calls are synchronous. A lookup returns the thing, or None only when it is *proven* absent; everything else raises
a `CniError`. `netns` is a path to a network namespace, or None for the host's own side (in the lab: the node's).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import msgspec

from homeport.cni.invocations import Attachment
from homeport.cni.netconfs import NetConf
from homeport.ipam.allocations import Allocation
from homeport.ipam.attaches import Attach as Attach
from homeport.ipam.identities import Owner, Slot, Workload
from homeport.ipam.objects import NodeState as NodeState
from homeport.ipam.objects import OwnerReference as OwnerReference
from homeport.ipam.objects import Pod as Pod
from homeport.ipam.objects import WorkloadState as WorkloadState
from homeport.ipam.ranges import Span as Span
from homeport.model.addresses import Family, IPAddress, IPInterface, IPNetwork, MacAddress
from homeport.model.names import PodRef
from homeport.model.results import Result
from homeport.multinet.ipam_claims import IpamClaim

# --- the kernel ------------------------------------------------------------------------------------------------


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """A network interface as the kernel reports it. `parent` is IFLA_LINK (macvlan's lower device, a veth's peer)."""

    index: int
    name: str
    kind: str  # "" for a physical device; "veth", "bridge", "macvlan", "ipvlan", ...
    mac: MacAddress | None
    mtu_bytes: int
    up: bool
    running: bool = False
    promisc: bool = False
    allmulti: bool = False
    mode: str = ""  # macvlan: bridge|private|vepa|passthru; ipvlan: l2|l3|l3s
    parent: int | None = None
    master: int | None = None  # the bridge or bond it is a port of
    alias: str = ""
    vlan_filtering: bool = False  # bridges
    hairpin: bool = False  # bridge ports
    isolated: bool = False  # bridge ports


class LinkAddress(msgspec.Struct, frozen=True, kw_only=True):
    """An address on a link; `tentative` while IPv6 duplicate address detection runs, `failed` when it found one."""

    address: IPInterface
    scope: int = 0
    tentative: bool = False
    failed: bool = False


class KernelRoute(msgspec.Struct, frozen=True, kw_only=True):
    """A unicast route. A default route has the all-zero `dst`; `link` is an interface name."""

    dst: IPNetwork
    gw: IPAddress | None = None
    link: str | None = None
    src: IPAddress | None = None
    table: int = 254
    scope: int | None = None
    priority: int | None = None
    mtu_bytes: int | None = None
    advmss: int | None = None
    protocol: int | None = None
    onlink: bool = False


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """A policy routing rule `from SRC lookup TABLE`; priority None lets the kernel choose."""

    family: Family
    src: IPNetwork | None = None
    table: int
    priority: int | None = None


class BridgeVlan(msgspec.Struct, frozen=True, kw_only=True):
    """VLAN IDs `first`..`last`, both inclusive, on a bridge port (or on the bridge itself with `self_`)."""

    first: int
    last: int
    pvid: bool = False
    untagged: bool = False


class Host(Protocol):
    """The kernel. Every changing verb records its inverse; see `operation`.

    Raises `KernelRefused` (with errno's name), `Unsupported` (kind unknown to this kernel), `InvalidNetns`
    (path is gone or no namespace), `LinkExists`, `MissingLink`.
    """

    def operation(self, *, undo_on_error: bool = True) -> AbstractContextManager[None]:
        """The span of one verb on one attachment: sockets are shared inside it and closed after it.

        On an exception everything done inside is undone, newest first; an error of the undoing is attached as
        a note. Nests: an inner operation that succeeded is still undone by a failing outer one. With `undo_on_error`
        False what is done inside stays done, whatever fails: a DEL, or what other attachments come to share.
        """

    def on_undo(self, action: Callable[[], None]) -> None:
        """Adds an inverse of the caller's own (an IPAM release, an nftables rule) to the current operation."""

    # namespaces
    def namespace_exists(self, path: str) -> bool: ...
    def is_own_namespace(self, path: str) -> bool: ...
    def create_namespace(self, path: str) -> None:
        """Makes and pins a new namespace at `path` (a bind mount). An existing one is an error."""

    def delete_namespace(self, path: str) -> None:
        """Unpins; idempotent."""

    def lock_namespace(self, path: str) -> AbstractContextManager[None]:
        """Keeps every other holder out, other processes included: flock(2) on the namespace's own file, as sbr's
        reference plugin takes it. Raises `InvalidNetns`; never creates a file.
        """

    # links: reading
    def link(self, name: str, netns: str | None = None) -> Link | None: ...
    def link_by_index(self, index: int, netns: str | None = None) -> Link | None: ...
    def links(self, netns: str | None = None) -> tuple[Link, ...]: ...
    def supports_kind(self, kind: str) -> bool:
        """Whether this kernel can make links of that kind; may load its module, makes nothing."""

    # links: making and removing. `parent_netns`/`peer_netns` is where the other side lives.
    def create_macvlan(
        self,
        name: str,
        *,
        netns: str | None,
        parent: str,
        parent_netns: str | None = None,
        mode: str = "bridge",
        mtu_bytes: int | None = None,
        mac: MacAddress | None = None,
        bc_queue_len: int | None = None,
    ) -> Link: ...
    def create_ipvlan(
        self,
        name: str,
        *,
        netns: str | None,
        parent: str,
        parent_netns: str | None = None,
        mode: str = "l2",
        mtu_bytes: int | None = None,
    ) -> Link: ...
    def create_veth(
        self,
        name: str,
        *,
        netns: str | None,
        peer: str,
        peer_netns: str | None = None,
        mtu_bytes: int | None = None,
        mac: MacAddress | None = None,
        peer_mac: MacAddress | None = None,
    ) -> tuple[Link, Link]:
        """(the link called `name`, the link called `peer`)."""

    def create_bridge(
        self, name: str, *, netns: str | None = None, mtu_bytes: int | None = None, vlan_filtering: bool = False
    ) -> Link: ...
    def create_dummy(self, name: str, *, netns: str | None = None) -> Link: ...
    def delete_links(self, names: Iterable[str], netns: str | None = None) -> None:
        """Removes all in one kernel request where it can; a missing link or namespace is success."""

    # links: changing
    def set_link(
        self,
        name: str,
        netns: str | None = None,
        *,
        up: bool | None = None,
        rename: str | None = None,
        mtu_bytes: int | None = None,
        mac: MacAddress | None = None,
        master: str | None = None,
        promisc: bool | None = None,
        alias: str | None = None,
    ) -> Link: ...
    def set_bridge_port(
        self, name: str, netns: str | None = None, *, hairpin: bool | None = None, isolated: bool | None = None
    ) -> None: ...
    def bridge_vlans(self, name: str, netns: str | None = None) -> tuple[BridgeVlan, ...]: ...
    def add_bridge_vlan(
        self, name: str, vlan: BridgeVlan, netns: str | None = None, *, on_bridge: bool = False
    ) -> None: ...
    def delete_bridge_vlan(
        self, name: str, vlan: BridgeVlan, netns: str | None = None, *, on_bridge: bool = False
    ) -> None: ...

    # addresses
    def addresses(self, name: str, netns: str | None = None) -> tuple[LinkAddress, ...]: ...
    def add_address(
        self, name: str, address: IPInterface, netns: str | None = None, *, duplicate_detection: bool = True
    ) -> None: ...
    def delete_address(self, name: str, address: IPInterface, netns: str | None = None) -> None: ...
    def wait_for_addresses(self, name: str, netns: str | None = None, *, timeout_seconds: float = 5.0) -> None:
        """Until no IPv6 address is tentative; raises `KernelRefused` when one failed DAD or at the deadline."""

    # routes and rules
    def routes(
        self,
        netns: str | None = None,
        *,
        family: Family | None = None,
        table: int | None = 254,
        link: str | None = None,
    ) -> tuple[KernelRoute, ...]:
        """Unicast routes of `table` (None: of every table), without the kernel's local and broadcast ones."""

    def add_route(self, route: KernelRoute, netns: str | None = None, *, replace: bool = False) -> None:
        """Without `replace`: created, not exclusively, as the Go plugins do: a second IPv4 default goes ahead."""

    def delete_route(self, route: KernelRoute, netns: str | None = None) -> None:
        """A missing route is success."""

    def rules(self, netns: str | None = None, *, family: Family | None = None) -> tuple[Rule, ...]: ...
    def tables_in_use(self, netns: str | None = None) -> frozenset[int]:
        """Routing tables that some rule leads to or some route is in, of whatever type the rule or the route is."""

    def add_rule(self, rule: Rule, netns: str | None = None) -> None: ...
    def delete_rule(self, rule: Rule, netns: str | None = None) -> None: ...

    # the rest
    def read_sysctl(self, key: str, netns: str | None = None) -> str | None:
        """`key` is the path below /proc/sys with `/` (`net/ipv4/conf/eth0/arp_notify`); None when it does not exist."""

    def write_sysctl(self, key: str, value: str, netns: str | None = None) -> None: ...
    def run_nft(self, commands: Sequence[Mapping[str, Any]], netns: str | None = None) -> Sequence[Mapping[str, Any]]:
        """One atomic libnftables JSON transaction (libnftables-json(5)): the list under `nftables`, in and out.

        An object that is not there raises `KernelRefused` with ENOENT in its details.
        """

    def announce(self, name: str, address: IPAddress, netns: str | None = None) -> None:
        """Gratuitous ARP (RFC 5227 §2.3) or unsolicited NA (RFC 4861 §7.2.6), sent from the link (R9)."""


class Probe(Protocol):
    """Does anybody answer for an address? Sent from one of our links (RFC 5227 ARP probe, IPv6 NS as in DAD)."""

    def answers(
        self, address: IPAddress, *, link: str, netns: str | None = None, timeout_seconds: float = 0.5
    ) -> MacAddress | None:
        """The MAC that answered first, or None when nobody did in time. Raises when it could not listen."""


# --- other programs, files, time ---------------------------------------------------------------------------------


class Completed(msgspec.Struct, frozen=True):
    """A finished child. `returncode` is negative for a signal."""

    returncode: int
    stdout: bytes
    stderr: bytes


class Exec(Protocol):
    """Starting a foreign plugin."""

    def find(self, name: str, path: Sequence[str]) -> str | None:
        """The first regular executable file `name` (no `/` in it) along `path`."""

    def run(
        self, executable: str, *, env: Mapping[str, str], stdin: bytes, timeout_seconds: float, netns: str | None = None
    ) -> Completed: ...


class Files(Protocol):
    """Small configuration files, and logs."""

    def read(self, path: str | Path) -> bytes | None:
        """None only for ENOENT/ENOTDIR; anything else raises `IOFailure`."""

    def list(self, path: str | Path) -> tuple[str, ...] | None:
        """The names in a directory, sorted; None only when it does not exist."""

    def append(self, path: str | Path, text: str, *, max_bytes: int) -> None:
        """Adds to a log, made with its directories. One larger than `max_bytes` is renamed PATH.1 before."""


class Clock(Protocol):
    """Time, as an argument."""

    def now(self) -> datetime:
        """UTC, timezone-aware."""

    def monotonic(self) -> float:
        """Seconds, for deadlines."""

    def sleep(self, seconds: float) -> None: ...


# --- allocations -------------------------------------------------------------------------------------------------


Place = tuple[str, IPAddress]
"""Where an allocation is: scope and address."""


class AlreadyExists(Exception):
    """`AllocationStore.create`: the address is allocated; `present` is what stands there."""

    def __init__(self, present: Allocation) -> None:
        super().__init__(f"{present.address} in scope {present.scope!r} is held by {present.slot}")
        self.present = present


class Conflict(Exception):
    """`replace` or `delete`: the stored version is another one, or the allocation is gone."""


class LedgerEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One change of one allocation (R15). None before a creation and after a deletion."""

    at: datetime
    cause: str
    before: Allocation | None
    after: Allocation | None


class AllocationStore(Protocol):
    """Allocations by address. One write is atomic and is in the ledger or did not happen.

    Every method raises `TryAgainLater` when the store cannot be reached, `StoreFull` when it has no room and
    `IOFailure` for anything else; never "looks empty".
    """

    def get(self, scope: str, address: IPAddress) -> Allocation | None: ...
    def create(self, allocation: Allocation, *, cause: str) -> Allocation:
        """The claim: returns it with its version, or raises `AlreadyExists`. R1 is decided here and nowhere else."""

    def replace(self, allocation: Allocation, *, cause: str) -> Allocation:
        """Overwrites the version that `allocation` carries; raises `Conflict` if another is stored."""

    def delete(self, allocation: Allocation, *, cause: str) -> None:
        """Removes the version that `allocation` carries; raises `Conflict` if another is stored."""

    def of_slot(self, slot: Slot, *, likely: Sequence[Place] = ()) -> tuple[Allocation, ...]:
        """All of the slot's allocations. Where each of the places `likely` is the slot's own, a store that has to ask
        for every address may stop there.
        """

    def of_owner(self, owner: Owner) -> tuple[Allocation, ...]: ...
    def of_workload(self, workload: Workload) -> tuple[Allocation, ...]: ...
    def of_holder(self, container_id: str, ifname: str) -> tuple[Allocation, ...]: ...
    def of_node(self, node: str) -> tuple[Allocation, ...]:
        """What holders on that node have."""

    def all(self, scope: str | None = None) -> Iterable[Allocation]: ...
    def lowest_free(
        self, scope: str, span: Span, excluding: Sequence[Span], *, count: int = 1, near: IPAddress | None = None
    ) -> tuple[IPAddress, ...]:
        """Up to `count` addresses of `span` without an allocation; none only where the store itself was asked, and not
        what a caller remembers of it. A hint: only `create` decides. Ascending, from `near` on where that is in the
        span, and then from the span's first. A store that many nodes use may choose among the lowest ones at random, so
        that not all of them try the same.
        """

    def ledger(
        self, *, address: IPAddress | None = None, since: datetime | None = None, until: datetime | None = None
    ) -> Iterable[LedgerEntry]: ...


class FileAllocations(Protocol):
    """host-local's directory of one network: a file an address, under one lock (its own on-disk format)."""

    def lock(self) -> AbstractContextManager[None]: ...
    def reserve(self, address: IPAddress, container_id: str, ifname: str, range_set: int) -> bool:
        """Creates the file and notes the address as last reserved of that range set; False when it exists."""

    def last_reserved(self, range_set: int) -> IPAddress | None: ...
    def of(self, container_id: str, ifname: str) -> tuple[IPAddress, ...]:
        """Raises `IOFailure` for a file it cannot read, for that is not "nothing allocated"."""

    def release(self, container_id: str, ifname: str) -> None: ...
    def entries(self) -> tuple[tuple[IPAddress, str, str], ...]:
        """(address, container ID, ifname) of all."""


# --- the cluster -------------------------------------------------------------------------------------------------


class Cluster(Protocol):
    """The API server's word. None means it answered "not found" for that very name (R12).

    `pod` may give what was true a while ago. That another pod had the name then proves nothing about the one of now:
    whoever is to conclude that a pod is gone asks `pod_now`, which no cache and no record answers.
    """

    def pod(self, ref: PodRef) -> Pod | None: ...
    def pod_now(self, ref: PodRef) -> Pod | None: ...
    def workload(self, workload: Workload) -> WorkloadState | None: ...
    def node(self, name: str) -> NodeState | None: ...


class NetworkDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """A NetworkAttachmentDefinition. `config` is its `spec.config`, which may be empty."""

    namespace: str
    name: str
    config: str = ""
    annotations: Mapping[str, str] = {}

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something an operator reads in `kubectl describe pod`, or of another object where `kind` says so.

    `pod` and `pod_uid` are that object's; its namespace is "" where its kind has none.
    """

    pod: PodRef
    pod_uid: str
    reason: str
    message: str
    warning: bool = False
    kind: str = "Pod"
    api_version: str = "v1"


class Kubernetes(Cluster, Protocol):
    """What the meta-plugin asks of the API server and tells it, from a node's view. Waits no longer than its deadlines.

    `pod`, `workload` and `node` of `Cluster` may be answered from a watch: what they say was true, and None is always
    the API server's own word. Every method raises `TryAgainLater` when the API server is away, overloaded or broken,
    and `IOFailure` when it refuses us for good.
    """

    def pod_with_uid(self, ref: PodRef, uid: str) -> Pod | None:
        """The pod as it is now known, by a live GET where the watch lacks it or has another UID. "" is any UID.

        A pod of another UID is returned as it is: the caller judges. None when the API server answered 404.
        """

    def definition(self, namespace: str, name: str) -> NetworkDefinition | None: ...
    def ipam_claim(self, namespace: str, name: str) -> IpamClaim | None:
        """As it is now. Its resource need not be installed where nobody asks."""

    def write_annotations(self, ref: PodRef, uid: str, annotations: Mapping[str, str]) -> bool:
        """Sets annotations of this very pod by one PATCH of its status; False when it is gone or another one."""

    def emit(self, event: Event) -> None:
        """Sends it in the background, repeats counted together; never raises, never waits."""


class Resource(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of object and where the API server has it. `group` is "" for the core's."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = False


class ApiObject(msgspec.Struct, frozen=True, kw_only=True):
    """One object as the API server has it. `version` is its resourceVersion, `body` its JSON."""

    namespace: str = ""
    name: str
    uid: str
    version: str
    body: bytes


class ObjectExists(Exception):
    """`Objects.create`: the name is taken."""


class ObjectChanged(Exception):
    """`Objects.patch` or `delete`: the object has another version or UID by now, or is gone."""


class PatchRefused(Exception):
    """`Objects.patch_json`: one of its tests failed (422), or the object is gone."""


class Watching(Protocol):
    """A watch under way, in a thread of its own."""

    def is_current(self) -> bool:
        """Whether what it told is what the API server has, but for what is on its way."""

    def version(self) -> str:
        """Up to which everything has been told; "" while a list is being told, or none has been."""

    def wait_listed(self, seconds: float) -> bool:
        """Until everything that was there at first has been told; False when that took longer."""

    def stop(self) -> None: ...


class Objects(Protocol):
    """Objects of the API server, of any resource. Safe to share by threads.

    Every method raises `TryAgainLater` when the API server is away, overloaded or broken, and `IOFailure` when it
    refuses for good. A write that raised `TryAgainLater` may have been done, be done later, or never be done; one that
    raised `Unreachable` was never sent.
    """

    def get(self, resource: Resource, name: str, *, namespace: str = "") -> ApiObject | None:
        """As it is now; None when the API server says that there is no such object."""

    def create(self, resource: Resource, body: Mapping[str, Any], *, namespace: str = "") -> ApiObject:
        """Raises `ObjectExists`: a repetition of one's own lost request raises it too."""

    def patch(
        self, resource: Resource, name: str, body: Mapping[str, Any], *, namespace: str = "", version: str = ""
    ) -> ApiObject:
        """JSON merge patch (RFC 7386) of that version; "" is any. Raises `ObjectChanged`."""

    def patch_json(
        self, resource: Resource, name: str, operations: Sequence[Mapping[str, Any]], *, namespace: str = ""
    ) -> ApiObject:
        """JSON patch (RFC 6902). Raises `PatchRefused`."""

    def delete(self, resource: Resource, name: str, *, namespace: str = "", version: str = "", uid: str = "") -> None:
        """Of that version and UID; "" is any. Raises `ObjectChanged`, also when it was gone already."""

    def list(
        self, resource: Resource, *, namespace: str = "", labels: Mapping[str, str] | None = None
    ) -> Sequence[ApiObject]:
        """All of them, of one version of the collection, page by page: the whole, or an error."""

    def names(
        self, resource: Resource, *, namespace: str = "", labels: Mapping[str, str] | None = None
    ) -> Sequence[str]:
        """The names of all of them as the API server remembers them: cheap, and perhaps not those of this moment.

        To know where to look, never to conclude that something is not there.
        """

    def watch(
        self,
        resource: Resource,
        *,
        namespace: str = "",
        labels: Mapping[str, str] | None = None,
        on_change: Callable[[ApiObject], None],
        on_gone: Callable[[ApiObject], None],
        on_listed: Callable[[str], None] = lambda _version: None,
        since: str = "",
    ) -> Watching:
        """Tells of every object there is, and from then on of every change; `on_gone` only of what is proven gone,
        with its last known body, or an empty one where just its absence from a list tells of its end. `on_listed`
        follows each complete list, whose version it gets. With `since`, a version, the first list is what there was
        then, so that no change from then on is missed; `on_listed` tells another version when the API server no longer
        knows that one. The version "0" is whichever the API server has in memory, which costs it least: it may be a
        little old.
        """


class Devices(Protocol):
    """Which devices the kubelet gave a pod."""

    def of_pod(self, ref: PodRef, uid: str) -> Mapping[str, Sequence[str]]:
        """Resource name to device IDs, sorted. Raises `CniError` when the kubelet cannot be asked."""


# --- wiring ------------------------------------------------------------------------------------------------------


class Delegates(Protocol):
    """Plugins run by another plugin (CNI SPEC §4), such as its IPAM: in-process when ours, else from CNI_PATH."""

    def add(self, plugin_type: str, conf: NetConf, attachment: Attachment) -> Result: ...
    def delete(self, plugin_type: str, conf: NetConf, attachment: Attachment) -> None: ...
    def check(self, plugin_type: str, conf: NetConf, attachment: Attachment) -> None: ...
    def gc(self, plugin_type: str, conf: NetConf, attachment: Attachment) -> None: ...
    def status(self, plugin_type: str, conf: NetConf, attachment: Attachment) -> None: ...
    def link_kind(self, plugin_type: str) -> str:
        """The kind of link that a plugin of ours makes under the attachment's own name, and removes at DEL; "" for a
        plugin that makes none, and for any foreign one.
        """

    def adapted(self, *, exec_types: Collection[str] = (), cluster: Cluster | None = None) -> Delegates:
        """The same plugins for one request: these types executed too, ours asking `cluster` where it is given."""


def ignore(_attach: Attach) -> None:
    """For whoever does not count attaches."""


class Shells(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a plugin may act on. Built by the programs; `open_*` connect on first use."""

    host: Host
    probe: Probe
    clock: Clock
    files: Files
    delegates: Delegates
    open_allocations: Callable[[str | None], AllocationStore]  # argument: the configured path, None for the default
    open_file_allocations: Callable[[str, str], FileAllocations]  # (data directory, network name)
    cluster: Cluster | None = None
    node: str = ""
    on_attach: Callable[[Attach], None] = ignore  # R16; must not wait


class Plugin(Protocol):
    """What `plugins.registry` gives for a type: one module with these six functions.

    `add` leaves nothing behind when it raises. `delete` is idempotent and succeeds when the namespace, the
    interface or the allocation is gone. `check` raises `Drift`. `gc` removes what belongs to attachments not in
    `conf.valid_attachments`. `status` raises `PluginNotAvailable`. IPAM plugins return a result without interfaces.
    """

    TYPE: str

    def add(self, conf: NetConf, attachment: Attachment, shells: Shells) -> Result: ...
    def delete(self, conf: NetConf, attachment: Attachment, shells: Shells) -> None: ...
    def check(self, conf: NetConf, attachment: Attachment, shells: Shells) -> None: ...
    def gc(self, conf: NetConf, attachment: Attachment, shells: Shells) -> None: ...
    def status(self, conf: NetConf, attachment: Attachment, shells: Shells) -> None: ...
