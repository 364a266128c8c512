"""Rules about keys and the values they take, from the catalogue of plugins. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import msgspec

from homeport.cni.documents import shown
from homeport.lint.catalogue import KINDS, NETWORK, SHARED, Role, nearest
from homeport.lint.findings import Edit, Found, Severity, Span
from homeport.lint.ipam_keys import RETENTION_KEYS
from homeport.lint.keywords import ANY, Key, inside
from homeport.lint.manifests import DEFAULT_NETWORK, NETWORKS, RETENTION, Embedded, Manifests, Network, of_network
from homeport.lint.nodes import Member, Node, plain
from homeport.lint.rules.checks import rule
from homeport.lint.rules.editing import move_member

_INTEGER = re.compile(r"0|[1-9][0-9]{0,9}")
_CHAINABLE = ("ipvlan",)  # takes the addresses of an earlier plugin when it has no ipam of its own
_DEVICE_KEYS = ("device", "hwaddr", "kernelpath", "pciBusID", "deviceID", "runtimeConfig")
_ARTICLES = {"array": "an array", "object": "an object"}
_OF_PLUGIN = ("ipam", "capabilities")  # of the keys all share those that do nothing anywhere else

SELECTION: Mapping[str, Key] = {
    **{
        name: ANY
        for name in (
            "name",
            "namespace",
            "interface",
            "interfaceRequest",
            "ips",
            "mac",
            "infiniband-guid",
            "deviceID",
            "cni-args",
            "default-route",
            "ipam-claim-reference",
        )
    },
    "portMappings": inside({name: ANY for name in ("hostPort", "containerPort", "protocol", "hostIP")}, "any"),
    "bandwidth": inside({name: ANY for name in ("ingressRate", "ingressBurst", "egressRate", "egressBurst")}, "any"),
}
"""NPWG multi-network specification v1.3 section 4.1.2: the keys of an entry. Their values are `annotation-syntax`'s."""

_SELECTION = "the network selection"
_CALLED = {  # by plugin and key: what others call what this one calls otherwise
    ("whereabouts", "subnet"): "range",
    ("whereabouts", "cidr"): "range",
    ("whereabouts", "excludes"): "exclude",
    ("host-local", "range"): "subnet",
    ("ipvlan", "device"): "master",
    ("ipvlan", "parent"): "master",
    ("macvlan", "device"): "master",
    ("macvlan", "parent"): "master",
    ("vlan", "vlan"): "vlanId",
    ("vlan", "id"): "vlanId",
    ("host-device", "master"): "device",
    (_SELECTION, "macRequest"): "mac",
    (_SELECTION, "macAddress"): "mac",
    (_SELECTION, "macaddress"): "mac",
    (_SELECTION, "ipRequest"): "ips",
}


class Other(msgspec.Struct, frozen=True, kw_only=True):
    """Another object that a key may belong to."""

    holder: Node
    name: str
    keys: Mapping[str, Key]


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """An object and the keys it may have; `name` says what it is. `keys` None: not ours to judge."""

    text: Embedded
    holder: Node
    name: str
    keys: Mapping[str, Key] | None
    others: tuple[Other, ...] = ()

    def found(self, span: Span, found: str, right: str, edits: tuple[Edit, ...] = ()) -> Found:
        return Found(file=self.text.file, span=span, found=found, right=right, edits=edits)


@rule(
    "misspelt-key",
    Severity.ERROR,
    fix="writes the known key, unless it is there already or takes another type of value",
)
def misspelt_key(manifests: Manifests) -> Iterator[Found]:
    """A key is unknown, and close to a known one.

    CNI plugins ignore keys they do not know, so what it says has no effect and nothing tells you.
    """
    for place in _places(manifests):
        for member, near in _unknown(place):
            if near is None:
                continue
            taken = place.holder.member(near) is not None
            fits = place.keys is not None and _could_be(member.value, place.keys[near])
            yield place.found(
                member.key.span,
                f"unknown key {shown(member.name)} of {place.name}",
                f'"{near}" is already there' if taken else f'did you mean "{near}"?',
                (place.text.edit(member.key.span, f'"{near}"'),) if fits and not taken else (),
            )


