"""Stretches of addresses with what they belong to, and which of them meet. No I/O."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from typing import Generic, TypeVar

from homeport.ipam.ranges import Span
from homeport.model.addresses import Family

T = TypeVar("T")


class SpanIndex(Generic[T]):
    """What lies where. Many spans are looked through fast as long as few of them meet."""

    def __init__(self, entries: Iterable[tuple[Span, T]]) -> None:
        entries = sorted(entries, key=lambda entry: int(entry[0].first))
        self._entries: Mapping[Family, list[tuple[Span, T]]] = {4: [], 6: []}
        self._starts: Mapping[Family, list[int]] = {4: [], 6: []}
        self._reach: Mapping[Family, list[int]] = {4: [], 6: []}  # the last address of this entry and all before it
        for span, what in entries:
            family = span.first.version
            reach = self._reach[family]
            self._entries[family].append((span, what))
            self._starts[family].append(int(span.first))
            reach.append(max(int(span.last), reach[-1] if reach else 0))

    def meeting(self, span: Span) -> Iterator[tuple[Span, T]]:
        """All that have an address in common with `span`."""
        family, first = span.first.version, int(span.first)
        entries, reach = self._entries[family], self._reach[family]
        at = bisect_right(self._starts[family], int(span.last)) - 1
        while at >= 0 and reach[at] >= first:
            if int(entries[at][0].last) >= first:
                yield entries[at]
            at -= 1


def common(one: Span, other: Span) -> Span:
    """The addresses of both; they must meet."""
    return Span(max(one.first, other.first, key=int), min(one.last, other.last, key=int))
