"""Making what was planned, and taking it back. I/O: the stores and objects given.

Each step is one request, safe to repeat, and complete in itself: a migration that was broken off goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

import msgspec

from homeport.ipam.allocations import Allocation
from homeport.migration.facts import Import, Origin, Plan
from homeport.migration.marking import Note
from homeport.model.errors import IOFailure
from homeport.ports import AllocationStore, AlreadyExists, Conflict

CAUSE = "imported from Whereabouts"
CAUSE_BACK = "the migration from Whereabouts was rolled back"

GiveBack = Callable[[Sequence[tuple[Allocation, Origin]]], None]
_BATCH = 200  # addresses for which Whereabouts' pools are read once


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one address. `failed` says that it is not as it should be."""

    allocation: Allocation
    outcome: str
    failed: bool = False


def apply(
    plan: Plan,
    store: AllocationStore,
    *,
    noting: Callable[[Note], AbstractContextManager[None]],
    protect: Callable[[Allocation], str] | None = None,
) -> Iterator[Done]:
    """Makes the plan's allocations, one after the other, and tells of each. Raises `TryAgainLater` when the API server
    does not answer: to be applied again, which goes on from there.

    `protect`, where nodes with Whereabouts remain, makes them see an allocation that is there; it gives what speaks
    against that, or "".
    """
    for one in plan.imports:
        done = _make(one, store, noting)
        if protect is not None and not done.failed:
            trouble = protect(done.allocation)
            if trouble:
                done = Done(allocation=done.allocation, outcome=trouble, failed=True)
        yield done


def roll_back(
    made: Sequence[tuple[Allocation, Note]], store: AllocationStore, *, give_back: GiveBack
) -> Iterator[Done]:
    """Removes what `apply` made and nobody has used since, each after `give_back` made it Whereabouts' again."""
    for start in range(0, len(made), _BATCH):
        batch = made[start : start + _BATCH]
        give_back([(a, note.origin) for a, note in batch if note.still_holds(a)])
        done = [_remove(a, note, store) for a, note in batch]
        # Somebody who keeps allocations seen may have made entries ours again in between; now there is none to keep.
        give_back([(a, note.origin) for (a, note), one in zip(batch, done, strict=True) if not one.failed])
        yield from done


def _remove(allocation: Allocation, note: Note, store: AllocationStore) -> Done:
    if not note.still_holds(allocation):
        told = f"kept: it is {allocation.phase.value} since {allocation.since:%Y-%m-%d %H:%M:%S} UTC by Homeport"
        return Done(allocation=allocation, outcome=told, failed=True)
    try:
        store.delete(allocation, cause=CAUSE_BACK)
    except Conflict:
        return Done(allocation=allocation, outcome="kept: it changed at the same time", failed=True)
    return Done(allocation=allocation, outcome="removed")


def _make(one: Import, store: AllocationStore, noting: Callable[[Note], AbstractContextManager[None]]) -> Done:
    if one.known is not None:
        return Done(allocation=one.known, outcome="there already")
    try:
        with noting(Note.of(one.allocation, one.origin)):
            made = store.create(one.allocation, cause=CAUSE)
    except AlreadyExists as e:
        if e.present.slot == one.allocation.slot:
            return Done(allocation=e.present, outcome="there already")
        told = f"taken meanwhile: {e.present.phase.value} for {e.present.slot}"
        return Done(allocation=e.present, outcome=told, failed=True)
    except IOFailure as e:
        return Done(allocation=one.allocation, outcome=f"failed: {e}", failed=True)
    return Done(allocation=made, outcome="imported")


def counted(done: Sequence[Done]) -> Mapping[str, int]:
    """How many of each outcome that was as it should be, and how many were not."""
    counts: dict[str, int] = {}
    for one in done:
        key = "failed" if one.failed else one.outcome
        counts[key] = counts.get(key, 0) + 1
    return counts
