"""The ipvlan plugin: an interface that shares its master's MAC address. Acts through the shells.

Names and defaults are those of the reference plugin. Chained behind a plugin that gave addresses, and without
`ipam`, it takes them over from prevResult, and the only interface there as its master.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from homeport.cni.invocations import Attachment
from homeport.cni.netconfs import NetConf, decode_keys
from homeport.model.errors import InvalidNetConf
from homeport.model.results import Result
from homeport.plugins import delegation, interfaces, masters, stacked
from homeport.plugins.stacked import Stacking
from homeport.ports import Shells

TYPE = "ipvlan"


class _Keys(msgspec.Struct, frozen=True, kw_only=True):
    master: str = ""
    mode: Literal["", "l2", "l3", "l3s"] = ""
    mtu: int = 0
    link_in_container: bool = msgspec.field(name="linkInContainer", default=False)


def parse(conf: NetConf) -> Stacking:
    """Raises `InvalidNetConf`, naming the key."""
    keys = decode_keys(conf.raw, _Keys)
    return Stacking(
        kind=TYPE,
        master=keys.master,
        mode=keys.mode or "l2",
        mtu_bytes=keys.mtu,
        link_in_container=keys.link_in_container,
    )


def add(conf: NetConf, attachment: Attachment, shells: Shells) -> Result:
    """Whatever fails, nothing is left behind, neither the interface nor IPAM's allocation."""
    wanted, netns, host = _chained(parse(conf), conf), interfaces.namespace(attachment), shells.host
    if not delegation.ipam_type(conf) and not _takes_over(conf):
        raise InvalidNetConf('key "ipam": missing, expected one, or addresses in prevResult')
    with host.operation():
        master = stacked.find_master(wanted, attachment, host)
        link = host.create_ipvlan(
            attachment.ifname,
            netns=netns,
            parent=master.name,
            parent_netns=wanted.master_netns(attachment),
            mode=wanted.mode,
            mtu_bytes=wanted.mtu_bytes or None,
        )
        assigned = conf.prev_result if _takes_over(conf) else delegation.request(conf, attachment, shells)
        assert assigned is not None  # _takes_over says so
        result = stacked.result_of(link, attachment, assigned, conf.dns)
        # In l3 modes a link neither asks nor answers ARP, and neighbours know the master's MAC anyway.
        interfaces.configure(host, link.name, netns, result, announce=wanted.mode == "l2")
        return result


def delete(conf: NetConf, attachment: Attachment, shells: Shells) -> None:
    """The master need not exist any more."""
    stacked.delete(conf, attachment, shells, kind=TYPE)


def check(conf: NetConf, attachment: Attachment, shells: Shells) -> None:
    """Raises `Drift`."""
    stacked.check(conf, attachment, shells, parse(conf))


def gc(conf: NetConf, attachment: Attachment, shells: Shells) -> None:
    """The interfaces went with their namespaces; what may be left over is IPAM's."""
    delegation.gc(conf, attachment, shells)


def status(conf: NetConf, attachment: Attachment, shells: Shells) -> None:
    """Raises `PluginNotAvailable`."""
    stacked.status(conf, attachment, shells, parse(conf))


def _takes_over(conf: NetConf) -> bool:
    return not delegation.ipam_type(conf) and conf.prev_result is not None and bool(conf.prev_result.ips)


def _chained(stacking: Stacking, conf: NetConf) -> Stacking:
    """With prevResult and no `master`, the interface made before it is the master."""
    if stacking.master or conf.prev_result is None:
        return stacking
    return msgspec.structs.replace(stacking, master=masters.chained_master(conf.prev_result))
