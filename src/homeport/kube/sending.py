"""Asking the API server: connections kept and shared, refusals and breaks repeated within one deadline.

Only what may pass is repeated: a connection that was refused or broke, a 429, a 5xx, and once a 401 when there are
newer credentials. A request is never repeated after its deadline, nor more than a few times before it.
"""

from __future__ import annotations

import errno
import random
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec

from homeport.kube import errors
from homeport.kube.configs import ApiConfig
from homeport.kube.connecting import BROKEN, Answer, Connection
from homeport.kube.credentials import Credentials, Material
from homeport.kube.requests import Request
from homeport.model.errors import CniError, IOFailure

MAX_IDLE = 32  # connections: as many as ADDs are under way at once
_IDLE_SECONDS = 60.0  # servers close idle connections later than that
_PAUSES = (0.05, 0.15, 0.4)  # seconds before the second, third and fourth attempt, and up to half as much again
_AGAIN = frozenset({429, 500, 502, 503, 504})
_BEGIN_SECONDS = 10.0  # until a watch is answered

Observe = Callable[[Request, int, float], None]


class _Failure(msgspec.Struct, frozen=True):
    """An attempt that brought no answer; whether another is worth it."""

    error: CniError
    passing: bool


class _Course(msgspec.Struct):
    """How far a question has come in all its attempts: whether any of it may have arrived."""

    sent: bool = False


class Stream:
    """The lines of an answer that goes on. Ended by `abort`, from any thread."""

    def __init__(self, lines: Iterator[bytes], abort: Callable[[], None]) -> None:
        self.abort = abort
        self._lines = lines

    def __iter__(self) -> Iterator[bytes]:
        return self._lines


