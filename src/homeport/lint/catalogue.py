"""The plugins lint knows: what each is for, and the keys it reads. No I/O.

Keys as the reference plugins 1.9, Whereabouts 0.9 and the identity rules (docs/identity.md) define them. A plugin that
is not ours and changes at its own pace is known by type alone: its keys are not judged.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import SequenceMatcher, get_close_matches
from enum import Enum
from typing import Literal

import msgspec

Type = Literal["string", "number", "boolean", "array", "object", "any"]


class Role(Enum):
    """`INTERFACE` makes one, `CHAINED` changes the interface an earlier plugin made, `IPAM` stands under `ipam`."""

    INTERFACE = "interface"
    CHAINED = "chained"
    IPAM = "IPAM"


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """One key. `least`..`most` bound a number, both inclusive; `inside` are the keys of an object, or of a list's.

    `of` is the type of an array's elements.
    """

    type: Type
    of: Type = "any"
    choices: tuple[str, ...] = ()
    least: int | None = None
    most: int | None = None
    inside: Mapping[str, Key] | None = None
    required: bool = False


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """A plugin type. `keys` is None where they are not ours to judge; `since` is the lowest cniVersion it takes."""

    role: Role
    keys: Mapping[str, Key] | None = None
    needs_ipam: bool = False
    since: str = "0.1.0"


def key(kind: Type = "string", *choices: str, required: bool = False) -> Key:
    """A key of any type; `choices` are the words a string may be."""
    return Key(type=kind, choices=choices, required=required)


def number(least: int = 0, most: int | None = None) -> Key:
    """A whole number, both bounds inclusive."""
    return Key(type="number", least=least, most=most)


def inside(keys: Mapping[str, Key], kind: Type = "object") -> Key:
    """An object with those keys, or an array of such."""
    return Key(type=kind, of="object", inside=keys)


FLAG, TEXT, OBJECT, ANY = key("boolean"), key(), key("object"), key("any")
WORDS = Key(type="array", of="string")
NEEDED = key(required=True)

_DNS = inside({"nameservers": WORDS, "domain": TEXT, "search": WORDS, "options": WORDS})
_ROUTES = inside(
    {
        "dst": NEEDED,
        "gw": TEXT,
        "mtu": number(),
        "advmss": number(),
        "priority": number(),
        "table": number(),
        "scope": number(0, 255),
    },
    "array",
)
_ADDRESSES = inside({"address": NEEDED, "gateway": TEXT}, "array")

SHARED: Mapping[str, Key] = {
    "type": NEEDED,
    "name": TEXT,
    "cniVersion": TEXT,
    "capabilities": OBJECT,
    "ipam": OBJECT,
    "dns": _DNS,
    "args": OBJECT,
    "runtimeConfig": OBJECT,
    "prevResult": OBJECT,
}
"""CNI SPEC 1.1.0 §1: what any plugin object may have."""

NETWORK: Mapping[str, Key] = {
    "cniVersion": TEXT,
    "cniVersions": WORDS,
    "name": TEXT,
    "plugins": key("array"),
    "disableCheck": ANY,  # a boolean, or its name as a string
    "disableGC": ANY,
    "loadOnlyInlinedPlugins": ANY,
}
"""CNI SPEC 1.1.0 §1: the keys of a list."""

RETENTION_KEYS: Mapping[str, Key] = {
    "whenScaled": key("string", "Retain", "Release"),
    "whenDeleted": key("string", "Retain", "Release"),
    "retainFor": TEXT,
    "adopt": key("string", "SameName", "Never"),
}
"""R11; also the keys of the annotation homeport.dev/retention."""

_STICKY = inside(
    {
        "order": key("string", "ordinal", "lowest"),
        **RETENTION_KEYS,
        "replicas": OBJECT,
        "kinds": inside({"apiGroup": TEXT, "kind": NEEDED, "label": TEXT}, "array"),
    },
    "any",
)

_WHEREABOUTS: Mapping[str, Key] = {
    "type": NEEDED,
    "range": TEXT,
    "range_start": TEXT,
    "range_end": TEXT,
    "exclude": WORDS,
    "ipRanges": inside({"range": NEEDED, "range_start": TEXT, "range_end": TEXT, "exclude": WORDS}, "array"),
    "network_name": TEXT,
    "enable_overlapping_ranges": FLAG,
    "node_slice_size": TEXT,
    "gateway": TEXT,
    "routes": _ROUTES,
    "dns": _DNS,
    "addresses": _ADDRESSES,
    "kubernetes": inside({"kubeconfig": TEXT, "k8s_api_root": TEXT}),
    "configuration_path": TEXT,
    "leader_lease_duration": number(),
    "leader_renew_deadline": number(),
    "leader_retry_period": number(),
    "log_file": TEXT,
    "log_level": key("string", "debug", "verbose", "error", "panic"),
    "reconciler_cron_expression": TEXT,
    "sleep_for_race": number(),
    "datastore": TEXT,
    "etcd_host": TEXT,
    "etcd_username": TEXT,
    "etcd_password": TEXT,
    "etcd_key_file": TEXT,
    "etcd_cert_file": TEXT,
    "etcd_ca_cert_file": TEXT,
    "sticky": _STICKY,
}

_HOST_LOCAL_RANGE = {"subnet": NEEDED, "rangeStart": TEXT, "rangeEnd": TEXT, "gateway": TEXT}
_HOST_LOCAL: Mapping[str, Key] = {
    "type": NEEDED,
    **{name: TEXT for name in _HOST_LOCAL_RANGE},
    "ranges": Key(type="array", of="array", inside=_HOST_LOCAL_RANGE),  # sets of ranges
    "routes": _ROUTES,
    "dataDir": TEXT,
    "resolvConf": TEXT,
}

_DHCP: Mapping[str, Key] = {
    "type": NEEDED,
    "daemonSocketPath": TEXT,
    "provide": inside({"option": NEEDED, "value": ANY, "fromArg": TEXT}, "array"),
    "request": inside({"option": NEEDED, "skipDefault": FLAG}, "array"),
    "priority": number(),
}

_MTU = number(0, 65535)
_MASTER: Mapping[str, Key] = {"master": TEXT, "mtu": _MTU, "linkInContainer": FLAG}
_VLAN_ID = number(0, 4094)
_MASQUERADE: Mapping[str, Key] = {"ipMasq": FLAG, "ipMasqBackend": key("string", "iptables", "nftables")}
_VLANS = inside({"minID": _VLAN_ID, "maxID": _VLAN_ID, "id": _VLAN_ID}, "array")


def _interface(keys: Mapping[str, Key] | None, *, needs_ipam: bool = False) -> Kind:
    return Kind(role=Role.INTERFACE, keys=keys, needs_ipam=needs_ipam)


def _chained(keys: Mapping[str, Key] | None, since: str = "0.3.0") -> Kind:
    """`since` 0.3.0, because earlier versions have no prevResult."""
    return Kind(role=Role.CHAINED, keys=keys, since=since)


def _ipam(keys: Mapping[str, Key] | None) -> Kind:
    return Kind(role=Role.IPAM, keys=keys)


_BRIDGE: Mapping[str, Key] = {
    "bridge": TEXT,
    "isGateway": FLAG,
    "isDefaultGateway": FLAG,
    "forceAddress": FLAG,
    **_MASQUERADE,
    "mtu": _MTU,
    "hairpinMode": FLAG,
    "promiscMode": FLAG,
    "vlan": _VLAN_ID,
    "vlanTrunk": _VLANS,
    "preserveDefaultVlan": FLAG,
    "macspoofchk": FLAG,
    "enabledad": FLAG,
    "disableContainerInterface": FLAG,
    "portIsolation": FLAG,
    "mac": TEXT,
}

KINDS: Mapping[str, Kind] = {
    "bridge": _interface(_BRIDGE),
    "dummy": _interface({}, needs_ipam=True),
    "host-device": _interface({"device": TEXT, "hwaddr": TEXT, "kernelpath": TEXT, "pciBusID": TEXT, "deviceID": TEXT}),
    "ipvlan": _interface({**_MASTER, "mode": key("string", "l2", "l3", "l3s")}),
    "loopback": _interface({}),
    "macvlan": _interface(
        {
            **_MASTER,
            "mode": key("string", "bridge", "private", "vepa", "passthru"),
            "mac": TEXT,
            "bcqueuelen": number(),
        }
    ),
    "ptp": _interface({**_MASQUERADE, "mtu": _MTU}, needs_ipam=True),
    "tap": _interface(
        {
            "multiQueue": FLAG,
            "mtu": _MTU,
            "mac": TEXT,
            "owner": number(),
            "group": number(),
            "selinuxContext": TEXT,
            "bridge": TEXT,
        }
    ),
    "vlan": _interface({**_MASTER, "master": NEEDED, "vlanId": _VLAN_ID}, needs_ipam=True),
    "bandwidth": _chained(
        {
            "ingressRate": number(),
            "ingressBurst": number(),
            "egressRate": number(),
            "egressBurst": number(),
            "unshapedSubnets": WORDS,
            "shapedSubnets": WORDS,
        }
    ),
    "firewall": _chained(
        {
            "backend": key("string", "iptables", "firewalld"),
            "iptablesAdminChainName": TEXT,
            "firewalldZone": TEXT,
            "ingressPolicy": key("string", "open", "same-bridge", "isolated"),
        },
        "0.4.0",
    ),
    "portmap": _chained(
        {
            "backend": key("string", "iptables", "nftables"),
            "snat": FLAG,
            "masqAll": FLAG,
            "markMasqBit": number(0, 31),
            "externalSetMarkChain": TEXT,
            "conditionsV4": WORDS,
            "conditionsV6": WORDS,
        }
    ),
    "rdma": _chained(None),
    "route-override": _chained(None),
    "sbr": _chained({"table": number(1, 2**32 - 1), "gateways": WORDS, "addSourceHints": FLAG}),
    "tuning": _chained(
        {
            "sysctl": OBJECT,
            "mac": TEXT,
            "mtu": _MTU,
            "promisc": FLAG,
            "allmulti": FLAG,
            "txQLen": number(),
            "dataDir": TEXT,
        }
    ),
    "vrf": _chained({"vrfname": NEEDED, "table": number(1, 2**32 - 1)}, "0.3.1"),
    "dhcp": _ipam(_DHCP),
    "host-local": _ipam(_HOST_LOCAL),
    "static": _ipam({"type": NEEDED, "addresses": _ADDRESSES, "routes": _ROUTES, "dns": _DNS}),
    "whereabouts": _ipam(_WHEREABOUTS),
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
