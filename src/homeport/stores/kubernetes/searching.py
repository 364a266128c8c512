"""Finding free addresses without a look at every taken one: hints, what this process learned, and names. I/O: those.

A range with a hint costs no request. Of one without the names are asked for once, and then it is known by what happens.
That nothing is free is said only where the names have been asked for since the question, or, in a range so large that
this takes long, not long before it.
"""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Callable, Sequence

import msgspec

from homeport.ipam.ranges import Span
from homeport.model.addresses import IPAddress
from homeport.ports import Objects, Place
from homeport.stores.kubernetes import names
from homeport.stores.kubernetes.candidates import Base, Window, choose
from homeport.stores.kubernetes.hints import Hints
from homeport.stores.kubernetes.resources import IPALLOCATIONS
from homeport.stores.kubernetes.runs import Runs

_LAG_SECONDS = 30.0  # until then a hint may not know yet what this process does
_CACHE_LAG_SECONDS = 5.0  # until then the API server's own cache may not
_GIVEN_SECONDS = 5.0
_COLLISIONS_MAX = 8  # one after the other; then what is known is worth nothing
_COLLIDING_SHARE, _FULL_SHARE = 20, 4  # asking for names takes no more than that part of the time
_LONG_SECONDS = 0.1
_LEARNED_MAX = 20_000

_Field = tuple[str, Span]  # a scope, and a span of addresses searched in it


class _Given(msgspec.Struct, frozen=True):
    """What a thread is about to try."""

    scope: str
    addresses: frozenset[IPAddress]
    until: float


