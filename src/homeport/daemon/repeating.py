"""Work that is done again and again in the background. I/O: a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from homeport.model.errors import CniError

log = structlog.get_logger("homeport.daemon")


class Repeating:
    """Does `action` at once, then every `seconds` after it has ended, and whenever it is woken.

    What it raises is logged. `name` says what it is, for the log. Woken, it begins `gather_seconds` later, so that it
    does not compete with whoever woke it, and does at once what comes together.
    """

    def __init__(self, name: str, action: Callable[[], object], *, seconds: float, gather_seconds: float = 0.0) -> None:
        self._name = name
        self._action = action
        self._seconds = seconds
        self._gather_seconds = gather_seconds
        self._ended = threading.Event()
        self._woken = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """A round begins now, or when the one under way has ended."""
        self._woken.set()

    def stop(self) -> None:
        """No further round is begun; one under way goes on."""
        self._ended.set()
        self._woken.set()

    def join(self, seconds: float) -> None:
        """Waits for the end of a round under way, no longer than that. To be called after `stop`."""
        self._thread.join(seconds)

    def _run(self) -> None:
        while not self._ended.is_set():
            self._woken.clear()
            try:
                self._action()
            except CniError as e:
                log.error("background work failed", work=self._name, error=str(e))
            except Exception:  # the edge of a thread: a bug must not silently end what keeps the node tidy
                log.exception("a bug, please report it", work=self._name)
            if not self._ended.is_set() and self._woken.wait(self._seconds):
                self._ended.wait(self._gather_seconds)
