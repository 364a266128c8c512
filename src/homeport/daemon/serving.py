"""The daemon's socket: accepts, reads requests, hands calls to workers, sends answers. I/O: sockets.

One thread does all the waiting for callers, so that a slow or silent one costs no more than an open connection until
its deadline. A connection carries one exchange, and belongs either to this thread or, while its call is carried out,
to a worker. The worker sends the answer if it fits at once, else this thread does.
"""

from __future__ import annotations

import os
import select
import selectors
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from typing import Protocol

import msgspec
import structlog

from homeport.daemon.calls import Call, Outcome
from homeport.daemon.exchanges import Exchange
from homeport.daemon.workers import Workers
from homeport.model.errors import InternalError, TryAgainLater

log = structlog.get_logger("homeport.daemon")

_CHUNK = 256 * 1024
_TICK_SECONDS = 0.25
_UCRED = struct.Struct("=iII")  # pid, uid, gid: socket(7), SO_PEERCRED
_ACCEPT_PAUSE_SECONDS = 0.1  # before accept is tried again when descriptors ran out


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """`read_seconds` is how long a whole request may take to come, `write_seconds` an answer to be taken."""

    connections: int = 512
    read_seconds: float = 10.0
    write_seconds: float = 10.0
    linger_seconds: float = 1.0


class CarryOut(Protocol):
    """Does what a call asks for. `is_abandoned` tells whether nobody waits for the answer any more."""

    def __call__(self, call: Call, is_abandoned: Callable[[], bool]) -> Outcome: ...


class Stop(Enum):
    """How serving ends: for good, or with the socket left open for the program that follows in this process."""

    FOR_GOOD = "for good"
    FOR_SUCCESSOR = "for a successor"


class _Connection:
    """A caller. `unsent` is None until there is an answer; then the connection only sends, lingers and ends."""

    def __init__(self, opened: socket.socket, exchange: Exchange, deadline: float) -> None:
        self.socket = opened
        self.exchange = exchange
        self.deadline = deadline
        self.unsent: memoryview | None = None
        self.lingers = False

    def send(self) -> bool:
        """Sends what the caller takes now; True when nothing is left, or nobody is."""
        assert self.unsent is not None
        try:
            while self.unsent:
                self.unsent = self.unsent[self.socket.send(self.unsent) :]
        except BlockingIOError:
            return False
        except OSError:  # gone; a runtime that does not listen asks for a DEL
            self.unsent = memoryview(b"")
        return True

    def is_abandoned(self) -> bool:
        """Whether the caller has closed its end. One that has only finished sending still waits for the answer."""
        poll = select.poll()
        poll.register(self.socket, 0)
        return bool(poll.poll(0))


