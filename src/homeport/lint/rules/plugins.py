"""Rules about which plugins a network runs, and in what order. No I/O."""

from __future__ import annotations

from collections.abc import Iterator

from homeport.cni.documents import shown
from homeport.lint.catalogue import KINDS, Kind, Role, nearest
from homeport.lint.findings import Edit, Found, Severity, Span
from homeport.lint.manifests import Network
from homeport.lint.nodes import Node
from homeport.lint.rules.checks import network_rule
from homeport.lint.rules.editing import reorder

_LONG = 100  # a list nobody wrote by hand; every finding carries the whole new order
_META = ("homeport", "multus", "multus-shim")
_CUT_OFF = ("ipvlan", "macvlan")
_LAST = "sbr"  # moves the interface's routes away, so whatever else adds routes must have run


@network_rule("plugin-order", Severity.ERROR, fix="moves it behind the interface plugin, sbr to the very end")
def plugin_order(network: Network) -> Iterator[Found]:
    """A chained plugin stands before the plugin that makes the interface.

    Plugins run in the order of the list. sbr, tuning, portmap, bandwidth, firewall and vrf change the interface and the
    addresses that an earlier plugin made; without one they fail for want of a prevResult.
    """
    leading, maker = _leading(network)
    if maker is None:
        return
    edits = _order_edits(network, leading)
    for plugin in leading:
        yield network.found(
            _place(plugin),
            f'"{plugin.text("type")}" stands before "{maker.text("type")}", which makes the interface',
            f'expected after "{maker.text("type")}"',
            edits,
        )


@network_rule("plugin-alone", Severity.ERROR)
def plugin_alone(network: Network) -> Iterator[Found]:
    """A network has chained plugins only: nothing makes an interface.

    Put a plugin such as ipvlan, macvlan or bridge before it.
    """
    leading, maker = _leading(network)
    if maker is None:
        for plugin in leading[:1]:
            yield network.found(
                _place(plugin),
                f'"{plugin.text("type")}" runs first, but works on an interface that an earlier plugin made',
                "expected a plugin such as ipvlan, macvlan or bridge before it",
            )


@network_rule("misspelt-plugin", Severity.ERROR, fix="writes the known type")
def misspelt_plugin(network: Network) -> Iterator[Found]:
    """A plugin type is unknown, and close to a known one.

    The type is the name of an executable; a misspelt one is not found when the pod starts.
    """
    if network.text is None:
        return
    for place, near, _ in _unknown(network):
        if near is not None:
            yield network.found(
                place.span,
                f"unknown plugin type {shown(place.value)}",
                f'did you mean "{near}"?',
                (network.text.edit(place.span, f'"{near}"'),),
            )


@network_rule("unknown-plugin", Severity.INFO)
def unknown_plugin(network: Network) -> Iterator[Found]:
    """A plugin type is not one that lint knows.

    It may well exist on your nodes; nothing inside it was checked.
    """
    for place, near, role in _unknown(network):
        if near is None:
            kind = "IPAM plugin" if role is Role.IPAM else "plugin"
            yield network.found(
                place.span,
                f"unknown {kind} type {shown(place.value)}",
                "an executable of that name must be on every node",
            )


@network_rule("plugin-role", Severity.ERROR)
def plugin_role(network: Network) -> Iterator[Found]:
    """An IPAM plugin stands in the list, or another plugin under `ipam`.

    IPAM plugins hand out addresses and are called by the interface plugin, under its key `ipam`.
    """
    for node, role in _types(network):
        kind = KINDS.get(str(node.value))
        if kind is not None and (kind.role is Role.IPAM) != (role is Role.IPAM):
            where = 'under "ipam"' if role is Role.IPAM else "in the list of plugins"
            right = 'expected under the key "ipam" of an interface plugin'
            if role is Role.IPAM:
                right = "expected an IPAM plugin: whereabouts, host-local, static or dhcp"
            yield network.found(node.span, f"{shown(node.value)} stands {where}", right)


