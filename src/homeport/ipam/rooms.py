"""How much room a plan leaves: in every range, and for more replicas of every workload. No I/O."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from homeport.ipam.pools import Pool
from homeport.ipam.ranges import Span
from homeport.model.addresses import IPAddress
from homeport.model.errors import InvalidNetConf

Key = tuple[str, Span]
"""A range of one scope."""


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """One range: of `usable` addresses so many are `taken` now, `planned` beside, and `surge` needed in an update."""

    scope: str
    span: Span
    networks: tuple[str, ...]
    usable: int
    taken: int
    planned: int
    surge: int

    @property
    def left(self) -> int:
        """Below zero by what is missing in an update."""
        return self.usable - self.taken - self.planned - self.surge


class Interface(msgspec.Struct, frozen=True):
    """One interface of every replica of a workload. `entries` is the length of its map, None without one."""

    pool: Pool
    entries: int | None = None


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """How many more replicas of a workload there is room for, and what ends first."""

    workload: str
    more: int
    limit: str


def rooms_of(
    pools: Iterable[Pool],
    now: Collection[tuple[str, IPAddress]],
    then: Collection[tuple[str, IPAddress]],
    surges: Mapping[Key, int],
) -> Mapping[Key, Room]:
    """`now` are the places allocated now, `then` those that are when the plan has come true, `now` included."""
    found: dict[Key, Room] = {}
    for pool in pools:
        for pooled in pool.ranges:
            key = (pooled.scope, pooled.range.span)
            if key in found:
                known = found[key].networks
                networks = known if pool.network in known else (*known, pool.network)
                found[key] = msgspec.structs.replace(found[key], networks=networks)
                continue
            inside = [place for place in then if place[0] == pooled.scope and place[1] in pooled.range]
            taken = sum(place in now for place in inside)
            found[key] = Room(
                scope=pooled.scope,
                span=pooled.range.span,
                networks=(pool.network,),
                usable=pooled.range.usable,
                taken=taken,
                planned=len(inside) - taken,
                surge=surges.get(key, 0),
            )
    return found


class Surge(msgspec.Struct, frozen=True):
    """How many pods more there may be of a workload while they are replaced: a number, or a share rounded up."""

    number: int = 0
    percent: int = 0

    def of(self, count: int) -> int:
        return self.number + -(-count * self.percent // 100)


NO_SURGE = Surge()
_DEFAULT_SURGE = "25%"  # of a Deployment, apps/v1
_STRATEGIES = {"Deployment": ("strategy", _DEFAULT_SURGE), "DaemonSet": ("updateStrategy", "0")}


def surge_of(kind: str, spec: Mapping[str, Any], *, at: str) -> Surge:
    """What the spec of a workload of apps/v1 says, or leaves to the default; none of kinds that replace in place.

    Raises `InvalidNetConf` beginning with `at`.
    """
    if kind not in _STRATEGIES:
        return NO_SURGE
    key, default = _STRATEGIES[kind]
    strategy = spec.get(key)
    strategy = strategy if isinstance(strategy, Mapping) else {}
    if strategy.get("type", "RollingUpdate") != "RollingUpdate":
        return NO_SURGE
    rolling = strategy.get("rollingUpdate")
    text = str(rolling.get("maxSurge", default) if isinstance(rolling, Mapping) else default)
    if not re.fullmatch(r"[0-9]+%?", text):
        raise InvalidNetConf(f'{at}: found "{text}", expected a number such as 1 or 25%')
    return Surge(percent=int(text[:-1])) if text.endswith("%") else Surge(number=int(text))


def fit_of(
    workload: str, replicas: int, interfaces: Sequence[Interface], rooms: Mapping[Key, Room], surge: Surge = NO_SURGE
) -> Fit:
    """A replica more needs an address of every range of every interface, or an entry of the interface's map.

    With more replicas, more of them are replaced at once.
    """
    limits: list[tuple[int, str]] = []
    uses: Counter[Key] = Counter()
    for interface in interfaces:
        if interface.entries is not None:
            of_map = f"the map of {interface.pool.network} has {interface.entries} entries"
            limits.append((interface.entries - replicas, of_map))
        else:
            uses.update((r.scope, r.range.span) for r in interface.pool.ranges)
    for key, times in uses.items():
        left = max(rooms[key].left, 0)
        limits.append((_most(left // times, replicas, surge), f"{key[1]} has {left} left"))
    more, limit = min(limits, default=(0, "no range"), key=lambda entry: entry[0])
    return Fit(workload=workload, more=max(more, 0), limit=limit)


def _most(left: int, replicas: int, surge: Surge) -> int:
    """The most replicas more that fit into what is left, with what their surge adds."""
    low, high = 0, left
    while low < high:
        middle = (low + high + 1) // 2
        if middle + surge.of(replicas + middle) - surge.of(replicas) <= left:
            low = middle
        else:
            high = middle - 1
    return low