class Server:
    """Serves `listener`, a listening unix stream socket, from `serve` until `stop`.

    `allowed_uids` are the users who may call besides root. `open_exchange` gives each connection its protocol.
    """

    def __init__(
        self,
        listener: socket.socket,
        *,
        carry_out: CarryOut,
        open_exchange: Callable[[], Exchange],
        workers: Workers,
        allowed_uids: frozenset[int],
        limits: Limits | None = None,
        on_tick: Callable[[], None] = lambda: None,
    ) -> None:
        self._listener = listener
        self._carry_out = carry_out
        self._open_exchange = open_exchange
        self._workers = workers
        self._allowed_uids = allowed_uids | {0}
        self._limits = limits or Limits()
        self._on_tick = on_tick
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        self._connections: set[_Connection] = set()  # all of them, a worker's included
        self._returned: deque[tuple[_Connection, bool]] = deque()  # by workers; True: it is done with
        self._accepting = False
        self._accept_again = 0.0
        self._queue_is_left = False  # nobody in the listener's queue is for us any more
        self._stop: Stop | None = None
        self._stopping: Stop | None = None  # what of `_stop` has been begun
        self._end = float("inf")
        listener.setblocking(False)
        for descriptor in (self._wake_read, self._wake_write):
            os.set_blocking(descriptor, False)

    def stop(self, how: Stop, seconds: float) -> None:
        """From any thread: accept no more, finish what was accepted, but in no more than `seconds`."""
        self._stop = how
        self._end = time.monotonic() + seconds
        self.wake()

    def wake(self) -> None:
        """Lets `serve` run `on_tick` at once. Safe in a signal handler."""
        with suppress(BlockingIOError):  # it is full: awake enough
            os.write(self._wake_write, b"\0")

    def serve(self) -> bool:
        """Until stopped; True when every caller got its answer."""
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)
        self._resume_accepting()
        try:
            while not self._is_finished():
                for key, _ in self._selector.select(_TICK_SECONDS):
                    self._handle(key)
                self._take_back()
                self._expire()
                if self._stop is not self._stopping:
                    self._begin_stopping()
                self._resume_accepting()
                self._on_tick()
            return not self._connections
        finally:
            self._close()

    # --- the loop's steps ---

    def _is_finished(self) -> bool:
        if self._stopping is None:
            return False
        return (self._queue_is_left and not self._connections) or time.monotonic() >= self._end

    def _handle(self, key: selectors.SelectorKey) -> None:
        if key.fileobj is self._listener:
            self._accept()
        elif key.data is None:
            with suppress(BlockingIOError):
                os.read(self._wake_read, 4096)
        elif key.data.unsent is None:
            self._read(key.data)
        elif key.data.lingers:
            self._discard(key.data)
        else:
            self._send(key.data)

    def _accept(self) -> None:
        """Everybody who waits, as far as there is room."""
        while len(self._connections) < self._limits.connections:
            try:
                opened, _ = self._listener.accept()
            except BlockingIOError:
                if self._stopping is Stop.FOR_GOOD:  # nobody can come any more
                    self._queue_is_left = True
                    self._pause_accepting()
                return
            except OSError as e:
                log.warning("cannot accept", error=os.strerror(e.errno or 0))
                self._accept_again = time.monotonic() + _ACCEPT_PAUSE_SECONDS
                self._pause_accepting()
                return
            self._begin(opened)
        self._pause_accepting()

    def _begin(self, opened: socket.socket) -> None:
        pid, uid, _ = _UCRED.unpack(opened.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        if uid not in self._allowed_uids:
            log.warning("refused a caller", uid=uid, pid=pid, expected=sorted(self._allowed_uids))
            opened.close()
            return
        opened.setblocking(False)
        connection = _Connection(opened, self._open_exchange(), time.monotonic() + self._limits.read_seconds)
        self._connections.add(connection)
        self._selector.register(opened, selectors.EVENT_READ, connection)
        self._read(connection)  # a shim has mostly sent everything by now

    def _read(self, connection: _Connection) -> None:
        answer: Call | bytes | None = None
        while answer is None:
            try:
                data = connection.socket.recv(_CHUNK)
            except BlockingIOError:
                return
            except OSError:
                self._forget(connection)
                return
            answer = connection.exchange.receive(data)
            if not data and answer is None:
                answer = b""
        self._selector.unregister(connection.socket)
        if isinstance(answer, Call):
            self._dispatch(connection, answer)
        else:
            self._answer(connection, answer)

    def _dispatch(self, connection: _Connection, call: Call) -> None:
        if not self._workers.submit(lambda: self._work(connection, call), key=call.container_id):
            error = TryAgainLater(
                f"{call.command or 'call'}: the daemon has {self._workers.running} calls under way and "
                f"{self._workers.waiting} waiting, expected fewer"
            )
            self._answer(connection, connection.exchange.encode(Outcome(error=error)))

    def _answer(self, connection: _Connection, answer: bytes) -> None:
        """Of this thread's own: the caller may still be sending, and is to read the answer rather than an error."""
        connection.unsent = memoryview(answer)
        connection.deadline = time.monotonic() + self._limits.write_seconds
        self._selector.register(connection.socket, selectors.EVENT_WRITE, connection)
        self._send(connection)

    def _send(self, connection: _Connection) -> None:
        if not connection.send():
            return
        try:
            connection.socket.shutdown(socket.SHUT_WR)
        except OSError:
            self._forget(connection)
            return
        connection.lingers = True
        connection.deadline = time.monotonic() + self._limits.linger_seconds
        self._selector.modify(connection.socket, selectors.EVENT_READ, connection)
        self._discard(connection)

    def _discard(self, connection: _Connection) -> None:
        try:
            while connection.socket.recv(_CHUNK):
                continue
        except BlockingIOError:
            return
        except OSError:
            pass
        self._forget(connection)

    def _take_back(self) -> None:
        while self._returned:
            connection, is_done = self._returned.popleft()
            if is_done:
                self._connections.discard(connection)
                continue
            connection.deadline = time.monotonic() + self._limits.write_seconds
            self._selector.register(connection.socket, selectors.EVENT_WRITE, connection)

    def _expire(self) -> None:
        now = time.monotonic()
        late = [key.data for key in self._selector.get_map().values() if key.data and key.data.deadline <= now]
        for connection in late:
            if not connection.lingers:
                log.warning("gave up on a caller", waited_for="request" if connection.unsent is None else "reader")
            self._forget(connection)

    # --- a worker's part ---

    def _work(self, connection: _Connection, call: Call) -> None:
        """Carries the call out and answers. A caller that went away before it began only gets its DEL done."""
        try:
            if call.command == "DEL" or not connection.is_abandoned():
                outcome = self._carry_out(call, connection.is_abandoned)
                connection.unsent = memoryview(connection.exchange.encode(outcome))
            else:
                connection.unsent = memoryview(b"")
        except Exception as e:  # the outermost edge: a bug in answering must not cost the daemon a worker
            log.exception("cannot answer", command=call.command)
            error = InternalError(f"unexpected {type(e).__name__}: {e}")
            connection.unsent = memoryview(connection.exchange.encode(Outcome(error=error)))
        is_done = connection.send()
        if is_done:
            connection.socket.close()
        self._returned.append((connection, is_done))
        if not is_done or self._stop is not None or len(self._connections) >= self._limits.connections:
            self.wake()  # else there is time until the next round

    # --- beginning and ending ---

    def _resume_accepting(self) -> None:
        if self._accepting or self._queue_is_left or time.monotonic() < self._accept_again:
            return
        if len(self._connections) < self._limits.connections:
            self._accepting = True
            self._selector.register(self._listener, selectors.EVENT_READ, None)

    def _pause_accepting(self) -> None:
        if self._accepting:
            self._accepting = False
            self._selector.unregister(self._listener)

    def _begin_stopping(self) -> None:
        """For good: the kernel refuses new callers from here on, and those already in its queue are served.

        So it is with shutdown(2) on a listening unix socket in Linux: connect(2) says ECONNREFUSED, and accept(2)
        goes on until the queue is empty. For a successor the queue is left as it is.
        """
        self._stopping = self._stop
        if self._stop is Stop.FOR_GOOD:
            self._queue_is_left = False
            self._listener.shutdown(socket.SHUT_RD)
        else:
            self._queue_is_left = True
            self._pause_accepting()

    def _forget(self, connection: _Connection) -> None:
        with suppress(KeyError):
            self._selector.unregister(connection.socket)
        connection.socket.close()
        self._connections.discard(connection)

    def _close(self) -> None:
        self._selector.close()
        for connection in self._connections:
            if connection.unsent is not None:
                connection.socket.close()
