"""IPAM's part of an attachment: asking for addresses, giving them back. Acts through `Shells.delegates` only.

CNI SPEC 1.1.0 §4. A configuration without `ipam.type` has no IPAM, and every function here then does nothing.
"""

from __future__ import annotations

from homeport.cni.invocations import Attachment
from homeport.cni.netconfs import NetConf
from homeport.model.addresses import MacAddress
from homeport.model.errors import InvalidNetConf
from homeport.model.results import Result
from homeport.ports import Shells

_STICKY = "whereabouts"  # the IPAM plugin whose addresses may belong to a replica


def ipam_type(conf: NetConf) -> str:
    """The type of the IPAM plugin, "" when the configuration asks for no addresses."""
    return str(conf.ipam.get("type") or "") if conf.ipam else ""


def request(conf: NetConf, attachment: Attachment, shells: Shells) -> Result:
    """IPAM ADD. To be called inside `host.operation()`: what it gave goes back when that operation is undone.

    Raises `InvalidNetConf` when IPAM answers without any address, since there is nothing to configure then.
    """
    plugin_type = ipam_type(conf)
    result = shells.delegates.add(plugin_type, conf, attachment)
    # Only after it succeeded: a refused ADD gave nothing, and what this container has from before is not ours to free.
    shells.host.on_undo(lambda: shells.delegates.delete(plugin_type, conf, attachment))
    if not result.ips:
        raise InvalidNetConf(
            f'key "ipam": plugin "{plugin_type}" gave no address to "{attachment.ifname}", expected at least one'
        )
    return result


def give_back(conf: NetConf, attachment: Attachment, shells: Shells) -> None:
    """IPAM DEL."""
    if plugin_type := ipam_type(conf):
        shells.delegates.delete(plugin_type, conf, attachment)


def moving_mac(conf: NetConf, attachment: Attachment, shells: Shells) -> MacAddress | None:
    """R9: the MAC that moves with a replica's address. To be asked after `request`, and None for all others."""
    if ipam_type(conf) != _STICKY:
        return None
    from homeport.plugins import claiming  # only where whereabouts is loaded anyway

    return claiming.sticky_mac(conf, attachment, shells)


def note_mac(conf: NetConf, attachment: Attachment, shells: Shells, mac: MacAddress | None) -> None:
    """R9: notes the MAC the interface now has, so that it can move next time."""
    if ipam_type(conf) != _STICKY or mac is None:
        return
    from homeport.plugins import claiming

    claiming.record_mac(conf, attachment, shells, mac)


def check(conf: NetConf, attachment: Attachment, shells: Shells) -> None:
    """IPAM CHECK."""
    if plugin_type := ipam_type(conf):
        shells.delegates.check(plugin_type, conf, attachment)


def gc(conf: NetConf, attachment: Attachment, shells: Shells) -> None:
    """IPAM GC. Without a list of valid attachments nothing is known to be stale, so nothing is asked for."""
    if conf.valid_attachments is None:
        return
    if plugin_type := ipam_type(conf):
        shells.delegates.gc(plugin_type, conf, attachment)


def status(conf: NetConf, attachment: Attachment, shells: Shells) -> None:
    """IPAM STATUS."""
    if plugin_type := ipam_type(conf):
        shells.delegates.status(plugin_type, conf, attachment)
