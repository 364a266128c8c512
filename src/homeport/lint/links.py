"""The links of the node that a network's interfaces stand on. No I/O."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from homeport.lint.manifests import Network, of_network
from homeport.lint.nodes import Node

_STACKED = ("macvlan", "ipvlan")
_DEFAULT_BRIDGE = "cni0"


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """An interface that a plugin of type `kind` makes, and `parent`, the link it stands on.

    `parent` "" is the link of the node's default route. `place` says which it is, or else which plugin it is. `inside`:
    the parent is an interface of the pod. `mode` is the plugin's own default where none is written, `vlan` 0 untagged.
    """

    kind: str
    parent: str
    place: Node
    inside: bool
    mode: str
    mtu: Node | None
    vlan: int

    @property
    def wire(self) -> str | None:
        """What all that is reached without a router has in common; None where it cannot be told."""
        if self.inside or self.kind == "host-device":
            return None
        return f"{self.parent}.{self.vlan}" if self.vlan else self.parent

    @property
    def mtu_bytes(self) -> int | None:
        """As written; None where the kernel chooses."""
        value = self.mtu.value if self.mtu is not None and self.mtu.kind == "number" else None
        return value if isinstance(value, int) and value > 0 else None

    @property
    def described(self) -> str:
        return f'link "{self.parent}"' if self.parent else "the link of the default route"


@of_network
def standings(network: Network) -> Iterator[Standing]:
    """Every interface that stands on a link which can be told, in order."""
    for n, plugin in enumerate(network.plugins):
        match plugin.text("type"):
            case "macvlan":
                yield _stacked(plugin, "macvlan", "bridge")
            case "ipvlan" if plugin.text("master") or n == 0:
                # Without a master and not the first, it stands on what the plugin before it made.
                yield _stacked(plugin, "ipvlan", "l2")
            case "vlan" if plugin.text("master"):
                yield _stacked(plugin, "vlan", "")
            case "bridge":
                yield _standing(plugin, "bridge", plugin.get("bridge"), _DEFAULT_BRIDGE, "vlan")
            case "host-device" if plugin.text("device"):
                yield _standing(plugin, "host-device", plugin.get("device"), "", "")


def wires(network: Network) -> frozenset[str]:
    """The wires of its interfaces; none where one cannot be told."""
    found = [standing.wire for standing in standings(network)]
    known = frozenset(wire for wire in found if wire is not None)
    return known if len(found) == len([w for w in found if w is not None]) else frozenset()


def is_of_pod_alone(network: Network) -> bool:
    """Whether its interfaces reach nobody, so that all pods may have the same address, as that of a load balancer."""
    return bool(network.plugins) and network.plugins[0].text("type") in ("dummy", "loopback")


def is_version_of(one: Network, other: Network) -> bool:
    """Whether two definitions are of one object, as those of two overlays are: never in the cluster together."""
    return one.name == other.name and (one.namespace is None or other.namespace in (None, one.namespace))


def conflict(one: Standing, other: Standing) -> str:
    """Why the kernel refuses the second of two on one node; "" when it does not.

    A link has one receive handler, macvlan's or ipvlan's; in mode passthru it takes one macvlan in all. A VLAN ID is
    taken once on a link, in whatever namespace the interface is; a device can be moved into one pod.
    """
    if one.parent != other.parent or one.inside != other.inside:
        return ""
    kinds = {one.kind, other.kind}
    if kinds == set(_STACKED):
        return "a link takes either macvlan or ipvlan"
    if kinds == {"macvlan"} and "passthru" in (one.mode, other.mode):
        return "a link takes one macvlan in mode passthru and no other"
    if kinds == {"vlan"} and one.vlan == other.vlan:
        return f"a link takes VLAN {one.vlan} once"
    return "a device is in one pod at a time" if kinds == {"host-device"} else ""


def _stacked(plugin: Node, kind: str, mode: str) -> Standing:
    standing = _standing(plugin, kind, plugin.get("master"), "", "vlanId")
    return msgspec.structs.replace(standing, mode=plugin.text("mode") or mode)


def _standing(plugin: Node, kind: str, parent: Node | None, default: str, vlan: str) -> Standing:
    named = parent is not None and parent.kind == "string" and bool(parent.value)
    inside, tag = plugin.get("linkInContainer"), plugin.get(vlan)
    return Standing(
        kind=kind,
        parent=str(parent.value) if parent is not None and named else default,
        place=parent if parent is not None and named else plugin.get("type") or plugin,
        inside=inside is not None and inside.value is True,
        mode="",
        mtu=plugin.get("mtu"),
        vlan=tag.value if tag is not None and tag.kind == "number" and isinstance(tag.value, int) else 0,
    )
