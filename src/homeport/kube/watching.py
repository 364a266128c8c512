"""Keeping a cache true: list, then watch, and list again when the watch cannot go on. A thread each.

Kubernetes API concepts, "Efficient detection of changes". A break is resumed from the last version seen; pauses
between attempts grow, spread, and have a cap.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from homeport.kube import decoding, errors
from homeport.kube.caching import Cache, Told
from homeport.kube.connecting import Connection
from homeport.kube.decoding import Identity, Page
from homeport.kube.errors import Expired
from homeport.kube.requests import Request
from homeport.kube.sending import Sender
from homeport.model.errors import CniError, DecodeFailure, InternalError

T = TypeVar("T")

CURRENT_SECONDS = 5.0  # that a watch may be interrupted and what it told still be taken as it is
_LIST_SECONDS = 30.0  # a page
_WATCH_SECONDS = (240, 360)  # that a watch is asked to last, at random: not every node at once
_GRACE_SECONDS = 15.0  # that the API server may end it later than asked
_PROGRESS_SECONDS = 5.0  # a watch that lasted as long was one, even if nothing happened
_FIRST_PAUSE, _MOST_PAUSE = 0.2, 30.0


class Backoff:
    """Pauses that double up to a cap, each anywhere between half of itself and the whole."""

    def __init__(self, first: float = _FIRST_PAUSE, most: float = _MOST_PAUSE) -> None:
        self._first, self._most = first, most
        self._next = first

    def reset(self) -> None:
        self._next = self._first

    def next(self) -> float:
        pause, self._next = self._next, min(self._next * 2, self._most)
        return pause * random.uniform(0.5, 1.0)  # noqa: S311 -- spreads retries, keeps no secret


class Watcher(Generic[T]):
    """Lists and watches one resource into `cache` until closed.

    `list_page` builds the request of a page from a continue token, `watch` that of a watch from a version and the
    seconds it is to last. `on_gone` is called from the watcher's thread for each object proven gone, `on_trouble`
    when something goes wrong and was not going wrong in the same way before.
    """

    def __init__(
        self,
        name: str,
        sender: Sender,
        cache: Cache[T],
        *,
        list_page: Callable[[str], Request],
        watch: Callable[[str, int], Request],
        on_gone: Callable[[Identity], None] | None = None,
        on_trouble: Callable[[CniError], None] | None = None,
    ) -> None:
        self.name = name
        self.problem: CniError | None = None
        self.listed = threading.Event()
        self._sender = sender
        self._cache = cache
        self._list_page, self._watch = list_page, watch
        self._on_gone, self._on_trouble = on_gone, on_trouble
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._lost_at: float | None = None  # None while the watch is open
        self._backoff = Backoff()
        self._thread = threading.Thread(target=self._run, name=f"watch-{name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self, *, seconds: float = 2.0) -> None:
        """Ends the watch; waits for its thread no longer than `seconds`."""
        self._closing.set()
        with self._lock:
            if self._connection is not None:
                self._connection.abort()
        if self._thread.is_alive():
            self._thread.join(seconds)

    def current(self) -> bool:
        """Whether the cache is as the API server has it, but for what is on its way."""
        if not self.listed.is_set():
            return False
        lost_at = self._lost_at
        return lost_at is None or time.monotonic() - lost_at < CURRENT_SECONDS

    def _run(self) -> None:
        version = ""
        while not self._closing.is_set():
            try:
                version = self._go_on(version)
            except Expired:
                version = ""  # a list tells what was missed; if it comes to this at once again, not at once
                self._rest(None)
            except DecodeFailure as e:
                version = ""  # a line was not understood: what it said is missing
                self._rest(e)
            except CniError as e:
                self._rest(e)
            except Exception as e:  # noqa: BLE001 -- the thread's outermost edge: a bug must not end the watch
                version = ""
                self._rest(InternalError(f"watch {self.name}: {type(e).__name__}: {e}"))

    def _go_on(self, version: str) -> str:
        """Lists when there is no version to go on from, then watches to the end. Returns the version seen last."""
        version = version or self._list()
        began = time.monotonic()
        for told in self._changes(version):
            version = told.version or version
            self._announce(told)
            self._backoff.reset()
        if time.monotonic() - began >= _PROGRESS_SECONDS:
            self._backoff.reset()
        else:
            self._rest(None)  # it ended as soon as it began: not to be asked without end
        return version

    def _list(self) -> str:
        pages: list[Page] = []
        while not pages or pages[-1].continue_token:
            request = self._list_page(pages[-1].continue_token if pages else "")
            answer = self._sender.ask(request, seconds=_LIST_SECONDS)
            if answer.code != 200:
                raise errors.refused(request, answer.code, answer.body, place=self._sender.place)
            pages.append(decoding.decode_page(answer.body))
        told = self._cache.replace(pages)
        self.listed.set()
        self.problem = None
        self._lost_at = time.monotonic()
        self._announce(told)
        return told.version

    def _changes(self, version: str) -> Iterator[Told]:
        lasting = random.randint(*_WATCH_SECONDS)  # noqa: S311 -- spreads load, keeps no secret
        request = self._watch(version, lasting)
        try:
            with self._sender.stream(request, seconds=lasting + _GRACE_SECONDS, opened=self._opened) as lines:
                self._lost_at = None
                self.problem = None
                for line in lines:
                    yield self._cache.apply(line)
        finally:
            with self._lock:
                self._connection = None
            if self._lost_at is None:
                self._lost_at = time.monotonic()

    def _opened(self, connection: Connection) -> None:
        with self._lock:
            self._connection = connection
            if self._closing.is_set():
                connection.abort()

    def _announce(self, told: Told) -> None:
        if self._on_gone is not None:
            for identity in told.gone:
                self._on_gone(identity)

    def _rest(self, problem: CniError | None) -> None:
        """Waits before another attempt."""
        if problem is not None and not self._closing.is_set():
            known = self.problem
            self.problem = problem
            if self._on_trouble is not None and (known is None or known.msg != problem.msg):
                self._on_trouble(problem)
        self._closing.wait(self._backoff.next())
