"""The file that remembers a container's networks, in Multus's format. No I/O.

A JSON array in the order of attaching, one object a network, the first being the pod's default network. `Bytes` holds
the configuration. Beside Multus's keys, which let it delete our pods, stands one of ours, `homeport`, with what Multus
forgets; a file without it was written by Multus, and what is missing is worked out as Multus does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from homeport.cni import conflists, documents
from homeport.cni.conflists import ConfList
from homeport.model.errors import CniError, DecodeFailure
from homeport.multinet import devices, requests, selections
from homeport.multinet.delegates import Delegate
from homeport.multinet.selections import NetworkSelection

_KEPT_BY_MULTUS = frozenset(
    {"portMappings", "bandwidth", "ips", "mac", "infinibandGUID", "deviceID", "CNIDeviceInfoFile"}
)
_WHAT = "networks of container"
_NONE: Mapping[str, Any] = {}


class _Own(msgspec.Struct, rename="camel", omit_defaults=True):
    """What we know beyond Multus. `args` keep their order."""

    ifname: str
    args: list[tuple[str, str]] = []
    capability_args: dict[str, Any] = {}
    selection: dict[str, Any] | None = None


class _Args(msgspec.Struct):
    cni: dict[str, Any] = {}


class _ChangedPlugin(msgspec.Struct):
    """What Multus puts into a plugin."""

    device_id: str = msgspec.field(name="deviceID", default="")
    args: _Args = msgspec.field(default_factory=_Args)


class _Changed(msgspec.Struct):
    plugins: list[_ChangedPlugin] = []


class _LegacyPlugin(msgspec.Struct):
    config: bytes = msgspec.field(name="Bytes")


class _LegacyList(msgspec.Struct):
    """libcni's own view of a list, which Multus 4.2 and 4.3 wrote: the only place with all keys of its plugins."""

    plugins: list[_LegacyPlugin] = msgspec.field(name="Plugins", default_factory=list)
    config: bytes = msgspec.field(name="Bytes", default=b"")


class _Entry(msgspec.Struct, kw_only=True):
    """One network, keys in Multus's order and spelling."""

    conf: dict[str, Any] = msgspec.field(name="Conf", default_factory=dict)
    conf_list: dict[str, Any] = msgspec.field(name="ConfList", default_factory=dict)
    legacy: _LegacyList | None = msgspec.field(name="CNINetworkConfigList", default=None)
    name: str = msgspec.field(name="Name", default="")
    ifname: str = msgspec.field(name="ifnameRequest", default="")
    mac: str = msgspec.field(name="macRequest", default="")
    infiniband_guid: str = msgspec.field(name="infinibandGUIDRequest", default="")
    ips: list[str] = msgspec.field(name="ipRequest", default_factory=list)
    default_route: list[str] | None = msgspec.field(name="default-route", default=None)
    drops_ipv4: bool = msgspec.field(name="IsFilterV4Gateway", default=False)
    drops_ipv6: bool = msgspec.field(name="IsFilterV6Gateway", default=False)
    device_id: str = msgspec.field(name="deviceID", default="")
    resource_name: str = msgspec.field(name="resourceName", default="")
    config: bytes = msgspec.field(name="Bytes", default=b"")
    homeport: _Own | None = None


def encode(delegates: Sequence[Delegate]) -> bytes:
    """The file's contents; the first delegate is the main one."""
    return msgspec.json.encode([_encoded(delegate) for delegate in delegates])


def decode(
    contents: bytes,
    *,
    container_id: str,
    main_ifname: str,
    container_args: Mapping[str, str] = _NONE,
    runtime_config: Mapping[str, Any] = _NONE,
) -> tuple[Delegate, ...]:
    """The delegates, at least one. What the runtime says of the container completes a file that Multus wrote.

    Raises `DecodeFailure` for whatever else the bytes are: a file that cannot be read says nothing about networks.
    """
    listed = documents.decode(contents, _WHAT)
    if not isinstance(listed, list):
        raise DecodeFailure(f"decode {_WHAT}: found {documents.shown(listed)}, expected a list of networks")
    if not listed:
        raise DecodeFailure(f"decode {_WHAT}: found an empty list, expected the pod's default network at least")
    multus = _Multus(container_id, main_ifname, container_args, runtime_config)
    found = []
    for index, item in enumerate(listed):
        try:
            entry = documents.convert(item, _Entry, error=DecodeFailure)
            found.append(_own_delegate(item, entry, index) if entry.homeport else multus.delegate(entry, index))
        except CniError as error:
            raise DecodeFailure(f"decode {_WHAT}: network {index}: {error.msg}", error.details) from error
    return tuple(found)


