"""Keeping a cache true: list, then watch, and list again when the watch cannot go on. A thread each.

Kubernetes API concepts, "Efficient detection of changes". A break is resumed from the last version seen; pauses
between attempts grow, spread, and have a cap.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import msgspec

from homeport.kube import decoding, errors
from homeport.kube.asking import pages
from homeport.kube.caching import Told
from homeport.kube.decoding import Bytes, Identity, Page
from homeport.kube.errors import Expired
from homeport.kube.requests import Request, version_alone
from homeport.kube.sending import Sender, Stream
from homeport.model.errors import CniError, DecodeFailure, InternalError


class Telling(Protocol):
    """What takes the lists and the lines: a `Cache`, a `Follower`."""

    def replace(self, pages: Iterable[Page]) -> Told: ...
    def apply(self, line: Bytes) -> Told: ...


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """How patient a watcher is.

    A watch may be interrupted for `current_seconds` and what it told still be taken as it is. It is asked to last
    between the two `watch_seconds`, at random so that not every node comes at once, and is given up when the API
    server has not ended it `grace_seconds` later. Pauses between attempts grow from the first to the most.
    """

    current_seconds: float = 5.0
    watch_seconds: tuple[int, int] = (240, 360)
    grace_seconds: float = 15.0
    first_pause_seconds: float = 0.2
    most_pause_seconds: float = 10.0


USUAL = Timing()
_LIST_SECONDS = 30.0  # a page
_PROGRESS_SECONDS = 5.0  # a watch that lasted as long was one, even if nothing happened


class Backoff:
    """Pauses that double up to a cap, each anywhere between half of itself and the whole."""

    def __init__(self, timing: Timing = USUAL) -> None:
        self._first, self._most = timing.first_pause_seconds, timing.most_pause_seconds
        self._next = self._first

    def reset(self) -> None:
        self._next = self._first

    def next(self) -> float:
        pause, self._next = self._next, min(self._next * 2, self._most)
        return pause * random.uniform(0.5, 1.0)  # noqa: S311 -- spreads retries, keeps no secret


class Watcher:
    """Lists and watches one resource into `telling` until closed.

    `list_page` builds the request of a page from a continue token and a version, "" for the newest; `watch` that of a
    watch from a version and the seconds it is to last. The first list is of the version `since`, where that is given
    and the API server still knows it.
    `on_gone` is called from the watcher's thread for each object that `telling` says is gone, `on_trouble` when
    something goes wrong and was not going wrong in the same way before.
    """

    def __init__(
        self,
        name: str,
        sender: Sender,
        telling: Telling,
        *,
        list_page: Callable[[str, str], Request],
        watch: Callable[[str, int], Request],
        on_gone: Callable[[Identity], None] | None = None,
        on_trouble: Callable[[CniError], None] | None = None,
        timing: Timing = USUAL,
        since: str = "",
    ) -> None:
        self.name = name
        self.problem: CniError | None = None
        self.listed = threading.Event()
        self._sender = sender
        self._telling = telling
        self._list_page, self._watch = list_page, watch
        self._on_gone, self._on_trouble = on_gone, on_trouble
        self._closing = threading.Event()
        self._stream: Stream | None = None
        self._since = since
        self.version = ""  # up to which everything was told; "" when a list must come first
        self.was_away = False  # whether an attempt to open it failed since the last list
        self._is_in_doubt = False  # whether the last attempt to open the watch failed
        self._lost_at: float | None = None  # None while the watch is open
        self._timing = timing
        self._backoff = Backoff(timing)
        self._thread = threading.Thread(target=self._run, name=f"watch-{name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Nothing more is asked, and the watch is broken off. A list under way ends when the sender is closed."""
        self._closing.set()
        stream = self._stream
        if stream is not None:
            stream.abort()

    def join(self, seconds: float) -> None:
        """Waits for the end of its thread, if that began, no longer than `seconds`."""
        if self._thread.is_alive():
            self._thread.join(seconds)

    def current(self) -> bool:
        """Whether the cache is as the API server has it, but for what is on its way."""
        if not self.listed.is_set():
            return False
        lost_at = self._lost_at
        return lost_at is None or time.monotonic() - lost_at < self._timing.current_seconds

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._go_on()
            except Expired:
                self._since = self.version = ""
                self._rest(None)  # a list tells what was missed; if this comes again, not at once
            except DecodeFailure as e:
                self.version = ""  # a line was not understood: what it said is missing
                self._rest(e)
            except CniError as e:
                self._rest(e)
            except Exception as e:  # noqa: BLE001 -- the thread's outermost edge: a bug must not end the watch
                self.version = ""
                self._rest(InternalError(f"watch {self.name}: {type(e).__name__}: {e}"))

    def _go_on(self) -> None:
        """Lists when there is no version to go on from, then watches to the end."""
        if self.version and self._is_in_doubt:
            self._require_no_earlier_version()
            self.was_away = True
        if not self.version:
            self._list()
        began = time.monotonic()
        for told in self._changes():
            self.version = told.version or self.version
            self._announce(told)
            self._backoff.reset()
        if time.monotonic() - began >= _PROGRESS_SECONDS:
            self._backoff.reset()
        else:
            self._rest(None)  # it ended as soon as it began: not to be asked without end

    def _list(self) -> None:
        listing = pages(self._sender, lambda token: self._list_page(token, self._since), seconds=_LIST_SECONDS)
        told = self._telling.replace(listing)
        self._since = ""
        self.listed.set()
        self.was_away = False
        self.problem = None
        self._lost_at = time.monotonic()
        self.version = told.version
        self._announce(told)

    def _require_no_earlier_version(self) -> None:
        """To be asked when the API server could not be reached for a while. Raises `Expired` when its database was set
        back meanwhile: it would take our version for one to come, and keep silent until then.
        """
        request = version_alone(self._list_page("", ""))
        answer = self._sender.ask(request, seconds=_LIST_SECONDS)
        if answer.code != 200:
            raise errors.refused(request, answer.code, answer.body, place=self._sender.place)
        found = decoding.decode_page(answer.body).version
        if found.isdigit() and self.version.isdigit() and int(found) < int(self.version):
            raise Expired(
                f"watch {self.name}: the API server is at version {found}, expected {self.version} or a later one"
            )

    def _changes(self) -> Iterator[Told]:
        lasting = random.randint(*self._timing.watch_seconds)  # noqa: S311 -- spreads load, keeps no secret
        request = self._watch(self.version, lasting)
        self._is_in_doubt = True
        try:
            seconds = lasting + self._timing.grace_seconds
            with self._sender.stream(request, seconds=seconds) as stream:
                self._stream = stream
                self._is_in_doubt = False
                if self._closing.is_set():  # by somebody who saw no stream to break off
                    return
                self._lost_at = None
                self.problem = None
                for line in stream:
                    yield self._telling.apply(line)
        finally:
            self._stream = None
            if self._lost_at is None:
                self._lost_at = time.monotonic()

    def _announce(self, told: Told) -> None:
        if self._on_gone is None:
            return
        for identity in told.gone:
            try:
                self._on_gone(identity)
            except Exception as e:  # noqa: BLE001 -- whoever listens must not end the watch
                self._tell(InternalError(f"watch {self.name}: {type(e).__name__}: {e}"))

    def _rest(self, problem: CniError | None) -> None:
        """Waits before another attempt."""
        if problem is not None and not self._closing.is_set():
            known, self.problem = self.problem, problem
            if known is None or known.msg != problem.msg:
                self._tell(problem)
        self._closing.wait(self._backoff.next())

    def _tell(self, problem: CniError) -> None:
        if self._on_trouble is not None:
            self._on_trouble(problem)
