"""The kernel: links, addresses, routes, rules, and whether anybody answers for an address."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import msgspec

from homeport.model.addresses import Family, IPAddress, IPInterface, IPNetwork, MacAddress


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