def _encoded(delegate: Delegate) -> Mapping[str, Any]:
    selection = delegate.selection
    asked = selection.default_route if selection else None
    # Of the default network only a name that was asked for is a request; Multus knows CNI_IFNAME by itself.
    ifname = delegate.ifname if not delegate.main or (selection and selection.ifname) else ""
    entry = _Entry(
        conf={"cniVersion": "", "name": "", "type": "", "ipam": {}, "dns": {}},
        conf_list={
            "cniVersion": delegate.network.cni_version,
            "name": delegate.network.name,
            "plugins": [{"type": plugin["type"]} for plugin in delegate.network.plugins],
        },
        name=delegate.name,
        ifname=ifname,
        mac=(selection.mac if selection else None) or "",
        infiniband_guid=(selection.infiniband_guid if selection else None) or "",
        ips=[str(ip) for ip in selection.ips] if selection else [],
        default_route=None if asked is None else [str(ip) for ip in asked],
        drops_ipv4=4 in delegate.drops_default_routes,
        drops_ipv6=6 in delegate.drops_default_routes,
        device_id=delegate.device_id,
        resource_name=delegate.resource_name,
        config=delegate.network.raw,
        homeport=_Own(
            ifname=delegate.ifname,
            args=list(delegate.args.items()),
            capability_args=dict(delegate.capability_args),
            selection=selections.encode(selection) if selection else None,
        ),
    )
    wire: Mapping[str, Any] = msgspec.to_builtins(entry)
    # Multus leaves out what is empty too, except a default-route that is asked for and empty.
    return {k: v for k, v in wire.items() if v is not None and v != "" and (v != [] or k == "default-route")}


def _own_delegate(item: Mapping[str, Any], entry: _Entry, index: int) -> Delegate:
    own = entry.homeport
    assert own is not None
    written = item["homeport"]  # decoding drops keys that are null, which a plugin may read differently
    return Delegate(
        name=entry.name,
        network=_network(entry),
        ifname=own.ifname,
        main=index == 0,
        selection=selections.decode(written["selection"], "selection") if own.selection else None,
        args=dict(own.args),
        capability_args=written.get("capabilityArgs") or {},
        resource_name=entry.resource_name,
        device_id=entry.device_id,
        drops_default_routes=_drops(entry),
    )


class _Multus(msgspec.Struct, frozen=True):
    """What Multus would run a delegate with that it does not write down."""

    container_id: str
    main_ifname: str
    container_args: Mapping[str, str]
    runtime_config: Mapping[str, Any]

    def delegate(self, entry: _Entry, index: int) -> Delegate:
        main = index == 0
        selection = _selection(entry)
        ifname = entry.ifname or requests.ifname_of(None, index, self.main_ifname if main else None)
        asked = selections.capability_args(selection) if selection and not main else {}
        if entry.device_id and not main:
            asked["deviceID"] = entry.device_id
        capability_args = {k: v for k, v in self.runtime_config.items() if k in _KEPT_BY_MULTUS} | asked
        if capability_args.get("deviceID"):
            capability_args[devices.CAPABILITY] = devices.attachment_file(entry.name, self.container_id, ifname)
        return Delegate(
            name=entry.name,
            network=_network(entry),
            ifname=ifname,
            main=main,
            selection=selection,
            args=requests.args_of(self.container_args, selection, main=True),  # Multus withholds nothing
            capability_args=capability_args,
            resource_name=entry.resource_name,
            device_id=entry.device_id,
            drops_default_routes=_drops(entry),
        )


def _selection(entry: _Entry) -> NetworkSelection | None:
    """What the pod asked for; None for a network that the cluster's configuration named.

    The interface's name is not judged: Multus writes the file before the kernel has refused a name.
    """
    namespace, slash, name = entry.name.partition("/")
    if not slash:
        return None
    asked = {
        "name": name,
        "namespace": namespace,
        "ips": entry.ips,
        "mac": entry.mac,
        "infiniband-guid": entry.infiniband_guid,
        "deviceID": "" if entry.resource_name else entry.device_id,
        "default-route": entry.default_route,
    }
    return msgspec.structs.replace(selections.decode(asked, "selection"), ifname=entry.ifname or None)


def _drops(entry: _Entry) -> frozenset[int]:
    return frozenset(family for family, drops in ((4, entry.drops_ipv4), (6, entry.drops_ipv6)) if drops)


def _network(entry: _Entry) -> ConfList:
    """A list where `ConfList` has plugins, else a single configuration, whatever else its keys suggest."""
    if entry.legacy is not None and entry.legacy.plugins:
        return _legacy_network(entry, entry.legacy)
    whole = documents.decode_object(entry.config, "Bytes")
    if entry.conf_list.get("plugins"):
        network = conflists.parse(entry.config)
    else:
        network = conflists.parse({key: value for key, value in whole.items() if key != "plugins"})
    if not network.plugins:
        raise DecodeFailure(f'Bytes: found no plugin in network "{network.name}", expected one at least')
    return network


def _legacy_network(entry: _Entry, legacy: _LegacyList) -> ConfList:
    """In these files `Bytes` has lost all keys of the plugins but the general ones, yet alone has what was put in."""
    whole = documents.decode_object(legacy.config, "CNINetworkConfigList.Bytes")
    plugins = [documents.decode_object(plugin.config, "CNINetworkConfigList.Plugins") for plugin in legacy.plugins]
    network = conflists.parse({**whole, "plugins": plugins})
    changed = documents.convert(documents.decode_object(entry.config, "Bytes"), _Changed).plugins
    if len(changed) != len(plugins):
        raise DecodeFailure(f"Bytes: found {len(changed)} plugins, expected {len(plugins)} as in CNINetworkConfigList")
    if changed[0].device_id:
        network = devices.with_device(network, changed[0].device_id)
    return requests.with_cni_args(network, changed[0].args.cni)
