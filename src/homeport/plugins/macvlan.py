"""The macvlan plugin: an interface with a MAC address of its own on a master link. Acts through the shells.

Names and defaults are those of the reference plugin.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from homeport.cni.invocations import Attachment
from homeport.cni.netconfs import NetConf, decode_keys
from homeport.model.addresses import MacAddress, parse_mac
from homeport.model.errors import InvalidNetConf, KernelRefused, TryAgainLater
from homeport.model.results import Result
from homeport.plugins import delegation, interfaces, stacked
from homeport.plugins.stacked import Stacking
from homeport.ports import Link, Shells

TYPE = "macvlan"
_TEARDOWN_SECONDS = 5.0
_TEARDOWN_POLL_SECONDS = 0.01


class _Keys(msgspec.Struct, frozen=True, kw_only=True):
    master: str = ""
    mode: Literal["", "bridge", "private", "vepa", "passthru"] = ""
    mtu: int = 0
    mac: str = ""
    link_in_container: bool = msgspec.field(name="linkInContainer", default=False)
    bcqueuelen: Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)] = 0


class MacvlanConf(msgspec.Struct, frozen=True, kw_only=True):
    """What the plugin is asked for. `mac` None leaves it to the kernel, or to the address that brings one."""

    stacking: Stacking
    mac: MacAddress | None
    bc_queue_len: int | None


def parse(conf: NetConf, attachment: Attachment) -> MacvlanConf:
    """Raises `InvalidNetConf`, naming the key."""
    keys = decode_keys(conf.raw, _Keys)
    return MacvlanConf(
        stacking=Stacking(
            kind=TYPE,
            master=keys.master,
            mode=keys.mode or "bridge",
            mtu_bytes=keys.mtu,
            link_in_container=keys.link_in_container,
        ),
        mac=_mac(keys, conf, attachment),
        bc_queue_len=keys.bcqueuelen or None,
    )


def add(conf: NetConf, attachment: Attachment, shells: Shells) -> Result:
    """Without `ipam` the interface is set up with no address. Whatever fails, nothing is left behind."""
    wanted, netns, host = parse(conf, attachment), interfaces.namespace(attachment), shells.host
    with host.operation():
        master = stacked.find_master(wanted.stacking, attachment, host)
        link = host.create_macvlan(
            attachment.ifname,
            netns=netns,
            parent=master.name,
            parent_netns=wanted.stacking.master_netns(attachment),
            mode=wanted.stacking.mode,
            mtu_bytes=wanted.stacking.mtu_bytes or None,
            mac=wanted.mac,
            bc_queue_len=wanted.bc_queue_len,
        )
        assigned = delegation.request(conf, attachment, shells) if delegation.ipam_type(conf) else Result()
        moving = None if wanted.mac else delegation.moving_mac(conf, attachment, shells)
        if moving is not None and moving != link.mac:
            link = _take_mac(link.name, netns, moving, shells)
        delegation.note_mac(conf, attachment, shells, link.mac)
        result = stacked.result_of(link, attachment, assigned, conf.dns)
        interfaces.configure(host, link.name, netns, result)
        return result


def delete(conf: NetConf, attachment: Attachment, shells: Shells) -> None:
    """The master need not exist any more."""
    stacked.delete(conf, attachment, shells, kind=TYPE)


def check(conf: NetConf, attachment: Attachment, shells: Shells) -> None:
    """Raises `Drift`."""
    stacked.check(conf, attachment, shells, parse(conf, attachment).stacking)


def gc(conf: NetConf, attachment: Attachment, shells: Shells) -> None:
    """The interfaces went with their namespaces; what may be left over is IPAM's."""
    delegation.gc(conf, attachment, shells)


def status(conf: NetConf, attachment: Attachment, shells: Shells) -> None:
    """Raises `PluginNotAvailable`."""
    stacked.status(conf, attachment, shells, parse(conf, attachment).stacking)


def _take_mac(name: str, netns: str, mac: MacAddress, shells: Shells) -> Link:
    """Waits for the link that had the MAC before: the kernel takes a namespace down some time after its path is gone.

    Until then it refuses a second link with that MAC on one master, at the latest when it is set up.
    """
    end = shells.clock.monotonic() + _TEARDOWN_SECONDS
    while True:
        try:
            return shells.host.set_link(name, netns, mac=mac, up=True)
        except KernelRefused as e:
            if not e.details.startswith("EADDRINUSE"):
                raise
            if shells.clock.monotonic() > end:
                raise TryAgainLater(f'give "{name}" in {netns} the MAC {mac}: another interface still has it') from e
        shells.clock.sleep(_TEARDOWN_POLL_SECONDS)


def _mac(keys: _Keys, conf: NetConf, attachment: Attachment) -> MacAddress | None:
    """The runtime's capability argument goes before CNI_ARGS, and both before the configuration."""
    for key, found in (
        ("runtimeConfig.mac", conf.runtime_config.get("mac")),
        ("CNI_ARGS MAC", attachment.args.get("MAC")),
        ("mac", keys.mac),
    ):
        if not found:
            continue
        try:
            return parse_mac(str(found))
        except ValueError as e:
            raise InvalidNetConf(f'key "{key}": found "{found}", expected a MAC such as 0a:58:0a:00:00:01') from e
    return None
