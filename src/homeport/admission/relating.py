"""What of the cluster has to do with an object under review: it may be large, and few rules reach far. No I/O."""

from __future__ import annotations

import msgspec

from homeport.admission.subjects import Subject
from homeport.lint.manifests import ADDRESSES
from homeport.lint.pools import pools, statics

_LINKS = ("master", "bridge")
_ASKED = "ips"


class Traits(msgspec.Struct, frozen=True):
    """By what a network may be related to another. A span is (IP version, first, last).

    `room` is how many pods it has addresses for at least.
    """

    spans: tuple[tuple[int, int, int], ...] = ()
    words: frozenset[tuple[str, str]] = frozenset()
    room: int = 0

    def overlaps(self, other: Traits) -> bool:
        """Whether some address is in ranges of both."""
        return any(
            version == theirs and first <= last_of and first_of <= last
            for version, first, last in self.spans
            for theirs, first_of, last_of in other.spans
        )

    def shares(self, other: Traits) -> bool:
        """Whether both are on one link, or have one name."""
        return not self.words.isdisjoint(other.words)


def traits_of(subject: Subject) -> Traits:
    """Of a network; whatever of it cannot be read relates it to nothing."""
    spans: list[tuple[int, int, int]] = []
    words: set[tuple[str, str]] = set()
    rooms: list[int] = []
    for network in subject.manifests.networks:
        for pool in pools(network):
            subnet, whole = pool.subnet(), pool.parsed()
            if subnet is not None:
                spans.append((subnet.version, int(subnet.network_address), int(subnet.broadcast_address)))
            rooms.append(whole.usable if whole is not None else 0)
        rooms += [1 for _ in statics(network)]
        for plugin in network.plugins:
            words |= {(key, text) for key in _LINKS if (text := plugin.text(key))}
        name = network.config.text("name") if network.config is not None else None
        words.add(("name", name or network.name))
    return Traits(tuple(spans), frozenset(words), min(rooms, default=0))


def is_plain(subject: Subject) -> bool:
    """Whether it asks for no certain address: then it concerns others by how many it asks for, if at all."""
    return not any(
        ADDRESSES in workload.annotations or any(_ASKED in text.scalar.text for text in workload.annotations.values())
        for workload in subject.manifests.workloads
    )
