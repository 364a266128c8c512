"""From networks and wishes to what each network's plugins are run with. No I/O.

The order of networks is the pod's: its default network, the cluster's further ones, those of its annotation, the
auxiliary chain. Interfaces are numbered over all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from homeport.cni import conflists, documents
from homeport.cni.conflists import ConfList
from homeport.model.errors import InvalidNetConf
from homeport.multinet import capabilities, default_routes, devices, selections
from homeport.multinet.delegates import Delegate
from homeport.multinet.selections import NetworkSelection
from homeport.multinet.settings import Settings

_POD_ARGS = ("K8S_POD_NAMESPACE", "K8S_POD_NAME", "K8S_POD_INFRA_CONTAINER_ID", "K8S_POD_UID")
_OF_ONE_INTERFACE = frozenset({"IP", "MAC", "GATEWAY", "GUID"})


class ResolvedNetwork(msgspec.Struct, frozen=True, kw_only=True):
    """A network that was found. `name` is what status and messages call it; `main`: the pod's default network.

    `selection` is None for one that no pod asked for. `resource_name` is the resource its devices are of, or "".
    """

    name: str
    network: ConfList
    selection: NetworkSelection | None = None
    main: bool = False
    resource_name: str = ""


def delegates_of(
    resolved: Sequence[ResolvedNetwork],
    *,
    container_args: Mapping[str, str],
    runtime_config: Mapping[str, Any],
    main_ifname: str,
    settings: Settings,
    devices: Mapping[str, Sequence[str]],
) -> tuple[Delegate, ...]:
    """All networks of a pod, in order. `container_args`, `runtime_config` and `main_ifname` are the runtime's own.

    `devices` are the kubelet's, by resource. Raises `InvalidNetConf` for what cannot be made: a request that no plugin
    honours, two interfaces of one name, two gateways of one family.
    """
    device_ids = _devices_of(resolved, devices)
    drops = default_routes.plan([(r.name, r.selection.default_route if r.selection else None) for r in resolved])
    delegates = tuple(
        msgspec.structs.replace(
            delegate_of(
                network,
                index,
                container_args=container_args,
                runtime_config=runtime_config,
                main_ifname=main_ifname,
                device_id=device_id,
                unhonoured=settings.unhonoured,
            ),
            drops_default_routes=dropped,
        )
        for index, (network, device_id, dropped) in enumerate(zip(resolved, device_ids, drops, strict=True))
    )
    require_own_names(delegates)
    return delegates


def delegate_of(
    resolved: ResolvedNetwork,
    index: int,
    *,
    container_args: Mapping[str, str],
    runtime_config: Mapping[str, Any],
    main_ifname: str,
    device_id: str = "",
    unhonoured: str = "Error",
) -> Delegate:
    """One network, number `index` of the pod's; `device_id` is the device assigned to it, if one was."""
    selection, network = resolved.selection, resolved.network
    if selection is not None:
        if device_id:
            selection = msgspec.structs.replace(selection, device_id=None)  # the kubelet's goes before a wish
        if unhonoured == "Error":
            capabilities.require_honoured(resolved.name, network, selection)
        network = with_cni_args(network, selection.cni_args)
    if device_id:
        network = devices.with_device(network, device_id)
    return Delegate(
        name=resolved.name,
        network=network,
        ifname=ifname_of(selection, index, main_ifname if resolved.main else None),
        main=resolved.main,
        selection=selection,
        args=args_of(container_args, selection, main=resolved.main),
        capability_args=capability_args_of(runtime_config if resolved.main else {}, selection, device_id),
        resource_name=resolved.resource_name,
        device_id=device_id or (selection.device_id if selection else None) or "",
    )


def ifname_of(selection: NetworkSelection | None, index: int, main_ifname: str | None = None) -> str:
    """The name asked for; else the runtime's for the default network (`main_ifname`), `net<index>` for any other."""
    return (selection.ifname if selection else None) or main_ifname or f"net{index}"


def args_of(container_args: Mapping[str, str], selection: NetworkSelection | None, *, main: bool) -> Mapping[str, str]:
    """CNI_ARGS of one network: who the pod is, then the runtime's further ones, then what is asked for.

    An address, a MAC or a gateway that the runtime gives is meant for the default network's interface.
    """
    pod = {key: container_args[key] for key in _POD_ARGS if key in container_args}
    asked = selections.args(selection) if selection else {}
    withheld = {"IgnoreUnknown", *pod, *asked} | (set() if main else _OF_ONE_INTERFACE)
    others = {key: value for key, value in container_args.items() if key not in withheld}
    return {"IgnoreUnknown": "true", **pod, **others, **asked}


def capability_args_of(
    runtime_config: Mapping[str, Any], selection: NetworkSelection | None, device_id: str
) -> Mapping[str, Any]:
    """What plugins that declare the capability find in `runtimeConfig`: the selection's word goes before."""
    asked = selections.capability_args(selection) if selection else {}
    return {**runtime_config, **asked, **({"deviceID": device_id} if device_id else {})}


def with_cni_args(network: ConfList, cni_args: Mapping[str, Any]) -> ConfList:
    """The network with a selection's `cni-args` in `args.cni` of every plugin, where they win over its own."""
    if not cni_args:
        return network
    return conflists.with_plugins(network, [_with_cni_args(plugin, cni_args, network) for plugin in network.plugins])


def _with_cni_args(plugin: Mapping[str, Any], cni_args: Mapping[str, Any], network: ConfList) -> Mapping[str, Any]:
    args = plugin.get("args") or {}
    own = (args.get("cni") or {}) if isinstance(args, dict) else None
    if not isinstance(own, dict):
        raise InvalidNetConf(
            f'key "args" of plugin "{plugin["type"]}" of network "{network.name}": '
            f'found {documents.shown(args)}, expected an object such as {{"cni": {{}}}}'
        )
    return {**plugin, "args": {**args, "cni": {**own, **cni_args}}}


def _devices_of(resolved: Sequence[ResolvedNetwork], given: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    return devices.assign([network.resource_name for network in resolved], given)


def require_own_names(delegates: Sequence[Delegate]) -> None:
    """Raises `InvalidNetConf` when two networks of the pod would make an interface of one name."""
    taken: dict[str, Delegate] = {}
    for delegate in delegates:
        first = taken.setdefault(delegate.ifname, delegate)
        if first is not delegate:
            raise InvalidNetConf(
                f'attach network "{delegate.name}": found interface "{delegate.ifname}" taken by network '
                f'"{first.name}", expected a name of its own'
            )
