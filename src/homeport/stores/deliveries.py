"""Telling a store elsewhere what a node has let go, noted or bound without it: again and again until it is done.

Whatever the claim says is told at the version it carries. Where another stands by then, what is there decides: the
node's own is told anew, anybody else's is left alone (docs/identity.md R7, R10, R12).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

import msgspec

from homeport.ipam.allocations import Allocation
from homeport.ipam.ranges import Span
from homeport.model.errors import CniError, TryAgainLater, Unreachable
from homeport.ports import AllocationStore, AlreadyExists, Conflict, Place
from homeport.stores.claims import Claims, HeldClaim, State, is_same_pod

_LATE = timedelta(seconds=10)  # a request that was given up may still be carried out: commonly within this time
_ATTEMPTS = 4  # to tell one thing while it changes at the same time
_UNANSWERED = 3  # questions in vain after which a round of deliveries ends
_FRESH_SECONDS = 0.02  # after an answer, in which the other store is taken to be answering
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 15.0  # between rounds that ended like that

Trouble = Callable[[HeldClaim, str], None]


class Deliveries:
    """What is pending of `claims`, to `remote`. Safe with many threads, which take turns.

    `on_trouble` hears of claims that cannot be delivered as they are, with the reason, `on_retained` of what has become
    Retained, as `remote` has it.
    """

    def __init__(
        self,
        remote: AllocationStore,
        claims: Claims,
        *,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        on_trouble: Trouble,
        on_retained: Callable[[Allocation], None],
    ) -> None:
        self._remote = remote
        self._claims = claims
        self._now = now
        self._monotonic = monotonic
        self._on_trouble = on_trouble
        self._on_retained = on_retained
        self._delivering = threading.Lock()
        # On the monotonic clock; of the deliveries, what waits longest goes first.
        self._tried: dict[Place, float] = {}
        self._answered_at = -math.inf
        self._not_before = -math.inf
        self._pause = 0.0

    def pending(self) -> int:
        """How many claims the other store is still to be told of."""
        return len(self._pending())

    def deliver(self) -> int:
        """Tells the other store what it has not been told; how much is left. Ends early while it does not answer, and
        pauses longer and longer then. To be called again and again, and when woken.
        """
        with self._delivering:
            if self._monotonic() >= self._not_before:
                self._deliver(self._pending())
            return self.pending()

    def _pending(self) -> Sequence[HeldClaim]:
        return self._claims.having(lambda claim: claim.is_pending)

    def _deliver(self, pending: Sequence[HeldClaim]) -> None:
        unanswered = 0
        self._tried = {c.place: self._tried[c.place] for c in pending if c.place in self._tried}
        for claim in sorted(pending, key=lambda c: self._tried.get(c.place, -math.inf)):
            self._tried[claim.place] = self._monotonic()
            try:
                self._tell(claim.place)
            except TryAgainLater as e:
                self._on_trouble(claim, str(e))
                unanswered += 1
                if isinstance(e, Unreachable) or unanswered >= _UNANSWERED:
                    self._pause = min(max(2 * self._pause, _FIRST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)
                    self._not_before = self._monotonic() + self._pause
                    return
            except CniError as e:
                self._on_trouble(claim, str(e))

    def deliver_deletions(self, scope: str, span: Span) -> bool:
        """Frees now what was let go of a span; whether that was anything."""
        deletions = self._claims.having(
            lambda c: c.state is State.DELETING and c.place[0] == scope and c.place[1] in span
        )
        with self._delivering:
            for claim in deletions:
                self._tell(claim.place)
        return bool(deletions)

    def _tell(self, place: Place) -> None:
        """Whatever is pending there, until it is told or is moot."""
        for _ in range(_ATTEMPTS):
            claim = self._claims.find(*place)
            if claim is None or not claim.is_pending:
                return
            with suppress(AlreadyExists):  # made by somebody else since it was found absent
                try:
                    self._tell_bound(claim) if claim.is_held else self._tell_release(claim)
                except Conflict:
                    if not self._reconsider(place):
                        return

    def _tell_bound(self, claim: HeldClaim) -> None:
        made = self._remote.replace(claim.allocation, cause=claim.cause)
        self.answered()
        self._claims.swap(claim, msgspec.structs.replace(claim, allocation=made, undelivered=False))

    def _tell_release(self, claim: HeldClaim) -> None:
        """Looks first, where the version is not known, or the other store has been silent: what is sent to one that
        hangs may be done at any later time, and until then nobody here can have the address again.
        """
        is_answering = self._monotonic() - self._answered_at < _FRESH_SECONDS
        if claim.allocation.version == 0 or not is_answering:
            raise Conflict
        told = msgspec.structs.replace(claim, attempted=True)
        if not self._claims.swap(claim, told):
            return
        try:
            self._send(told)
        except Unreachable:
            self._claims.swap(told, claim)
            raise
        self.answered()
        self._claims.swap(told, None)

    def _send(self, claim: HeldClaim) -> None:
        if claim.kept is None:
            self._remote.delete(claim.allocation, cause=claim.cause)
        else:
            self._on_retained(self._remote.replace(claim.kept, cause=claim.cause))

    def _reconsider(self, place: Place) -> bool:
        """After another version was found there than the claim's; False when nothing can be told now."""
        claim = self._claims.find(*place)
        if claim is None or not claim.is_pending:
            return False
        present = self._remote.get(*place)
        self.answered()
        if claim.is_held:
            return self._reconsider_bound(claim, present)
        if present is not None and claim.is_of(present):
            return self._at_version(claim, present.version)
        if claim.allocation.version == 0 and present is None and self._now() - claim.at < _LATE:
            return False
        if claim.attempted and claim.allocation.version:
            # It was done, or is moot. A store that has to do more than one thing ends what it began.
            with suppress(Conflict):
                self._send(claim)
        self._claims.swap(claim, None)
        return False

    def _reconsider_bound(self, claim: HeldClaim, present: Allocation | None) -> bool:
        mine = claim.allocation
        if present is None:
            made = self._remote.create(mine, cause=claim.cause)
            self._claims.swap(claim, msgspec.structs.replace(claim, allocation=made, undelivered=False))
            return False
        if present.slot == mine.slot and (present.holder is None or is_same_pod(present.holder, mine.holder)):
            return self._at_version(claim, present.version)
        self._claims.swap(claim, msgspec.structs.replace(claim, undelivered=False))
        self._on_trouble(claim, f"{mine.address} is {present.phase.value} for {present.slot} by now")
        return False

    def _at_version(self, claim: HeldClaim, version: int) -> bool:
        allocation = msgspec.structs.replace(claim.allocation, version=version)
        self._claims.swap(claim, msgspec.structs.replace(claim, allocation=allocation))
        return True

    def answered(self) -> None:
        """The other store has just answered, whatever."""
        self._pause, self._not_before = 0.0, -math.inf
        self._answered_at = self._monotonic()
