"""The loopback plugin: sets the container's `lo` up. Acts through the shells.

CNI_IFNAME is ignored: a network namespace has one loopback interface.
"""

from __future__ import annotations

from contextlib import suppress

from homeport.cni.invocations import Attachment
from homeport.cni.netconfs import NetConf
from homeport.model.addresses import IPInterface
from homeport.model.errors import Drift, InvalidNetns
from homeport.model.results import Interface, IPConfig, Result
from homeport.plugins import drift, interfaces
from homeport.ports import Shells

TYPE = "loopback"
NAME = "lo"


def add(conf: NetConf, attachment: Attachment, shells: Shells) -> Result:
    """The addresses the kernel gives `lo` with its being up, or prevResult as it came."""
    host, netns = shells.host, interfaces.namespace(attachment)
    with host.operation():
        link = host.set_link(NAME, netns, up=True)
        if conf.prev_result is not None:
            return conf.prev_result
        found = host.addresses(NAME, netns)
        return Result(
            interfaces=(Interface(name=NAME, mac=link.mac, sandbox=netns),),
            ips=tuple(IPConfig(address=a.address, interface=0) for a in found),
        )


def delete(_conf: NetConf, attachment: Attachment, shells: Shells) -> None:
    """Sets `lo` down, where there still is one."""
    host, netns = shells.host, attachment.netns_path
    if netns is not None:
        with host.operation(undo_on_error=False), suppress(InvalidNetns):
            host.set_link(NAME, netns, up=False)


def check(conf: NetConf, attachment: Attachment, shells: Shells) -> None:
    """`lo` is up and has the addresses ADD reported; raises `Drift`."""
    host, netns = shells.host, interfaces.namespace(attachment)
    with host.operation():
        drift.require_namespace(host, NAME, netns)
        link = host.link(NAME, netns)
        if link is None or not link.up:
            raise Drift(f'check "{NAME}" in {netns}: found it down, expected up')
        expected = _own_addresses(conf.prev_result) if conf.prev_result else ()
        drift.compare_addresses(host.addresses(NAME, netns), expected, ifname=NAME, netns=netns)


def gc(_conf: NetConf, _attachment: Attachment, _shells: Shells) -> None:
    """Nothing outlives the namespace, so nothing can be stale."""


def status(_conf: NetConf, _attachment: Attachment, _shells: Shells) -> None:
    """Always ready: every network namespace is born with `lo`."""


def _own_addresses(prev_result: Result) -> tuple[IPInterface, ...]:
    """Chained behind another plugin prevResult is that one's, and has no `lo`."""
    own = {position for position, interface in enumerate(prev_result.interfaces) if interface.name == NAME}
    return tuple(ip.address for ip in prev_result.ips if ip.interface in own)
