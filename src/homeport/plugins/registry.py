"""Which plugins are ours: type to module, imported on first use so that one plugin's process loads one plugin."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from homeport.ports import Plugin

MODULES = {
    "bridge": "homeport.plugins.bridge",
    "host-local": "homeport.plugins.host_local",
    "ipvlan": "homeport.plugins.ipvlan",
    "loopback": "homeport.plugins.loopback",
    "macvlan": "homeport.plugins.macvlan",
    "passthru": "homeport.plugins.passthru",
    "sbr": "homeport.plugins.sbr",
    "static": "homeport.plugins.static",
    "whereabouts": "homeport.plugins.whereabouts",
}

LINK_KINDS = {"bridge": "veth", "ipvlan": "ipvlan", "macvlan": "macvlan"}
"""The kind of link that a plugin makes under the attachment's name. Its DEL finds the link removed already as well."""


def find(plugin_type: str) -> Plugin | None:
    """The plugin of this type, or None when it is not one of ours."""
    module = MODULES.get(plugin_type)
    return cast(Plugin, import_module(module)) if module else None
