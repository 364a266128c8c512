"""One network more for a container that runs, or one less: upstream's `/delegate`. I/O: through the context's shells.

No annotation is read or written, and nothing is remembered but the result.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from homeport.cni import conflists
from homeport.metaplugin import attaching
from homeport.metaplugin.contexts import Context
from homeport.model.errors import InvalidNetns, LinkExists
from homeport.model.results import Result
from homeport.multinet import requests, selections
from homeport.multinet.delegates import Delegate
from homeport.multinet.requests import ResolvedNetwork
from homeport.runtime import chaining

_PLACE = "interfaceAttributes"


def add(context: Context, conf: Mapping[str, Any], attributes: Mapping[str, Any]) -> Result:
    """Attaches the container under the interface's name that it is called with, or leaves nothing."""
    delegate = _delegate(context, conf, attributes)
    attached = context.attached(delegate)
    netns = _netns(context, "ADD")
    with attaching.named(context, delegate):
        if context.shells.host.link(delegate.ifname, netns) is not None:
            raise LinkExists(f'make interface "{delegate.ifname}" in {netns}: found one of that name, expected none')
        return chaining.add(
            attached.network,
            attached.attachment,
            context.shells,
            cache=context.cache,
            capability_args=attached.capability_args,
        )


def delete(context: Context, conf: Mapping[str, Any], attributes: Mapping[str, Any]) -> None:
    """Idempotent."""
    delegate = _delegate(context, conf, attributes)
    attached = context.attached(delegate)
    with attaching.named(context, delegate):
        chaining.delete(
            attached.network,
            attached.attachment,
            context.shells,
            cache=context.cache,
            capability_args=attached.capability_args,
        )


def check(context: Context, conf: Mapping[str, Any], attributes: Mapping[str, Any]) -> None:
    """Raises `Drift`."""
    _netns(context, "CHECK")
    delegate = _delegate(context, conf, attributes)
    attached = context.attached(delegate)
    with attaching.named(context, delegate):
        chaining.check(
            attached.network,
            attached.attachment,
            context.shells,
            cache=context.cache,
            capability_args=attached.capability_args,
        )


def status(context: Context, conf: Mapping[str, Any]) -> None:
    """Whether the network could be attached to now."""
    chaining.status(conflists.parse(conf), context.shells, path=context.runtime.path)


def _delegate(context: Context, conf: Mapping[str, Any], attributes: Mapping[str, Any]) -> Delegate:
    network = conflists.complete(conflists.parse(conf), ())
    asked = {key: attributes[key] for key in ("ips", "mac", "cni-args") if key in attributes}
    own = {"namespace": "hotplug", "name": "hotplug", "interface": context.runtime.ifname}
    return requests.delegate_of(
        ResolvedNetwork(name=network.name, network=network, selection=selections.decode({**own, **asked}, _PLACE)),
        1,
        container_args=context.runtime.args,
        runtime_config={},
        main_ifname=context.runtime.ifname,
        unhonoured=context.settings.unhonoured,
    )


def _netns(context: Context, command: str) -> str:
    if not context.runtime.netns_path:
        raise InvalidNetns(f"{command}: network namespace missing, expected its path")
    return context.runtime.netns_path