class Searcher:
    """Safe with many threads: each is given other candidates, while there are enough."""

    def __init__(
        self,
        objects: Objects,
        hints: Hints,
        *,
        monotonic: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self.hints = hints
        self._objects, self._monotonic = objects, monotonic
        self._rng = rng
        self._lock = threading.Lock()
        self._asking = threading.Lock()
        self._asking_seconds = 0.0  # that the last asking for names took
        self._asked_at: dict[_Field, float] = {}
        self._bases: dict[_Field, Base] = {}
        self._windows: dict[str, Window] = {}
        self._given: dict[int, _Given] = {}
        self._learned: dict[Place, float] = {}  # places known to be taken, and since when
        self._freed: dict[Place, float] = {}  # places that this process gave back, and when
        self._doubted: set[Place] = set()

    def lowest_free(
        self, scope: str, span: Span, excluding: Sequence[Span], *, count: int, near: IPAddress | None
    ) -> tuple[IPAddress, ...]:
        """See `AllocationStore.lowest_free`."""
        asked, told = self._monotonic(), False
        while True:
            found = self._offer(scope, span, excluding, count, near, told=told)
            if not found and not told:
                self._ask(scope, span, asked)
                told = True
            elif not self._refute(scope, found):
                return found

    def claimed(self, scope: str, address: IPAddress) -> None:
        """This process has just created the allocation."""
        with self._lock:
            if self._was_given(scope, address):
                self._window(scope).succeeded()
                del self._given[threading.get_ident()]
            self._learn(scope, address)

    def taken(self, scope: str, address: IPAddress) -> None:
        """Somebody has the address."""
        with self._lock:
            if self._was_given(scope, address):
                self._window(scope).collided()
            self._learn(scope, address)

    def freed(self, scope: str, address: IPAddress) -> None:
        """This process has just deleted the allocation."""
        with self._lock:
            self._learned.pop((scope, address), None)
            now = self._monotonic()
            self._freed = {place: at for place, at in self._freed.items() if now - at < _CACHE_LAG_SECONDS}
            self._freed[scope, address] = now
            for base in self._bases_with(scope, address):
                base.taken.discard(int(address))

    # --- inside ---

    def _offer(
        self, scope: str, span: Span, excluding: Sequence[Span], count: int, near: IPAddress | None, *, told: bool
    ) -> tuple[IPAddress, ...]:
        """What looks free; nothing where too little is known, unless the names have just been `told`."""
        with self._lock:
            base = self._base(scope, span)
            if base is None or (self._is_worthless(scope, base) and not told):
                return ()
            return self._choose(base, scope, excluding, count, near)

    def _refute(self, scope: str, found: Sequence[IPAddress]) -> bool:
        """Makes sure of those in doubt, by name; whether any was taken."""
        with self._lock:
            doubted = [a for a in found if (scope, a) in self._doubted]
        taken = [a for a in doubted if self._exists(scope, a)]
        with self._lock:
            self._doubted.difference_update((scope, a) for a in doubted)
            for address in taken:
                self._learn(scope, address)  # no collision: nobody else was in the way
        return bool(taken)

    def _ask(self, scope: str, span: Span, asked: float) -> None:
        """Asks for all names, unless that was done since `asked`, or not long before where it takes long."""
        with self._asking:
            last = self._asked_at.get((scope, span), -math.inf)
            took = self._asking_seconds
            if last > (asked if took < _LONG_SECONDS else asked - took * _FULL_SHARE):
                return
            hint, began = self.hints.covering(scope, span), self._monotonic()
            told = self._objects.names(IPALLOCATIONS, labels={names.SCOPE: names.scope_label(scope)})
            self._asking_seconds = self._monotonic() - began
            self._asked_at[scope, span] = began
        found = {address for name in told if (address := names.address_in(name, scope)) is not None and address in span}
        with self._lock:
            self._take_over(scope, span, found, began, hint.version if hint is not None else "")

    def _exists(self, scope: str, address: IPAddress) -> bool:
        return self._objects.get(IPALLOCATIONS, names.allocation_name(scope, address)) is not None

    # --- inside, with the lock ---

    def _take_over(self, scope: str, span: Span, found: set[IPAddress], at: float, version: str) -> None:
        """Knows from now on what was found taken `at` that time; a newer hint than `version` will replace it.

        In doubt is what was known to be taken, and has no name: it was given back, or is not in the API server's cache
        yet, or lacks the label that names are asked for by.
        """
        found -= {a for (of, a), freed in self._freed.items() if of == scope and at - freed < _CACHE_LAG_SECONDS}
        for place in [p for p, since in self._learned.items() if p[0] == scope and p[1] in span and since < at]:
            del self._learned[place]
            if place[1] not in found:
                self._doubted.add(place)
        base = Base(span, Runs(map(int, found)), until=int(span.last) + 1, at=at, version=version)
        self._overlay(base, scope)
        self._bases[scope, span] = base
        self._window(scope).collisions = 0

    def _base(self, scope: str, span: Span) -> Base | None:
        """What is known of the span now; None for nothing."""
        base, hint, now = self._bases.get((scope, span)), self.hints.covering(scope, span), self._monotonic()
        if hint is None or (base is not None and base.version == hint.version):
            return base
        report = hint.report
        start = int(report.first)
        until = int(report.last) + 1 if report.up_to is None else start + report.up_to
        known = Base(span, report.taken.shifted(start), until=until, at=now, version=hint.version)
        self._learned = {place: at for place, at in self._learned.items() if now - at < _LAG_SECONDS}
        self._overlay(known, scope)
        self._bases[scope, span] = known
        return known

    def _choose(
        self, base: Base, scope: str, excluding: Sequence[Span], count: int, near: IPAddress | None
    ) -> tuple[IPAddress, ...]:
        me, now = threading.get_ident(), self._monotonic()
        self._given = {t: given for t, given in self._given.items() if t != me and given.until > now}
        others = frozenset[IPAddress]().union(*(g.addresses for g in self._given.values() if g.scope == scope))
        window = self._window(scope).size
        for avoided in (others, frozenset[IPAddress]()):
            free = base.free(excluding, near)
            found = choose(free, avoided, count=count, window=window, rng=self._rng)
            if found:
                self._given[me] = _Given(scope, frozenset(found), now + _GIVEN_SECONDS)
                return found
        return ()

    def _is_worthless(self, scope: str, base: Base) -> bool:
        if self._window(scope).collisions < _COLLISIONS_MAX:
            return False
        return self._monotonic() - base.at > max(1.0, self._asking_seconds * _COLLIDING_SHARE)

    def _was_given(self, scope: str, address: IPAddress) -> bool:
        given = self._given.get(threading.get_ident())
        return given is not None and given.scope == scope and address in given.addresses

    def _learn(self, scope: str, address: IPAddress) -> None:
        self._learned[scope, address] = now = self._monotonic()
        self._freed.pop((scope, address), None)
        self._doubted.discard((scope, address))
        if len(self._learned) > _LEARNED_MAX:
            self._learned = {place: at for place, at in self._learned.items() if now - at < _LAG_SECONDS}
        for base in self._bases_with(scope, address):
            base.taken.add(int(address))

    def _overlay(self, base: Base, scope: str) -> None:
        """What was learned since, which the source of the base did not know yet."""
        for learned_scope, address in self._learned:
            if learned_scope == scope and address in base.span:
                base.taken.add(int(address))

    def _bases_with(self, scope: str, address: IPAddress) -> list[Base]:
        return [base for (of, span), base in self._bases.items() if of == scope and address in span]

    def _window(self, scope: str) -> Window:
        return self._windows.setdefault(scope, Window())
