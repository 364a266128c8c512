"""What a network and a workload say about stickiness: the `sticky` section and two annotations. No I/O.

docs/identity.md "Configuration". Errors name the key and, in a map, the entry (E16).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import lru_cache
from typing import Any, Literal

import msgspec

from homeport.cni import documents
from homeport.ipam.allocations import Retention
from homeport.ipam.identities import Workload
from homeport.ipam.ranges import Range, Span, match_ranges, merge_spans, parse_address
from homeport.ipam.replicas import ReplicaKind
from homeport.model.addresses import IPAddress
from homeport.model.errors import InvalidNetConf

ADDRESSES = "homeport.dev/addresses"
RETENTION = "homeport.dev/retention"

Entry = tuple[IPAddress, ...]
"""A replica's addresses: at most one for each range; a range without one is served in order."""

_DURATION = re.compile(r"(\d+)(d|h|m|s)")
_UNITS = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}


class AddressMap(msgspec.Struct, frozen=True):
    """A replica's addresses by its place: the first entry is the lowest ordinal's. `source` names it in errors.

    `spans` are all its addresses, which others keep away from.
    """

    source: str
    entries: tuple[Entry, ...]
    spans: tuple[Span, ...]

    def entry(self, ordinal: int, *, start: int, replicas: int) -> Entry:
        """The addresses of one replica; `InvalidNetConf` when the map has none for it (R3, E16)."""
        place = ordinal - start
        if 0 <= place < len(self.entries):
            return self.entries[place]
        raise InvalidNetConf(
            f"{self.source}: found {len(self.entries)} entries for {replicas} replicas from ordinal {start}, "
            f"expected entry {place} for ordinal {ordinal}"
        )


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """The `sticky` section of a network. `maps` is keyed as in the section: `NAMESPACE/WORKLOAD[@IFNAME]`."""

    order: Literal["ordinal", "lowest"] = "ordinal"
    retention: Retention = Retention()
    maps: Mapping[str, AddressMap] = {}
    kinds: tuple[ReplicaKind, ...] = ()


class _RetentionKeys(msgspec.Struct, frozen=True, rename="camel"):
    when_scaled: Literal["Retain", "Release"] | None = None
    when_deleted: Literal["Retain", "Release"] | None = None
    retain_for: str | None = None
    adopt: Literal["SameName", "Never"] | None = None

    def over(self, base: Retention, at: str) -> Retention:
        """`base` with the given keys replaced."""
        changes: dict[str, Any] = {
            name: value
            for name in ("when_scaled", "when_deleted", "adopt")
            if (value := getattr(self, name)) is not None
        }
        if self.retain_for is not None:
            changes["retain_for"] = parse_duration(self.retain_for, f"{at}.retainFor")
        return msgspec.structs.replace(base, **changes)


class _StickyKeys(_RetentionKeys, frozen=True, rename="camel"):
    order: Literal["ordinal", "lowest"] = "ordinal"
    replicas: dict[str, list[str | list[str]]] = {}
    kinds: tuple[ReplicaKind, ...] = ()


def parse_policy(sticky: object, ranges: Sequence[Range], *, at: str = "ipam.sticky") -> Policy | None:
    """The policy of a network; None when `"sticky": false` says that no address of it belongs to a replica.

    The maps are checked against `ranges`, and against one another: an address stands in all of them once.
    """
    if sticky is False:
        return None
    if sticky is None or sticky is True:
        return Policy()
    if not isinstance(sticky, Mapping):
        raise InvalidNetConf(f'key "{at}": found {documents.shown(sticky)}, expected true, false or an object')
    _require_known(sticky, _StickyKeys, f'key "{at}"')
    keys = documents.convert(sticky, _StickyKeys, at=at)
    maps = {
        name: _parse_map(entries, ranges, f'key "{at}.replicas["{name}"]"') for name, entries in keys.replicas.items()
    }
    _require_distinct(list(maps.values()))
    return Policy(order=keys.order, retention=keys.over(Retention(), at), maps=maps, kinds=keys.kinds)


