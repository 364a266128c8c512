"""What macvlan and ipvlan share: an interface stacked on a master link. Acts through the shells."""

from __future__ import annotations

from contextlib import suppress

import msgspec

from homeport.cni.invocations import Attachment
from homeport.cni.netconfs import NetConf
from homeport.model.errors import Drift, InvalidNetns, MissingLink, PluginNotAvailable
from homeport.model.results import DNS, Interface, Result
from homeport.plugins import delegation, drift, interfaces, masters
from homeport.ports import Host, Link, Shells


class Stacking(msgspec.Struct, frozen=True, kw_only=True):
    """How an interface stands on its master. `master` "" is the default route's interface."""

    kind: str
    master: str
    mode: str
    mtu_bytes: int
    link_in_container: bool

    def master_netns(self, attachment: Attachment) -> str | None:
        """Where the master is."""
        return attachment.netns_path if self.link_in_container else None


def find_master(stacking: Stacking, attachment: Attachment, host: Host) -> Link:
    """The master, proven to be there and wide enough for the mtu that is asked for."""
    master = masters.find(host, stacking.master, netns=stacking.master_netns(attachment))
    masters.check_mtu(stacking.mtu_bytes, master)
    return master


def result_of(link: Link, attachment: Attachment, assigned: Result, own_dns: DNS) -> Result:
    """The result with `link` as its only interface and every address on it; `own_dns`, where given, is its dns."""
    return Result(
        interfaces=(Interface(name=link.name, mac=link.mac, sandbox=attachment.netns_path),),
        ips=tuple(msgspec.structs.replace(ip, interface=0) for ip in assigned.ips),
        routes=assigned.routes,
        dns=own_dns or assigned.dns,
    )


def delete(conf: NetConf, attachment: Attachment, shells: Shells, *, kind: str) -> None:
    """Removes the interface, then gives its addresses back; either may be gone already.

    In this order, and not past an interface the kernel would not remove: an address still in use is not free (R1).
    An interface of another kind is not the one ADD made, so it stays.
    """
    host, netns = shells.host, attachment.netns_path
    with host.operation(undo_on_error=False):
        if netns is not None:
            with suppress(InvalidNetns):  # the interface went with its namespace
                link = host.link(attachment.ifname, netns)
                if link is not None and link.kind == kind:
                    host.delete_links([link.name], netns)
        delegation.give_back(conf, attachment, shells)


def check(conf: NetConf, attachment: Attachment, shells: Shells, stacking: Stacking) -> None:
    """Raises `Drift` for whatever is not as ADD left it, the allocation of the addresses included."""
    host, netns = shells.host, interfaces.namespace(attachment)
    prev_result = drift.require_prev_result(conf)
    with host.operation():
        delegation.check(conf, attachment, shells)
        made = drift.made_interface(prev_result, attachment)
        drift.require_namespace(host, made.name, netns)
        found = host.link(made.name, netns)
        link = drift.compare_link(found, made, kind=stacking.kind, mode=stacking.mode, netns=netns)
        if stacking.master:  # unnamed, it was the default route's interface, which may be another one by now
            _check_parent(link, stacking, attachment, host)
        wanted = interfaces.plan(drift.own_part(prev_result, made), made.name)
        drift.compare_addresses(host.addresses(made.name, netns), wanted.addresses, ifname=made.name, netns=netns)
        drift.compare_routes(
            host.routes(netns, table=None, link=made.name), wanted.routes, ifname=made.name, netns=netns
        )


def status(conf: NetConf, attachment: Attachment, shells: Shells, stacking: Stacking) -> None:
    """Raises `PluginNotAvailable` when the kernel lacks the kind, or the master that is named is not on the host."""
    host = shells.host
    with host.operation():
        if not host.supports_kind(stacking.kind):
            raise PluginNotAvailable(f"{stacking.kind}: this kernel has no such kind of link")
        if stacking.master and not stacking.link_in_container:
            try:
                masters.find(host, stacking.master, netns=None)
            except MissingLink as e:
                raise PluginNotAvailable(f"{stacking.kind}: {e.msg}", e.details) from e
        delegation.status(conf, attachment, shells)


def _check_parent(link: Link, stacking: Stacking, attachment: Attachment, host: Host) -> None:
    """A link stacked on one of its own kind really stands on that one's parent; the kernel reports it so."""
    try:
        master = find_master(stacking, attachment, host)
    except MissingLink as e:
        raise Drift(f'check "{link.name}": {e.msg}', e.details) from e
    expected = master.parent if master.kind == stacking.kind else master.index
    if link.parent != expected:
        raise Drift(
            f'check "{link.name}" in {attachment.netns_path}: found it on interface index {link.parent}, '
            f'expected {expected}, from master "{master.name}"'
        )
