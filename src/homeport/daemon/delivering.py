"""Carrying out the journal, each entry again and again until it is done. I/O: through the journal and the workers."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import msgspec
import structlog

from homeport.daemon.journal import Entry, Journal
from homeport.daemon.workers import Workers
from homeport.model.errors import CniError

log = structlog.get_logger("homeport.daemon")

POLL_SECONDS = 1.0
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0


class _Attempt(msgspec.Struct):
    """When an entry is due (time.monotonic), and the pause after another failure."""

    due: float
    pause: float
    under_way: bool = False


class Delivery:
    """Each `go_through` lets `workers` finish what is due.

    `finish` carries one entry out and raises while it cannot; it takes its turn with the calls of the same container.
    """

    def __init__(self, journal: Journal, workers: Workers, finish: Callable[[Entry], None]) -> None:
        self._journal = journal
        self._workers = workers
        self._finish = finish
        self._attempts: dict[str, _Attempt] = {}
        self._stopped = False
        self.backlog = 0  # entries seen in the last round

    def stop(self) -> None:
        """No further entry is begun; those under way are their workers' affair."""
        self._stopped = True

    def go_through(self) -> None:
        """To be called about every POLL_SECONDS, by one thread. Raises `CniError` when the journal cannot be read."""
        entries = self._journal.entries()
        self.backlog = len(entries)
        now = time.monotonic()
        self._attempts = {
            entry.name: self._attempts.get(entry.name) or _Attempt(now, FIRST_PAUSE_SECONDS) for entry in entries
        }
        for entry in entries:
            attempt = self._attempts[entry.name]
            if attempt.due > now or attempt.under_way:
                continue
            attempt.under_way = True
            if not self._workers.submit(partial(self._try, entry, attempt), key=entry.call.container_id):
                attempt.under_way = False
                return  # the calls that come in go first

    def _try(self, entry: Entry, attempt: _Attempt) -> None:
        try:
            if not self._stopped:
                self._finish(entry)
                log.info("finished a DEL of the journal", entry=entry.name)
        except CniError as e:
            log.warning("a DEL of the journal must wait", entry=entry.name, seconds=attempt.pause, error=str(e))
            attempt.due = time.monotonic() + attempt.pause
            attempt.pause = min(2 * attempt.pause, LONGEST_PAUSE_SECONDS)
        finally:
            attempt.under_way = False