def map_for(
    policy: Policy,
    workload: Workload,
    annotations: Mapping[str, str],
    *,
    network: str,
    ifname: str,
    ranges: Sequence[Range],
) -> AddressMap | None:
    """The map that holds for one interface of a workload's replicas: its annotation, else the network's; or None.

    A key that names the interface (`multustest@net1`) goes before one that does not.
    """
    text = annotations.get(ADDRESSES)
    if text is not None:
        annotated = _annotated_map(text, f'annotation "{ADDRESSES}" of {workload}', network, ifname, tuple(ranges))
        if annotated is not None:
            return annotated
    name = f"{workload.namespace}/{workload.name}"
    return policy.maps.get(f"{name}@{ifname}") or policy.maps.get(name)


@lru_cache(maxsize=64)
def _annotated_map(text: str, at: str, network: str, ifname: str, ranges: tuple[Range, ...]) -> AddressMap | None:
    """Remembered, since a workload's replicas all ask for the same."""
    given = documents.convert(_decode(text, at), dict[str, list[str | list[str]]], at=at)
    for key in (f"{network}@{ifname}", network):
        if key in given:
            annotated = _parse_map(given[key], ranges, f'{at}, "{key}"')
            _require_distinct([annotated])
            return annotated
    return None


def retention_for(policy: Policy, workload: Workload, annotations: Mapping[str, str]) -> Retention:
    """The network's retention with the workload's annotation over it (R11)."""
    text = annotations.get(RETENTION)
    if text is None:
        return policy.retention
    at = f'annotation "{RETENTION}" of {workload}'
    given = _decode(text, at)
    _require_known(given, _RetentionKeys, at)
    return documents.convert(given, _RetentionKeys, at=at).over(policy.retention, at)


def _require_known(given: Mapping[str, Any], keys: type[msgspec.Struct], at: str) -> None:
    """A misspelt key would leave its default in force without a word: these sections are ours, and strict."""
    known = keys.__struct_encode_fields__
    for key in given:
        if key not in known:
            raise InvalidNetConf(f"{at}: found {documents.shown(key)}, expected only {', '.join(known)}")


def _decode(text: str, at: str) -> Mapping[str, Any]:
    return documents.decode_object(text.encode(), at)


def _parse_map(entries: Sequence[str | Sequence[str]], ranges: Sequence[Range], source: str) -> AddressMap:
    parsed = []
    for n, given in enumerate(entries):
        texts = [given] if isinstance(given, str) else list(given)
        entry = tuple(_parse_entry(text, ranges, f"{source}[{n}]") for text in texts)
        if len(entry) > sum(found is not None for found in match_ranges(ranges, entry)):
            raise InvalidNetConf(f"{source}[{n}]: found {documents.shown(texts)}, expected one address of a range")
        parsed.append(entry)
    spans = merge_spans(Span(address, address) for entry in parsed for address in entry)
    return AddressMap(source, tuple(parsed), spans)


def _parse_entry(text: str, ranges: Sequence[Range], place: str) -> IPAddress:
    try:
        address = parse_address(text, "")
    except InvalidNetConf as e:
        raise InvalidNetConf(f"{place}: found {documents.shown(text)}, expected an IP address") from e
    if any(address in range_ for range_ in ranges):
        return address
    for range_ in ranges:
        if address == range_.gateway:
            raise InvalidNetConf(f"{place}: found {address}, which is the gateway, expected an address to hand out")
        if any(address in span for span in range_.withheld):
            raise InvalidNetConf(f"{place}: found {address}, which is excluded, expected an address to hand out")
    found = " and ".join(str(range_.span) for range_ in ranges) or "no range at all"
    raise InvalidNetConf(f"{place}: found {address}, expected an address of {found}")


def _require_distinct(maps: Sequence[AddressMap]) -> None:
    seen: dict[IPAddress, str] = {}
    for map_ in maps:
        for n, entry in enumerate(map_.entries):
            for address in entry:
                place = f"{map_.source}[{n}]"
                if address in seen:
                    raise InvalidNetConf(f"{place}: found {address}, which stands in {seen[address]} already")
                seen[address] = place


def parse_duration(text: str, key: str) -> timedelta:
    """`72h`, `1h30m`, `7d`; seconds are the smallest unit. Raises `InvalidNetConf` naming the key."""
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise InvalidNetConf(f'key "{key}": found {documents.shown(text)}, expected a duration such as 72h or 1h30m')
    try:
        return sum((timedelta(**{_UNITS[unit]: int(number)}) for number, unit in parts), timedelta())
    except (OverflowError, ValueError) as e:
        raise InvalidNetConf(f'key "{key}": found {documents.shown(text)}, expected a shorter duration') from e
