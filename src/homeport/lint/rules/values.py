"""Rules about values that the kernel refuses: names of links, hardware addresses, sysctls. No I/O."""

from __future__ import annotations

from collections.abc import Iterator

from homeport.cni.documents import shown
from homeport.lint import wishes
from homeport.lint.findings import Found, Severity
from homeport.lint.manifests import Manifests, Network
from homeport.lint.nodes import Node
from homeport.lint.rules.checks import network_rule, rule
from homeport.lint.rules.selections import pods
from homeport.model.addresses import parse_mac
from homeport.model.names import IFNAME_MAX, is_ifname

_MADE = {"bridge": ("bridge",), "tap": ("bridge",), "vrf": ("vrfname",)}  # links the plugin makes under that name
_FOUND = {  # links that must be there; those may have a longer name as well (altname)
    "bridge": (),
    "host-device": ("device",),
    "ipvlan": ("master",),
    "macvlan": ("master",),
    "vlan": ("master",),
}
_MACS = {"bridge": "mac", "host-device": "hwaddr", "macvlan": "mac", "tap": "mac", "tuning": "mac"}
_ETHERNET = len("0a:58:0a:00:00:01")


@network_rule("link-name", Severity.ERROR)
def link_name(network: Network) -> Iterator[Found]:
    """A bridge, a VRF or a master has a name that no link can have.

    The kernel takes 1 to 15 bytes without `/`, `:` and blanks. `eth0:1` is no link but an old way to write a second
    address of `eth0`; the master is then `eth0`. A link that exists already may be called by a longer alternative name.
    """
    for plugin in network.plugins:
        kind = plugin.text("type") or ""
        for keys, longest in ((_MADE.get(kind, ()), IFNAME_MAX), (_FOUND.get(kind, ()), None)):
            for key in keys:
                node = plugin.get(key)
                name = str(node.value) if node is not None and node.kind == "string" else ""
                judged = name if longest else name[:IFNAME_MAX]
                if node is not None and name and not is_ifname(judged):
                    size = (
                        f", {len(name.encode(errors='surrogatepass'))} bytes" if longest and len(name) > longest else ""
                    )
                    yield network.found(
                        node.span,
                        f"{shown(key)} {shown(name)} is no name of a link{size}",
                        'expected 1 to 15 characters without "/", ":" and blanks',
                    )


@rule("mac-address", Severity.ERROR)
def mac_address(manifests: Manifests) -> Iterator[Found]:
    """A MAC address is not one, or one that no interface can have.

    Six hex pairs joined by colons. The first byte is even (an odd one is a group's), and not all are zero; otherwise
    the kernel says `cannot assign requested address`.
    """
    for network in manifests.networks:
        for plugin in network.plugins:
            node = plugin.get(_MACS.get(plugin.text("type") or "", "mac"))
            if node is None or plugin.text("type") not in _MACS or node.kind != "string" or not node.value:
                continue
            if (why := _unfit(str(node.value))) is not None:
                yield network.found(node.span, f"MAC address {shown(node.value)}{why[0]}", why[1])
    for workload, text, wished in pods(manifests):
        for wish in wished:
            mac = wish.selection.mac
            if mac and len(mac) == _ETHERNET and (why := _unfit(mac)) is not None:
                yield workload.found(wishes.place(text, wish, "mac"), f'MAC address "{mac}"{why[0]}', why[1])


@network_rule("sysctl", Severity.ERROR, fix="quotes a number")
def sysctl(network: Network) -> Iterator[Found]:
    """A sysctl of the plugin tuning is no string, or not one of the network.

    Values are strings, `"net.core.somaxconn": "500"`, and all names begin with `net.`; tuning refuses anything else.
    """
    for plugin in network.plugins:
        held = plugin.get("sysctl") if plugin.text("type") == "tuning" else None
        for member in held.members if held is not None and network.text is not None else ():
            if not member.name.startswith(("net.", "net/")):
                yield network.found(
                    member.key.span, f"sysctl {shown(member.name)} is none of the network", 'expected one of "net."'
                )
            if member.value.kind != "string" and network.text is not None:
                written = network.text.written(member.value.span)
                edits = (network.text.edit(member.value.span, f'"{written}"'),) if _is_whole(member.value) else ()
                yield network.found(
                    member.value.span, f"sysctl {shown(member.name)} is {written[:40]}", "expected a string", edits
                )


def _is_whole(node: Node) -> bool:
    return node.kind == "number" and isinstance(node.value, int)


def _unfit(text: str) -> tuple[str, str] | None:
    """What is wrong with a MAC address and what is right, or None."""
    try:
        mac = parse_mac(text)
    except ValueError:
        return "", "expected six hex pairs such as 0a:58:0a:00:00:01"
    if int(mac[:2], 16) % 2:
        return " is a group's: its first byte is odd", f"expected an even one, such as {int(mac[:2], 16) ^ 1:02x}"
    return (" is all zero", "expected one of an interface") if not int(mac.replace(":", ""), 16) else None