@rule("unknown-key", Severity.WARNING)
def unknown_key(manifests: Manifests) -> Iterator[Found]:
    """A key is not one the plugin reads.

    CNI plugins ignore keys they do not know. Keys that begin with an underscore or `//`, and `comment`, are taken for
    notes; dotted and slashed names (`cni.dev/...`) for extensions.
    """
    for place in _places(manifests):
        for member, near in _unknown(place):
            if near is None:
                what = f"unknown key {shown(member.name)} of {place.name}"
                yield place.found(member.key.span, what, "it has no effect; remove it")


@rule("misplaced-key", Severity.ERROR, fix="moves it, where there is one place for it that lacks it")
def misplaced_key(manifests: Manifests) -> Iterator[Found]:
    """A key stands in one object and belongs to another: `gateway` beside `ipam`, `master` inside it.

    Each plugin reads its own object and the IPAM plugin the one under `ipam`; both ignore keys they do not know, so
    what it says has no effect. In a list with `plugins` every plugin's keys belong inside that plugin.
    """
    for place in _places(manifests):
        for member, others in _misplaced(place):
            lacking = [other for other in others if other.holder.member(member.name) is None]
            edits = (
                move_member(place.text, place.holder, member.name, lacking[0].holder)
                if len(others) == len(lacking) == 1
                else ()
            )
            yield place.found(
                member.key.span,
                f"key {shown(member.name)} has no effect in {place.name}",
                f"it belongs to {' or '.join(other.name for other in others)}",
                edits,
            )


@rule("missing-key", Severity.ERROR)
def missing_key(manifests: Manifests) -> Iterator[Found]:
    """A key that the plugin cannot do without is missing, null or empty."""
    for place in _places(manifests):
        for name, known in (place.keys or SHARED).items():
            if known.required and _is_absent(place.holder, name):
                yield place.found(
                    _head(place.holder), f"{place.name} has no {shown(name)}", f"expected key {shown(name)}"
                )
    for network in manifests.networks:
        if network.text is not None and network.config is not None:
            if network.manifest is None and _is_absent(network.config, "name"):
                yield network.found(_head(network.config), 'the network has no "name"', 'expected key "name"')
            yield from _missing_of_plugins(network)


@rule("wrong-type", Severity.ERROR, fix="unquotes numbers and booleans, quotes numbers where text is expected")
def wrong_type(manifests: Manifests) -> Iterator[Found]:
    """A known key has a value of another JSON type than the plugin reads.

    Plugins decode strictly: `"mtu": "1500"` makes the whole configuration fail.
    """
    for place in _places(manifests):
        for node, name, known in _known(place):
            if known.type in ("any", node.kind):
                continue
            yield place.found(
                node.span,
                f"key {shown(name)} of {place.name} is {_brief(node)}",
                f"expected {_ARTICLES.get(known.type, f'a {known.type}')}",
                _converted(place.text, node, known),
            )
        for node, name, known in _known(place):
            for item in node.items if known.type == "array" and known.of != "any" else ():
                if item.kind != known.of:
                    wanted = _ARTICLES.get(known.of, f"a {known.of}")
                    yield place.found(
                        item.span,
                        f"an element of {shown(name)} of {place.name} is {_brief(item)}",
                        f"expected {wanted}",
                    )


@rule("bad-value", Severity.ERROR, fix="writes the one known word that is near")
def bad_value(manifests: Manifests) -> Iterator[Found]:
    """A key has a value that the plugin refuses: an unknown word, or a number out of bounds."""
    for place in _places(manifests):
        for node, name, known in _known(place):
            if node.kind == "string" and known.choices and node.value not in ("", *known.choices):
                near = nearest(str(node.value), known.choices)
                right = f'did you mean "{near}"?' if near else f"expected one of {', '.join(known.choices)}"
                edits = (place.text.edit(node.span, f'"{near}"'),) if near else ()
                yield place.found(node.span, f"{shown(name)} of {place.name} is {_brief(node)}", right, edits)
            elif node.kind == "number" and not _is_within(node.value, known):
                upper = "" if known.most is None else f" to {known.most}"
                yield place.found(
                    node.span,
                    f"{shown(name)} of {place.name} is {_brief(node)}",
                    f"expected a whole number, {known.least}{upper or ' or more'}",
                )


