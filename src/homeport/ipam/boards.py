"""Allocations of now and of a plan, by place and by slot. No I/O."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from homeport.ipam.allocations import Allocation
from homeport.ipam.deciding import Want
from homeport.ipam.identities import Slot
from homeport.ipam.ranges import Span, free_spans, merge_spans
from homeport.model.addresses import IPAddress


class PlanBoard:
    """What is allocated and planned. It is only added to, so that a search goes on where the last one ended."""

    def __init__(self, allocated: Sequence[Allocation]) -> None:
        self.present = {(a.scope, a.address): a for a in allocated}
        self._of_slot: dict[Slot, dict[tuple[str, IPAddress], Allocation]] = {}
        self._searches: dict[tuple[str, Span, tuple[Span, ...]], _Search] = {}
        for allocation in allocated:
            self.put(allocation)

    def put(self, allocation: Allocation) -> None:
        place = (allocation.scope, allocation.address)
        before = self.present.get(place)
        if before is not None:
            self._of_slot.get(before.slot, {}).pop(place, None)
        self.present[place] = allocation
        self._of_slot.setdefault(allocation.slot, {})[place] = allocation

    def of_slot(self, slot: Slot) -> tuple[Allocation, ...]:
        return tuple(self._of_slot.get(slot, {}).values())

    def get(self, scope: str, address: IPAddress) -> Allocation | None:
        return self.present.get((scope, address))

    def free(self, want: Want, count: int) -> Sequence[IPAddress]:  # noqa: ARG002 -- one is enough: it is really free
        span, withheld = want.range.span, merge_spans([*want.range.withheld, *want.withheld])
        search = self._searches.setdefault((want.scope, span, withheld), _Search(span, withheld))
        while search.next is not None and (want.scope, search.next) in self.present:
            search.advance()
        return () if search.next is None else (search.next,)

    def move(self, allocation: Allocation, want: Want) -> None:
        """A plan does not look into whether a holder is gone: what is held stays its slot's either way."""


class _Search:
    """Addresses of a span in order; `next` is the one to look at, None behind the last."""

    def __init__(self, span: Span, withheld: tuple[Span, ...]) -> None:
        self._addresses = _addresses(span, withheld)
        self.next = next(self._addresses, None)

    def advance(self) -> None:
        self.next = next(self._addresses, None)


def _addresses(span: Span, withheld: Sequence[Span]) -> Iterator[IPAddress]:
    for part in free_spans(span, withheld):
        address = part.first
        while address != part.last:
            yield address
            address += 1
        yield address