@network_rule("plugin-recursion", Severity.ERROR)
def plugin_recursion(network: Network) -> Iterator[Found]:
    """A NetworkAttachmentDefinition's plugin is the one that attaches the definitions themselves.

    Multus and Homeport stand in the nodes' own CNI directory. Called for one network of a pod, with neither `delegates`
    nor `clusterNetwork`, they refuse, or begin with all of the pod's networks again. Name the plugin that makes the
    interface.
    """
    for plugin in network.plugins if network.manifest is not None else ():
        if plugin.text("type") in _META and all(plugin.get(key) is None for key in ("delegates", "clusterNetwork")):
            yield network.found(
                _place(plugin),
                f'"{plugin.text("type")}" attaches networks, and cannot be the plugin of one',
                "expected a plugin such as ipvlan, macvlan or bridge",
            )


@network_rule("vlan-without-id", Severity.WARNING)
def vlan_without_id(network: Network) -> Iterator[Found]:
    """The plugin vlan has no `vlanId`, or 0.

    It then makes an interface of VLAN 0, which carries untagged priority frames and no VLAN of the switch.
    """
    for plugin in network.plugins:
        node = plugin.get("vlanId")
        if plugin.text("type") == "vlan" and (node is None or node.kind == "null" or node.value == 0):
            place = _place(plugin) if node is None else node.span
            yield network.found(place, "vlan 0 carries no VLAN of the switch", 'expected "vlanId", 1 to 4094')


@network_rule("portmap-unreachable", Severity.WARNING)
def portmap_unreachable(network: Network) -> Iterator[Found]:
    """Portmap follows a plugin whose interface the node cannot reach.

    portmap leads a port of the node to the pod's address, through the node's own routing. What macvlan and ipvlan make
    is cut off from the node they stand on, so nothing gets there. Use bridge or ptp, or the address itself.
    """
    plugins = network.plugins
    for number, plugin in enumerate(plugins):
        before = [p for p in plugins[:number] if p.text("type") in _CUT_OFF]
        if plugin.text("type") == "portmap" and before:
            yield network.found(
                _place(plugin),
                f'"portmap" behind "{before[0].text("type")}", whose interfaces the node cannot reach',
                "expected it behind bridge or ptp",
            )


def kind_of(plugin: Node) -> Kind | None:
    """What the catalogue says about a plugin or ipam object."""
    return KINDS.get(plugin.text("type") or "")


def _leading(network: Network) -> tuple[list[Node], Node | None]:
    """The chained plugins at the head, and the first known plugin after them that makes an interface."""
    plugins = network.plugins
    count = 0
    for plugin in plugins:
        kind = kind_of(plugin)
        if kind is None or kind.role is not Role.CHAINED:
            break
        count += 1
    makers = (p for p in plugins[count:] if (k := kind_of(p)) is not None and k.role is Role.INTERFACE)
    return list(plugins[:count]), next(makers, None)


def _order_edits(network: Network, leading: list[Node]) -> tuple[Edit, ...]:
    """Right only when the maker follows at once: a type nobody knows between them may itself have to come first."""
    text, plugins = network.text, list(network.plugins)
    listed = network.config.get("plugins") if network.config is not None else None
    rest = plugins[len(leading) :]
    kind = kind_of(rest[0])
    if text is None or listed is None or len(listed.items) != len(plugins) or kind is None or len(plugins) > _LONG:
        return ()
    moved = [p for p in leading if p.text("type") != _LAST]
    last = [p for p in leading if p.text("type") == _LAST]
    return reorder(text, plugins, [rest[0], *moved, *rest[1:], *last])


def _types(network: Network) -> Iterator[tuple[Node, Role]]:
    """Every type named, and the role its place asks for (any but IPAM is as good as `INTERFACE`)."""
    for plugin in network.plugins:
        for holder, role in ((plugin, Role.INTERFACE), (plugin.get("ipam"), Role.IPAM)):
            node = holder.get("type") if holder is not None else None
            if node is not None and node.kind == "string" and node.value:
                yield node, role


def _unknown(network: Network) -> Iterator[tuple[Node, str | None, Role]]:
    for node, role in _types(network):
        if str(node.value) in KINDS:
            continue
        fitting = tuple(name for name, kind in KINDS.items() if (kind.role is Role.IPAM) == (role is Role.IPAM))
        yield node, nearest(str(node.value), fitting), role


def _place(plugin: Node) -> Span:
    node = plugin.get("type")
    return node.span if node is not None else plugin.span
