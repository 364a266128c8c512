"""The plugins lint knows: what each is for, and the keys it reads. No I/O.

A plugin that is not ours and changes at its own pace is known by type alone: its keys are not judged.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import SequenceMatcher, get_close_matches
from enum import Enum

import msgspec

from homeport.lint import ipam_keys, plugin_keys
from homeport.lint.keywords import Key, free, text, words


class Role(Enum):
    """`INTERFACE` makes one, `CHAINED` changes the interface an earlier plugin made, `IPAM` stands under `ipam`."""

    INTERFACE = "interface"
    CHAINED = "chained"
    IPAM = "IPAM"


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """A plugin type. `keys` is None where they are not ours to judge; `since` is the lowest cniVersion it takes."""

    role: Role
    keys: Mapping[str, Key] | None = None
    needs_ipam: bool = False
    since: str = "0.1.0"


SHARED: Mapping[str, Key] = {
    "type": ipam_keys.TYPE,
    "name": text("The network's name; a plugin gets it from the list."),
    "cniVersion": text("Version of the CNI specification; in a list it stands at the top."),
    "capabilities": free("What the plugin takes of a pod's request, each true: ips, mac, portMappings, bandwidth."),
    "ipam": free("Who gives the addresses, and which."),
    "dns": ipam_keys.DNS,
    "args": free("Arguments of others than the runtime; `cni` holds those that plugins agree on."),
    "runtimeConfig": free("What a pod's request says; the runtime fills it in."),
    "prevResult": free("The result of the plugin before; the runtime fills it in."),
}
"""CNI SPEC 1.1.0 §1: what any plugin object may have."""

NETWORK: Mapping[str, Key] = {
    "cniVersion": text("Version of the CNI specification that results are in: 0.4.0, 1.0.0 or 1.1.0."),
    "cniVersions": words("Further versions this list may be run with; the runtime takes the highest it knows."),
    "name": text("The network's name; without it, that of the NetworkAttachmentDefinition."),
    "plugins": Key(type="array", about="The plugins, in the order in which they run."),
    # Each a boolean, or its name as a string.
    "disableCheck": Key(type="any", about="Whether the runtime never asks for CHECK."),
    "disableGC": Key(type="any", about="Whether the runtime never asks for GC."),
    "loadOnlyInlinedPlugins": Key(type="any", about="Whether plugins of files beside this one are left out."),
}
"""CNI SPEC 1.1.0 §1: the keys of a list."""


def _interface(keys: Mapping[str, Key] | None, *, needs_ipam: bool = False) -> Kind:
    return Kind(role=Role.INTERFACE, keys=keys, needs_ipam=needs_ipam)


def _chained(keys: Mapping[str, Key] | None, since: str = "0.3.0") -> Kind:
    """`since` 0.3.0, because earlier versions have no prevResult."""
    return Kind(role=Role.CHAINED, keys=keys, since=since)


def _ipam(keys: Mapping[str, Key] | None) -> Kind:
    return Kind(role=Role.IPAM, keys=keys)


KINDS: Mapping[str, Kind] = {
    "bridge": _interface(plugin_keys.BRIDGE),
    "dummy": _interface({}, needs_ipam=True),
    "host-device": _interface(plugin_keys.HOST_DEVICE),
    "ipvlan": _interface(plugin_keys.IPVLAN),
    "loopback": _interface({}),
    "macvlan": _interface(plugin_keys.MACVLAN),
    "ptp": _interface(plugin_keys.PTP, needs_ipam=True),
    "tap": _interface(plugin_keys.TAP),
    "vlan": _interface(plugin_keys.VLAN, needs_ipam=True),
    "bandwidth": _chained(plugin_keys.BANDWIDTH),
    "firewall": _chained(plugin_keys.FIREWALL, "0.4.0"),
    "portmap": _chained(plugin_keys.PORTMAP),
    "rdma": _chained(None),
    "route-override": _chained(None),
    "sbr": _chained(plugin_keys.SBR),
    "tuning": _chained(plugin_keys.TUNING),
    "vrf": _chained(plugin_keys.VRF, "0.3.1"),
    "dhcp": _ipam(ipam_keys.DHCP),
    "host-local": _ipam(ipam_keys.HOST_LOCAL),
    "static": _ipam(ipam_keys.STATIC),
    "whereabouts": _ipam(ipam_keys.WHEREABOUTS),
    "calico-ipam": _ipam(None),
    "kube-ovn-ipam": _ipam(None),
    "nv-ipam": _ipam(None),
    "spiderpool": _ipam(None),
    **{
        name: _interface(None)
        for name in (
            "accelerated-bridge",
            "aws-cni",
            "azure-vnet",
            "bond",
            "calico",
            "cilium-cni",
            "flannel",
            "homeport",
            "host-link",
            "ib-sriov",
            "ib-sriov-cni",
            "ipoib",
            "kube-ovn",
            "kuberouter",
            "multus",
            "multus-shim",
            "ovn-k8s-cni-overlay",
            "ovs",
            "ovs-cni",
            "passthru",
            "sriov",
            "userspace",
            "vpc-bridge",
            "weave-net",
        )
    },
}

_NEAR = 0.75
_LONG, _MANY = 64, 500


def nearest(word: str, known: Mapping[str, object] | tuple[str, ...]) -> str | None:
    """The one known name that `word` must be meant for; None when none is near, or several are as near."""
    folded = {_folded(name): name for name in known}
    if exact := folded.get(_folded(word)):
        return exact
    if len(word) > _LONG or len(known) > _MANY:  # comparing costs their product, and nobody is helped
        return None
    near = get_close_matches(_folded(word), folded, n=2, cutoff=_NEAR)
    if not near or (len(near) > 1 and _closeness(word, near[0]) == _closeness(word, near[1])):
        return None
    return folded[near[0]]


def _folded(word: str) -> str:
    return word.lower().replace("_", "").replace("-", "")


def _closeness(word: str, name: str) -> float:
    return SequenceMatcher(None, name, _folded(word)).ratio()
