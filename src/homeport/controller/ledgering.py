"""Keeping the ledger: every change that the watch tells of goes into IPLedgers, in its order and once (R15).

I/O: `ports.Objects`. A chunk is filled by rewriting it, then the next number is begun. Each write is conditional, so
that of two controllers at once each change is written by one. A controller that starts goes on at the version that the
last chunk ends with; where the API server has forgotten that one, it records how things differ from what the ledger
says.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from datetime import timedelta

import msgspec

from homeport.controller.caching import AllocationCache
from homeport.controller.reporting import Reporter
from homeport.ipam.allocations import Allocation
from homeport.model.errors import DecodeFailure
from homeport.ports import ApiObject, Clock, LedgerEntry, ObjectChanged, ObjectExists, Objects
from homeport.stores.kubernetes import names
from homeport.stores.kubernetes.ledger import Chronicle, chunk_body, decode_chunk, decode_entries
from homeport.stores.kubernetes.resources import IPLEDGERS
from homeport.stores.kubernetes.wire import Record

OPEN = "homeport.dev/open"
"""The label of the chunk that is being filled."""

CHUNK_ENTRIES = 200
FLUSH_SECONDS = 2.0
_TOUCH_SECONDS = 60.0  # well within the minutes that an API server keeps versions
_FLUSH_ATTEMPTS = 500  # at a chunk each; what is left waits for the next time
_PRUNE_SECONDS = 3600.0
_PRUNED_AT_ONCE = 50


class Keeping(msgspec.Struct, frozen=True, kw_only=True):
    """How long entries are kept: both limits hold."""

    days: int = 30
    entries: int = 1_000_000


class _Tail(msgspec.Struct, frozen=True):
    """The last chunk: its number, version, entries, and the version of allocations it goes up to.

    One that cannot be read is left as it is: nothing is added to it.
    """

    number: int
    version: str
    entries: tuple[LedgerEntry, ...] = ()
    through: int = 0
    readable: bool = True

    @property
    def has_room(self) -> bool:
        return self.readable and len(self.entries) < CHUNK_ENTRIES


class LedgerKeeper:
    """`changed`, `gone` and `listed` are for the watch's thread, the rest for the controller's."""

    def __init__(
        self,
        objects: Objects,
        clock: Clock,
        reporter: Reporter,
        *,
        keeping: Keeping,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self._objects, self._clock, self._reporter, self._keeping = objects, clock, reporter, keeping
        self._wake = wake
        self.progress: Callable[[], str] = lambda: ""  # the watch's version: what came later is not in order yet
        self._lock = threading.Lock()
        self._chronicle = Chronicle()
        self._waiting: list[tuple[int, LedgerEntry]] = []
        self._vanished: list[LedgerEntry] = []  # of what is missing from a list that is not told to its end
        self._due_at = 0.0
        self._told = 0  # the highest version that anything was noted at
        self._begun = False
        self._found: tuple[int, list[tuple[str, Allocation]]] | None = None  # at a list, where the ledger has a gap
        self._tail: _Tail | None = None
        self._written_at = 0.0
        self._pruned_at: float | None = None
        self._oldest: int | None = None

    # --- what happens ---

    def begin(self) -> str:
        """Where the watch is to go on from, "" for anywhere."""
        tail = self._last()
        return str(tail.through) if tail is not None and tail.through else ""

    def listed(self, version: str, known: Callable[[], list[tuple[str, Allocation]]]) -> None:
        """A complete list has been told. `known` gives what there is by now."""
        vanished, self._vanished = self._vanished, []
        for entry in vanished:
            self._add(int(version), entry)
        with self._lock:
            if self._begun and int(version) >= max(self._told, self._tail.through if self._tail is not None else 0):
                return
            if not self._begun:
                self._told = int(version)
                has_gap = self._tail is None or self._tail.through != int(version)
            else:  # the database was set back: what it said since is no more, and the ledger is as old as the rest
                self._waiting, self._chronicle, self._told = [], Chronicle(), int(version)
                self._tail = self._oldest = None
                has_gap = True
            self._begun = True
            if has_gap:
                self._found = (int(version), known())
                self._reporter.ledger_waiting.set(len(self._found[1]))

    def changed(self, before: Allocation | None, after: Record) -> None:
        if not self._begun:
            return
        entry = self._chronicle.changed(Record(allocation=before) if before is not None else None, after)
        if entry is not None:
            self._add(after.allocation.version, entry)

    def gone(self, before: Allocation | None, version: str) -> None:
        """`version` is that of its end, "" where only a list was without it."""
        if not self._begun or before is None:
            return
        entry = self._chronicle.gone(Record(allocation=before), now=self._clock.now())
        if version:
            self._add(int(version), entry)
        else:
            self._vanished.append(entry)

    def _add(self, version: int, entry: LedgerEntry) -> None:
        with self._lock:
            self._told = max(self._told, version)
            if not self._waiting:
                self._due_at = self._clock.monotonic() + FLUSH_SECONDS
            self._waiting.append((version, entry))
            self._reporter.ledger_waiting.set(len(self._waiting))
            wake = len(self._waiting) == 1
            if len(self._waiting) == CHUNK_ENTRIES:
                self._due_at, wake = self._clock.monotonic(), True
        if wake:
            self._wake()

    # --- writing it down ---

    def due_in(self) -> float | None:
        """Seconds until there is something to write; None when nothing waits."""
        now = self._clock.monotonic()
        with self._lock:
            if self._found is not None:
                return 0.0
            if self._waiting:
                return max(0.0, self._due_at - now)
        if self._tail is not None and self._reached() > self._tail.through:
            return max(0.0, self._written_at + _TOUCH_SECONDS - now)
        return None

    def flush(self) -> None:
        """Writes what waits and is in order. Raises what the API server raises; then it waits on."""
        self._due_at = self._clock.monotonic() + FLUSH_SECONDS
        if self._found is not None:
            self._fill_gap(*self._found)
        for _ in range(_FLUSH_ATTEMPTS):
            if not self._flush_some():
                return

    def _flush_some(self) -> bool:
        """As much as goes into one chunk; whether there may be more."""
        reached = self._reached()
        with self._lock:
            self._waiting.sort(key=lambda item: item[0])
            ready = [item for item in self._waiting[: CHUNK_ENTRIES + 1] if item[0] <= reached]
        whole = len(ready) <= CHUNK_ENTRIES
        ready = ready[:CHUNK_ENTRIES]
        tail = self._tail or self._last()
        news = [item for item in ready if tail is None or item[0] > tail.through]
        try:
            written = self._write(tail, news, reached if whole else 0)
        except (ObjectChanged, ObjectExists):
            self._tail = None  # somebody else has written: look again
            return True
        except BaseException:
            self._tail = None
            raise
        self._written_at = self._clock.monotonic()
        with self._lock:
            del self._waiting[: len(ready) - len(news) + written]
            self._reporter.ledger_waiting.set(len(self._waiting))
        return written < len(news) or not whole

    def _reached(self) -> int:
        return int(self.progress() or "0")

    def _write(self, tail: _Tail | None, news: list[tuple[int, LedgerEntry]], reached: int) -> int:
        """As many of the news as one chunk takes; how many. `reached` is what it goes up to with all of it."""
        if tail is None or not tail.readable or (news and not tail.has_room):
            if not news:
                return 0
            self._begin_chunk(tail, news, reached)
            return len(news)
        room = news[: CHUNK_ENTRIES - len(tail.entries)]
        through = max(tail.through, room[-1][0] if room else 0, reached if len(room) == len(news) else 0)
        if through == tail.through:
            return 0
        if not room:
            written = self._patch(tail, {"spec": {"through": str(through)}})
            self._tail = _Tail(tail.number, written.version, tail.entries, through)
            return 0
        entries = (*tail.entries, *(entry for _, entry in room))
        body = chunk_body(tail.number, entries, through=str(through))
        written = self._patch(tail, {"spec": body["spec"]})
        self._tail = _Tail(tail.number, written.version, entries, through)
        return len(room)

    def _begin_chunk(self, tail: _Tail | None, news: list[tuple[int, LedgerEntry]], reached: int) -> None:
        number = tail.number + 1 if tail is not None else 1
        entries = tuple(entry for _, entry in news)
        through = max(news[-1][0], reached)
        body = chunk_body(number, entries, through=str(through))
        body["metadata"]["labels"] = {OPEN: "true"}
        written = self._objects.create(IPLEDGERS, body)
        self._tail = _Tail(number, written.version, entries, through)
        if tail is not None and tail.readable:
            self._close(tail)

    def _close(self, tail: _Tail) -> None:
        """A chunk left open by a crash between the two costs a look at its label and no more."""
        try:
            self._patch(tail, {"metadata": {"labels": {OPEN: None}}})
        except ObjectChanged:
            return

    def _patch(self, tail: _Tail, body: dict[str, object]) -> ApiObject:
        return self._objects.patch(IPLEDGERS, names.ledger_name(tail.number), body, version=tail.version)

    # --- where it ends, and where it begins ---

    def _last(self) -> _Tail | None:
        found = self._objects.list(IPLEDGERS, labels={OPEN: "true"}) or self._objects.list(IPLEDGERS)
        numbered = {number: stored for stored in found if (number := names.ledger_number(stored.name)) is not None}
        if not numbered:
            return None
        number = max(numbered)
        last = numbered[number]
        try:
            through = int(decode_chunk(last).through)
            self._tail = _Tail(number, last.version, decode_entries(last), through)
        except (DecodeFailure, ValueError) as e:
            self._reporter.tell_unreadable(IPLEDGERS, "", last.name, last.uid, str(e))
            self._tail = _Tail(number, last.version, readable=False)
        return self._tail

    def _fill_gap(self, version: int, found: list[tuple[str, Allocation]]) -> None:
        """What differs from the ledger's last word, as entries before all that wait."""
        recorded = AllocationCache()
        for entry in self._recorded():
            for_name = entry.after or entry.before
            assert for_name is not None
            name = names.allocation_name(for_name.scope, for_name.address)
            if entry.after is None:
                recorded.remove(name)
            else:
                recorded.put(name, entry.after)
        now = self._clock.now()
        missed: list[tuple[int, LedgerEntry]] = []
        for name, allocation in found:
            before = recorded.remove(name)
            if before is None or before.version != allocation.version:
                cause = "found when the controller came back" if before is not None else "found"
                missed.append((allocation.version, LedgerEntry(at=now, cause=cause, before=before, after=allocation)))
        cause = "found gone when the controller came back"
        for _, before in recorded.items():
            missed.append((version, LedgerEntry(at=now, cause=cause, before=before, after=None)))
        missed.sort(key=lambda item: item[0])
        with self._lock:
            self._waiting[:0] = missed
            self._found = None

    def _recorded(self) -> Iterable[LedgerEntry]:
        tail = self._tail or self._last()
        if tail is None:
            return
        for number in range(self._first(tail.number), tail.number + 1):
            stored = self._objects.get(IPLEDGERS, names.ledger_name(number))
            if stored is None:
                continue
            try:
                yield from decode_entries(stored)
            except DecodeFailure as e:
                self._reporter.tell_unreadable(IPLEDGERS, "", stored.name, stored.uid, str(e))

    def prune(self) -> None:
        """Removes the oldest chunks that are too old or too many, some at a time."""
        now = self._clock.monotonic()
        if self._tail is None or (self._pruned_at is not None and now - self._pruned_at < _PRUNE_SECONDS):
            return
        oldest = self._oldest if self._oldest is not None else self._first(self._tail.number)
        limit = self._clock.now() - timedelta(days=self._keeping.days)
        for _ in range(_PRUNED_AT_ONCE):
            self._oldest = oldest
            if oldest >= self._tail.number:
                break
            stored = self._objects.get(IPLEDGERS, names.ledger_name(oldest))
            if stored is not None:
                too_many = (self._tail.number - oldest) * CHUNK_ENTRIES > self._keeping.entries
                if not too_many and decode_chunk(stored).end >= limit:
                    break
                self._objects.delete(IPLEDGERS, stored.name, version=stored.version)
            oldest += 1
        else:
            return  # more the next time
        self._pruned_at = now

    def _first(self, last: int) -> int:
        """The oldest chunk's number: they are removed from the oldest on, so that there is none below a missing one."""
        low, high, step = 0, last, 1  # `low` is missing, `high` is there
        while high - step > 0 and self._has(high - step):
            high, step = high - step, step * 2
        low = max(0, high - step)
        while high - low > 1:
            middle = (low + high) // 2
            if self._has(middle):
                high = middle
            else:
                low = middle
        return high

    def _has(self, number: int) -> bool:
        return self._objects.get(IPLEDGERS, names.ledger_name(number)) is not None
