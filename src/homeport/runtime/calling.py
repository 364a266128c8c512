"""One CNI call of one plugin of ours, as an executable of it or the daemon carries it out. I/O: reads where it runs."""

from __future__ import annotations

import os

from homeport.cni.invocations import Invocation
from homeport.cni.netconfs import NetConf
from homeport.model.errors import InvalidNetns
from homeport.model.results import Result
from homeport.ports import Plugin, Shells


def call(plugin: Plugin, conf: NetConf, invocation: Invocation, shells: Shells) -> Result | None:
    """Runs the verb; only ADD has a result. VERSION is the caller's to answer."""
    attachment = invocation.attachment
    match invocation.command:
        case "ADD":
            return plugin.add(conf, attachment, shells)
        case "DEL":
            plugin.delete(conf, attachment, shells)
        case "CHECK":
            plugin.check(conf, attachment, shells)
        case "GC":
            plugin.gc(conf, attachment, shells)
        case _:
            plugin.status(conf, attachment, shells)
    return None


def refuse_own_namespace(invocation: Invocation) -> None:
    """An ADD or DEL in the namespace we run in would rework the host's own interfaces: `InvalidNetns`."""
    netns_path = invocation.attachment.netns_path
    if invocation.command not in ("ADD", "DEL") or invocation.netns_override or netns_path is None:
        return
    try:
        same = os.path.samefile(netns_path, "/proc/thread-self/ns/net")
    except OSError:
        return  # it is gone or no namespace: the plugin says which, and DEL carries on
    if same:
        raise InvalidNetns(
            f"CNI_NETNS: found the plugin's own network namespace {netns_path}, expected another",
            "set CNI_NETNS_OVERRIDE=1 to allow it",
        )