def _places(manifests: Manifests) -> Iterator[Place]:
    for network in manifests.networks:
        yield from _places_of(network)
    for workload in manifests.workloads:
        for name, text in workload.annotations.items():
            if text.root is None:
                continue
            if name == RETENTION and text.root.kind == "object":
                yield Place(text=text, holder=text.root, name=f'annotation "{name}"', keys=RETENTION_KEYS)
            elif name in (NETWORKS, DEFAULT_NETWORK):
                for element in text.root.items:
                    if element.kind == "object":
                        yield from _with_inner(Place(text=text, holder=element, name=_SELECTION, keys=SELECTION))


@of_network
def _places_of(network: Network) -> Iterator[Place]:
    text = network.text
    if text is None or network.config is None:
        return
    of_plugins = [_of_plugin(plugin) for plugin in network.plugins]
    if network.is_list:
        others = tuple(other for several in of_plugins for other in several)
        yield Place(text=text, holder=network.config, name="the network", keys=NETWORK, others=others)
    for number, mine in enumerate(of_plugins):
        elsewhere = [several[0] for n, several in enumerate(of_plugins) if n != number]
        for own in mine:
            beside = (*(other for other in mine if other is not own), *(elsewhere if own is mine[0] else ()))
            yield from _with_inner(
                Place(text=text, holder=own.holder, name=own.name, keys=own.keys or None, others=tuple(beside))
            )


def _of_plugin(plugin: Node) -> tuple[Other, ...]:
    """A plugin and its ipam section with the keys they may have, none where those are not ours to judge."""
    name = plugin.text("type") or ""
    kind = KINDS.get(name)
    keys = {**SHARED, **kind.keys} if kind is not None and kind.keys is not None else {}
    own = Other(holder=plugin, name=f'plugin "{name}"' if name else "the plugin", keys=keys)
    ipam = plugin.get("ipam")
    if ipam is None or ipam.kind != "object" or not ipam.members:
        return (own,)
    ipam_name = ipam.text("type") or ""
    ipam_kind = KINDS.get(ipam_name)
    ipam_keys = ipam_kind.keys if ipam_kind is not None and ipam_kind.role is Role.IPAM else None
    called = f'ipam "{ipam_name}"' if ipam_name else "ipam"
    return (own, Other(holder=ipam, name=called, keys=ipam_keys or {}))


def _with_inner(place: Place) -> Iterator[Place]:
    """The place, and the objects inside it whose keys are known: of lists every element."""
    yield place
    for member in place.holder.members:
        known = (place.keys or {}).get(member.name)
        if known is None or known.inside is None:
            continue
        for node in _flattened(member.value):
            if node.kind == "object":
                yield from _with_inner(
                    Place(text=place.text, holder=node, name=f'"{member.name}" of {place.name}', keys=known.inside)
                )


def _flattened(node: Node) -> Iterator[Node]:
    if node.kind != "array":
        yield node
    for item in node.items:
        yield from _flattened(item)


def _unknown(place: Place) -> Iterator[tuple[Member, str | None]]:
    """Keys nobody knows, and the known one each may be meant for. cniVersion has rules of its own."""
    for member in _strange(place):
        if place.keys is not None and not _homes(place, member.name):
            owner = place.name if place.name == _SELECTION else place.holder.text("type") or ""
            called = _CALLED.get((owner, member.name))
            yield member, called or nearest(member.name, place.keys)


def _misplaced(place: Place) -> Iterator[tuple[Member, list[Other]]]:
    """Keys that are not known here, with the objects that they belong to."""
    for member in _strange(place):
        if homes := _homes(place, member.name):
            yield member, homes


