"""The network under test, and the narrower ones that rows are run on. No I/O.

A row needs a pool of an exact size, and often a policy of its own: so it gets a copy of the network whose ranges end
after so many addresses. A copy stays in the network's scope, where no address is handed out twice.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import msgspec

from homeport.cni import conflists, documents
from homeport.ipam.ranges import Range, RangeKeys, parse_address, parse_network, parse_range
from homeport.model.addresses import IPAddress
from homeport.model.errors import InvalidNetConf
from homeport.plugins.host_ranges import WireRange

Form = Literal["whereabouts", "host-local"]
Room = tuple[tuple[IPAddress, ...], ...]
"""For each range of the network, in its order, the addresses that a run may use: ascending, in a row, equally many."""

OWN_MAC = ("macvlan", "bridge")  # whose interfaces have one, which moves with the address (docs/identity.md R9)
_LOOKED_AT = 8192  # addresses at the end of a range
_OWN_KEYS = frozenset(
    {"range", "range_start", "range_end", "exclude", "ipRanges", "sticky", "addresses", "node_slice_size"}
    | {"subnet", "rangeStart", "rangeEnd", "ranges"}
)
"""What a copy says itself, or leaves out, of an ipam section."""


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """A network that copies can be made of. `ipam` is its section without ranges and policy; `main` is the plugin
    that has it. `resource` is what the kubelet is to give a device of, "" for none.
    """

    name: str
    cni_version: str
    main: Mapping[str, Any]
    rest: tuple[Mapping[str, Any], ...]
    ipam: Mapping[str, Any]
    form: Form
    ranges: tuple[Range, ...]
    resource: str = ""
    gateways: tuple[str, ...] = ()  # of host-local's ranges, "" where none is said

    @property
    def scope(self) -> str:
        """In which its addresses are unique."""
        return str(self.ipam.get("network_name", ""))

    @property
    def has_own_mac(self) -> bool:
        return self.main["type"] in OWN_MAC


def of_config(text: str, name: str, ranges: Sequence[str] = (), resource: str = "") -> Template:
    """Of a NetworkAttachmentDefinition's `spec.config`; `ranges`, if any, take the place of its own.

    Raises `InvalidNetConf`, naming the key, for what no copy can be made of.
    """
    listed = conflists.parse(text.encode(), default_name=name.rpartition("/")[2])
    if not listed.plugins:
        raise InvalidNetConf(f'network "{name}": found no key "plugins", expected its plugins in the definition itself')
    main, *rest = listed.plugins
    ipam = main.get("ipam")
    kind = ipam.get("type") if isinstance(ipam, Mapping) else None
    if not isinstance(ipam, Mapping) or kind not in ("whereabouts", "host-local"):
        raise InvalidNetConf(
            f'network "{name}": key "ipam.type": found {documents.shown(kind)}, expected "whereabouts" or "host-local"'
        )
    form: Form = kind
    written = [(RangeKeys(range=text), "") for text in ranges] or _keys_of(ipam, form)
    if not written:
        raise InvalidNetConf(f'network "{name}": found no range, expected one to take addresses from')
    shared = parse_address(str(ipam["gateway"]), "ipam.gateway") if ipam.get("gateway") else None
    return Template(
        name=name,
        cni_version=listed.cni_version,
        main={key: value for key, value in main.items() if key not in ("name", "cniVersion", "ipam")},
        rest=tuple(rest),
        ipam={key: value for key, value in ipam.items() if key not in _OWN_KEYS},
        form=form,
        ranges=tuple(parse_range(keys, at=f"ipam.range[{n}]", gateway=shared) for n, (keys, _) in enumerate(written)),
        resource=resource,
        gateways=tuple(gateway for _, gateway in written),
    )


def of_master(master: str, kind: str, ranges: Sequence[str]) -> Template:
    """A network of one plugin on that interface of every node."""
    plugin = {"cniVersion": "0.4.0", "type": kind, "master": master, "ipam": {"type": "whereabouts"}}
    if kind == "bridge":
        plugin["bridge"] = plugin.pop("master")
    return of_config(documents.write(plugin).decode(), f"{kind}-on-{master}", ranges)


def room_of(template: Template, taken: Collection[IPAddress], most: int) -> Room:
    """The last addresses of each range that nobody has, `most` of them. Ordinals and other pods begin at its first."""
    found = [_free_run(range_, taken) for range_ in template.ranges]
    size = min(most, *(len(run) for run in found))
    return tuple(run[len(run) - size :] for run in found)


def window_of(room: Room, start: int, size: int) -> Room:
    """`size` addresses of each range, from number `start` on."""
    return tuple(run[start : start + size] for run in room)


def config_of(template: Template, name: str, window: Room, sticky: object, more: Sequence[Mapping[str, Any]]) -> str:
    """The copy called `name`, whose ranges are exactly these addresses; `more` plugins come at the end of its chain."""
    ranges = [_narrowed(template, number, addresses) for number, addresses in enumerate(window) if addresses]
    ipam: dict[str, Any] = dict(template.ipam)
    if template.form == "host-local":
        ipam["ranges"] = [[one] for one in ranges]
    elif len(ranges) == 1:  # as older Whereabouts know it too
        ipam |= ranges[0]
    else:
        ipam["ipRanges"] = ranges
    if sticky is not None and template.form == "whereabouts":
        ipam["sticky"] = sticky
    plugins = [{**template.main, "ipam": ipam}, *template.rest, *more]
    return documents.write({"cniVersion": template.cni_version, "name": name, "plugins": plugins}).decode()


def _keys_of(ipam: Mapping[str, Any], form: Form) -> list[tuple[RangeKeys, str]]:
    """Of each range, with the gateway that is said of it alone."""
    if form == "whereabouts":
        listed = [ipam] if ipam.get("range") else []
        return [(documents.convert(one, RangeKeys, at="ipam"), "") for one in (*listed, *(ipam.get("ipRanges") or ()))]
    sets = [[ipam]] if ipam.get("subnet") else []
    sets += ipam.get("ranges") or []
    return [_of_host_local(one[0]) for one in sets if one]


def _of_host_local(written: Mapping[str, Any]) -> tuple[RangeKeys, str]:
    """The first range of a set. It never gives its gateway, which is the subnet's first address unless it is said."""
    keys = documents.convert(written, WireRange, at="ipam.ranges")
    subnet = parse_network(keys.subnet, "ipam.ranges.subnet")
    gateway = keys.gateway or str(subnet.network_address + 1)
    return (
        RangeKeys(range=keys.subnet, range_start=keys.range_start, range_end=keys.range_end, exclude=(gateway,)),
        keys.gateway,
    )


def _free_run(range_: Range, taken: Collection[IPAddress]) -> tuple[IPAddress, ...]:
    """The longest row of addresses that nobody has, of several the last."""
    last, first = int(range_.last), max(int(range_.first), int(range_.last) - _LOOKED_AT + 1)
    make = type(range_.last)
    best: list[IPAddress] = []
    run: list[IPAddress] = []
    for number in range(first, last + 1):
        address = make(number)
        if address in range_ and address not in taken:
            run.append(address)
            best = run if len(run) >= len(best) else best
        else:
            run = []
    return tuple(best)


def _narrowed(template: Template, number: int, addresses: Sequence[IPAddress]) -> dict[str, Any]:
    first, last, subnet = str(addresses[0]), str(addresses[-1]), str(template.ranges[number].subnet)
    if template.form == "host-local":
        gateway = template.gateways[number]
        return {"subnet": subnet, "rangeStart": first, "rangeEnd": last, **({"gateway": gateway} if gateway else {})}
    return {"range": subnet, "range_start": first, "range_end": last}
