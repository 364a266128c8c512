"""Work that is done again and again in the background. I/O: a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from homeport.model.errors import CniError

log = structlog.get_logger("homeport.daemon")


class Repeating:
    """Does `action` at once and then every `seconds` after it has ended; what it raises is logged.

    `name` says what it is, for the log.
    """

    def __init__(self, name: str, action: Callable[[], object], *, seconds: float) -> None:
        self._name = name
        self._action = action
        self._seconds = seconds
        self._ended = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._run, name=self._name, daemon=True).start()

    def stop(self) -> None:
        """No further round is begun; one under way goes on."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self._action()
            except CniError as e:
                log.error("background work failed", work=self._name, error=str(e))
            except Exception:  # the edge of a thread: a bug must not silently end what keeps the node tidy
                log.exception("a bug, please report it", work=self._name)
            self._ended.wait(self._seconds)