def _homes(place: Place, name: str) -> list[Other]:
    mine = name in SHARED and name not in _OF_PLUGIN
    return [other for other in place.others if name in other.keys and not mine]


def _strange(place: Place) -> Iterator[Member]:
    for member in place.holder.members if place.keys is not None else ():
        name = member.name
        note = name.startswith(("_", "//", "#")) or name == "comment" or "/" in name or "." in name
        version = name == "cniVersion" or (name == "version" and place.holder.member("cniVersion") is None)
        if place.keys is not None and name not in place.keys and not note and not version:
            yield member


def _known(place: Place) -> Iterator[tuple[Node, str, Key]]:
    """Values of known keys that are not null; a version and a type are judged elsewhere, but for their being text."""
    keys = place.keys if place.keys is not None else SHARED
    for member in place.holder.members:
        known = keys.get(member.name)
        if known is not None and member.value.kind != "null" and member.name != "cniVersion":
            yield member.value, member.name, known


def _is_absent(holder: Node, name: str) -> bool:
    node = holder.get(name)
    return node is None or node.kind == "null" or node.value == ""


def _missing_of_plugins(network: Network) -> Iterator[Found]:
    for n, plugin in enumerate(network.plugins):
        name = plugin.text("type") or ""
        kind = KINDS.get(name)
        ipam = plugin.get("ipam")
        has_ipam = ipam is not None and ipam.kind != "null" and (ipam.kind != "object" or bool(ipam.members))
        needs = kind is not None and (kind.needs_ipam or (name in _CHAINABLE and n == 0))
        if needs and not has_ipam:
            yield network.found(_head(plugin), f'plugin "{name}" has no "ipam"', 'expected key "ipam"')
        judged = kind is not None and kind.keys is not None  # others, such as antrea, fill in the node's range
        is_host_local = judged and ipam is not None and ipam.text("type") == "host-local"
        if ipam is not None and is_host_local and all(_is_absent(ipam, key) for key in ("subnet", "ranges")):
            yield network.found(_head(ipam), 'ipam "host-local" has no range', 'expected "ranges" or "subnet"')
        if name == "host-device" and all(_is_absent(plugin, key) for key in _DEVICE_KEYS) and not _takes_device(plugin):
            yield network.found(
                _head(plugin),
                'plugin "host-device" names no device',
                'expected one of "device", "hwaddr", "kernelpath", "pciBusID"',
            )


def _takes_device(plugin: Node) -> bool:
    node = plugin.get("capabilities", "deviceID")
    return node is not None and node.value is True


def _could_be(node: Node, known: Key) -> bool:
    """Whether a value suits a key but for quotes, which `wrong-type` sees to."""
    structured = ("array", "object")
    return known.type in ("any", node.kind) or (node.kind not in structured and known.type not in structured)


def _head(holder: Node) -> Span:
    """Where an object says what it is: its type, else its opening bracket."""
    named = holder.get("type")
    return named.span if named is not None else Span(holder.span.start, holder.span.start + 1)


def _is_within(value: object, known: Key) -> bool:
    if known.least is None or known.type != "number":
        return True
    return isinstance(value, int) and known.least <= value and (known.most is None or value <= known.most)


def _converted(text: Embedded, node: Node, known: Key) -> tuple[Edit, ...]:
    """The same value as the type expected, where only the quotes are wrong."""
    value = node.value
    if (
        known.type == "number"
        and isinstance(value, str)
        and value.isascii()
        and value.isdigit()
        and value == str(int(value[:9]))
    ):
        return (text.edit(node.span, value),)
    if known.type == "boolean" and isinstance(value, str) and value.lower() in ("true", "false"):
        return (text.edit(node.span, value.lower()),)
    if known.type == "string" and node.kind == "number":
        return (text.edit(node.span, f'"{text.written(node.span)}"'),)
    return ()


def _brief(node: Node) -> str:
    return _ARTICLES.get(node.kind) or shown(plain(node))