class Sender:
    """Sends requests from any number of threads.

    `observe` is told of each attempt: the request, the status (0 without an answer) and the seconds it took.
    """

    def __init__(self, config: ApiConfig, *, observe: Observe | None = None) -> None:
        self.place = f"API server {config.place}"
        self._config = config
        self._credentials = Credentials(config)
        self._observe = observe
        self._lock = threading.Lock()
        self._idle: list[tuple[float, Connection]] = []  # kept for the next question, the latest used last
        self._open: set[Connection] = set()  # these, and those in use
        self._closed = False
        self._failed_at: float | None = None

    def ask(self, request: Request, *, seconds: float) -> Answer:
        """The answer, whatever its status. Raises within `seconds`: `TryAgainLater` when no whole answer came, and
        `Unreachable` when besides nothing was ever sent.
        """
        course = _Course()
        until = time.monotonic() + seconds
        pauses = iter(_PAUSES)
        renewed = False
        while True:
            material = self._credentials.current()
            outcome = self._attempt(request, material, until, seconds, course)
            if isinstance(outcome, Answer):
                if outcome.code == 401 and not renewed and self._credentials.renewed(material):
                    renewed = True
                    continue
                if outcome.code not in _AGAIN:
                    return outcome
            elif not outcome.passing:
                raise outcome.error
            pause = next(pauses, None)
            at_least = outcome.retry_after_seconds if isinstance(outcome, Answer) else 0.0
            if pause is None or not _pause(max(pause, at_least), until):
                if isinstance(outcome, Answer):
                    return outcome
                raise outcome.error

    @contextmanager
    def stream(self, request: Request, *, seconds: float) -> Iterator[Stream]:
        """The lines of an answer that takes up to `seconds`, on a connection of its own.

        Raises what the status means when it is no success; the lines raise `TryAgainLater` when the answer breaks off.
        """
        material = self._credentials.current()
        began = time.monotonic()
        with self._translated(request, _BEGIN_SECONDS):
            connection = self._connect(material, began + _BEGIN_SECONDS)
        try:
            with self._translated(request, _BEGIN_SECONDS):
                code = connection.begin(request, material.authorization, began + _BEGIN_SECONDS)
                if code != 200:
                    raise errors.refused(request, code, connection.rest(began + _BEGIN_SECONDS), place=self.place)
            self._told(request, code, began)
            yield Stream(self._lines(request, connection, seconds, began), connection.abort)
        finally:
            self._end(connection)

    def failed_within(self, seconds: float) -> bool:
        """Whether a question lately went without an answer, and none was answered since."""
        failed_at = self._failed_at
        return failed_at is not None and time.monotonic() - failed_at < seconds

    def close(self) -> None:
        """Breaks off what is under way. Questions asked afterwards find no answer."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            for connection in self._open:
                connection.abort()
        for _, connection in idle:
            self._end(connection)

    def _attempt(
        self, request: Request, material: Material, until: float, seconds: float, course: _Course
    ) -> Answer | _Failure:
        began = time.monotonic()
        try:
            answer = self._answer(request, material, until, course)
        except BROKEN as e:
            late = isinstance(e, TimeoutError) and time.monotonic() >= until
            self._told(request, 0, began)
            error = self._explained(request, e, seconds if late else None, sent=course.sent)
            error.__cause__ = e
            return _Failure(error, passing=not (late or self._closed or isinstance(error, IOFailure)))
        self._told(request, answer.code, began)
        return answer

    def _answer(self, request: Request, material: Material, until: float, course: _Course) -> Answer:
        """On a connection kept from before if one is still good, else on a new one."""
        while (kept := self._kept(material)) is not None:
            course.sent = True
            try:
                return self._ask_on(kept, request, material, until)
            except TimeoutError:
                if time.monotonic() >= until:
                    raise
            except BROKEN:
                continue  # closed by the peer while it was idle: that says nothing about the API server
        connection = self._connect(material, until)
        course.sent = True
        return self._ask_on(connection, request, material, until)

    def _connect(self, material: Material, until: float) -> Connection:
        connection = Connection(self._config, material, until)
        with self._lock:
            self._open.add(connection)
            closed = self._closed
        if closed:
            self._end(connection)
            raise ConnectionAbortedError(errno.ECONNABORTED, "we are closing")
        return connection

    def _end(self, connection: Connection) -> None:
        with self._lock:
            self._open.discard(connection)
        connection.close()

    def _ask_on(self, connection: Connection, request: Request, material: Material, until: float) -> Answer:
        keep = False
        try:
            answer = connection.ask(request, material.authorization, until)
            keep = connection.reusable()
        finally:
            if not keep or not self._keep(connection):
                self._end(connection)
        return answer

    def _kept(self, material: Material) -> Connection | None:
        oldest = time.monotonic() - _IDLE_SECONDS
        while True:
            with self._lock:
                if not self._idle:
                    return None
                since, connection = self._idle.pop()
            if since >= oldest and connection.generation == material.generation and not connection.stale():
                return connection
            self._end(connection)

    def _keep(self, connection: Connection) -> bool:
        with self._lock:
            if self._closed or len(self._idle) >= MAX_IDLE:
                return False
            self._idle.append((time.monotonic(), connection))
            return True

    def _lines(self, request: Request, connection: Connection, seconds: float, began: float) -> Iterator[bytes]:
        with self._translated(request, seconds):
            yield from connection.lines(began + seconds)

    @contextmanager
    def _translated(self, request: Request, seconds: float) -> Iterator[None]:
        try:
            yield
        except BROKEN as e:
            raise self._explained(request, e, seconds if isinstance(e, TimeoutError) else None) from e

    def _explained(self, request: Request, failure: Exception, seconds: float | None, *, sent: bool = True) -> CniError:
        """`seconds` is the deadline that was missed, None when something else went wrong."""
        if isinstance(failure, ssl.SSLCertVerificationError):
            return IOFailure(f"{request}: certificate of {self.place}: {failure.verify_message}")
        self._failed_at = time.monotonic()
        why = f"none within {seconds:g} s" if seconds is not None else errors.reason(failure)
        return errors.unreachable(request, why, place=self.place, sent=sent)

    def _told(self, request: Request, code: int, began: float) -> None:
        if code:
            self._failed_at = None
        if self._observe is not None:
            self._observe(request, code, time.monotonic() - began)


def _pause(seconds: float, until: float) -> bool:
    """Waits, a little longer each caller than the other; False at once when there would be no time left after it."""
    pause = seconds * random.uniform(1.0, 1.5)  # noqa: S311 -- spreads retries, keeps no secret
    if time.monotonic() + pause >= until:
        return False
    time.sleep(pause)
    return True
