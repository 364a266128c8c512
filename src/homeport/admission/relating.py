"""Which networks have to do with one another: ranges that overlap, one link of the nodes, one name. No I/O."""

from __future__ import annotations

import msgspec

from homeport.admission.subjects import Subject
from homeport.lint.pools import pools

_LINKS = ("master", "bridge")


class Traits(msgspec.Struct, frozen=True):
    """By what a network may be related to another. A span is (IP version, first, last)."""

    spans: tuple[tuple[int, int, int], ...] = ()
    words: frozenset[tuple[str, str]] = frozenset()

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
    for network in subject.manifests.networks:
        for pool in pools(network):
            subnet = pool.subnet()
            if subnet is not None:
                spans.append((subnet.version, int(subnet.network_address), int(subnet.broadcast_address)))
        for plugin in network.plugins:
            words |= {(key, text) for key in _LINKS if (text := plugin.text(key))}
        name = network.config.text("name") if network.config is not None else None
        words.add(("name", name or network.name))
    return Traits(tuple(spans), frozenset(words))
