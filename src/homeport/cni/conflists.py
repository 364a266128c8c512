"""A network: an ordered list of plugins. No I/O.

CNI SPEC 1.1.0 §1 "Network configuration objects"; libcni's own rules where the spec is silent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from homeport.cni import documents, netconfs, versions
from homeport.model.errors import InvalidNetConf


class ConfList(msgspec.Struct, frozen=True, kw_only=True):
    """`plugins` are the objects in execution order of ADD; `raw` is the text as it came, for the cache."""

    cni_version: str
    name: str
    plugins: tuple[Mapping[str, Any], ...]
    disable_check: bool = False
    disable_gc: bool = False
    load_only_inlined_plugins: bool = False
    raw: bytes = b""


class _WireList(msgspec.Struct, rename="camel"):
    cni_version: str = ""
    cni_versions: list[str] = []
    name: str = ""
    plugins: list[dict[str, Any]] | None = None
    disable_check: bool | str = False
    disable_gc: bool | str = msgspec.field(name="disableGC", default=False)
    load_only_inlined_plugins: bool | str = False


def parse(raw: bytes | Mapping[str, Any], *, default_name: str = "") -> ConfList:
    """A list, or a single configuration (deprecated since 1.0.0) made a list of one.

    `default_name` is what an object without a name is called, as for a NetworkAttachmentDefinition; `raw` of the
    result then carries it. A list without the key `plugins` comes out empty, to be filled by `complete`; one whose
    `plugins` is empty is an error. Raises `DecodeFailure`, `InvalidNetConf` naming the key, `IncompatibleVersion`.
    """
    whole = documents.decode_object(raw, "network configuration") if isinstance(raw, bytes) else raw
    text = raw if isinstance(raw, bytes) else documents.write(raw)
    if default_name and not whole.get("name"):
        whole = {**whole, "name": default_name}
        text = documents.write(whole)
    if "type" in whole and "plugins" not in whole:
        return _of_single(whole)
    wire = netconfs.decode_keys(whole, _WireList)
    only_inlined = _flag(wire.load_only_inlined_plugins, "loadOnlyInlinedPlugins")
    if wire.plugins is None and only_inlined:
        raise InvalidNetConf('key "plugins": missing, expected a list as "loadOnlyInlinedPlugins" is true')
    if wire.plugins is not None and not wire.plugins:
        raise InvalidNetConf('key "plugins": found an empty list, expected one plugin at least')
    # decode_keys drops null keys, which a plugin may read differently: it is to receive its object as it was written.
    plugins: tuple[Mapping[str, Any], ...] = tuple(whole["plugins"]) if wire.plugins else ()
    _require_types(plugins, "plugins")
    return ConfList(
        cni_version=_highest(wire.cni_version, wire.cni_versions),
        name=netconfs.require_name(wire.name),
        plugins=plugins,
        disable_check=_flag(wire.disable_check, "disableCheck"),
        disable_gc=_flag(wire.disable_gc, "disableGC"),
        load_only_inlined_plugins=only_inlined,
        raw=text,
    )


def complete(network: ConfList, files: Iterable[tuple[str, bytes]]) -> ConfList:
    """The list with the plugins of its directory appended: (path, contents) of each `*.conf`, in order of their names.

    `raw` becomes the whole list, so that whoever reads it from the cache sees every plugin with all its keys.
    Raises `InvalidNetConf` when there is no plugin in the end.
    """
    added: list[Mapping[str, Any]] = []
    if not network.load_only_inlined_plugins:
        for path, contents in files:
            plugin = documents.decode_object(contents, f"plugin configuration {path}")
            _require_types([plugin], path)
            added.append(plugin)
    plugins = (*network.plugins, *added)
    if not plugins:
        raise InvalidNetConf(f'network "{network.name}": found no plugin, expected one in the list or its directory')
    return with_plugins(network, plugins) if added else network


def with_plugins(network: ConfList, plugins: Iterable[Mapping[str, Any]]) -> ConfList:
    """The same network with other plugin objects, in `raw` as well."""
    listed = tuple(plugins)
    raw = {**documents.decode_object(network.raw, "network configuration"), "plugins": listed}
    return msgspec.structs.replace(network, plugins=listed, raw=documents.write(raw))


def _of_single(whole: Mapping[str, Any]) -> ConfList:
    conf = netconfs.parse(whole)
    listed = {"cniVersion": conf.cni_version, "name": conf.name, "plugins": [whole]}
    return ConfList(cni_version=conf.cni_version, name=conf.name, plugins=(whole,), raw=documents.write(listed))


def _highest(version: str, listed: Sequence[str]) -> str:
    """The highest version that both sides know; those newer than ours are ignored while an older one is there."""
    known = [v for v in listed if not versions.newer_than_ours(v)]
    if version and not (known and versions.newer_than_ours(version)):
        known.append(version)
    if not known and listed:
        version = max(listed, key=versions.ordinal)
    return versions.require_supported(max(known, key=versions.ordinal) if known else version)


def _flag(value: bool | str, key: str) -> bool:
    """Booleans, also written as strings in any case: libcni's own leniency."""
    if isinstance(value, bool):
        return value
    if value.lower() not in ("true", "false"):
        raise InvalidNetConf(f'key "{key}": found {documents.shown(value)}, expected true or false')
    return value.lower() == "true"


def _require_types(plugins: Sequence[Mapping[str, Any]], place: str) -> None:
    for n, plugin in enumerate(plugins):
        key = f"{place}[{n}].type" if len(plugins) > 1 or place == "plugins" else f"{place}: type"
        netconfs.require_type(plugin.get("type", ""), key=key)
