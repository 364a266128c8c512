"""What a slot will be given, found out without doing anything: the decision asked again until it is final. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from homeport.ipam.allocations import Allocation
from homeport.ipam.deciding import AlreadyHeld, Create, Examine, Exhausted, Facts, Search, Take, Taken, Want, decide
from homeport.ipam.moving import Move, Wait
from homeport.ipam.pools import Pool
from homeport.ipam.ranges import Span, merge_spans
from homeport.ipam.wants import match_allocations
from homeport.model.addresses import IPAddress

Foreseen = AlreadyHeld | Create | Take | Examine | Wait | Taken | Exhausted
"""`Examine` where nobody can tell from here whether the holder is gone."""


class Board(Protocol):
    """Allocations as they stand, or will."""

    def get(self, scope: str, address: IPAddress) -> Allocation | None: ...
    def free(self, want: Want, count: int) -> Sequence[IPAddress]:
        """The lowest addresses that the want may have and nobody has; empty when there is none."""

    def move(self, allocation: Allocation, want: Want) -> Move | Wait | None:
        """Whether its holder is proven gone; None when that cannot be told."""


def foresee(want: Want, held: Allocation | None, board: Board) -> Foreseen:
    """The outcome for one range. `held` is the slot's own allocation for it, as `held_for` matches it."""
    facts = Facts(held=held)
    count = 1
    while True:
        match decide(want, facts):
            case Search():
                # Candidates may be out of date: when all are found taken, more are asked for, until there are no more.
                free = tuple(board.free(want, count))
                if free and free == facts.free:
                    return Exhausted()
                facts = msgspec.structs.replace(facts, free=free)
                count *= 2
            case Create(address) as create:
                present = board.get(want.scope, address)
                if present is None:
                    return create
                facts = msgspec.structs.replace(facts, present={**facts.present, address: present})
            case Examine(allocation) as examine:
                move = board.move(allocation, want)
                if move is None:
                    return examine
                facts = msgspec.structs.replace(facts, move=move)
            case final:
                return final


def held_for(pool: Pool, known: Sequence[Allocation], earlier: Sequence[tuple[str, IPAddress]]) -> Allocation | None:
    """What the slot has for the pool's next range, those of `earlier` being served: none takes a later one's."""
    left = msgspec.structs.replace(pool, ranges=pool.ranges[len(earlier) :])
    return match_allocations(left, [a for a in known if (a.scope, a.address) not in earlier])[0]


def next_want(want: Want, earlier: Sequence[tuple[str, IPAddress]]) -> Want:
    """The want without the addresses that the ranges before it were served with."""
    taken = (Span(address, address) for scope, address in earlier if scope == want.scope)
    return msgspec.structs.replace(want, withheld=merge_spans([*want.withheld, *taken]))
