"""The webhook over HTTPS. I/O: a socket, a thread with an event loop.

One certificate takes another's place without a pause: connections keep the one they began with, and new ones get the
new one. A key is never in a file system.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import uvicorn
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from homeport.admission.queueing import NoReview, Queue
from homeport.admission.registering import PATH
from homeport.admission.rotating import Pair
from homeport.model.errors import IOFailure

MAX_BYTES = 8 << 20  # two objects, each as large as the API server takes
_WAITING_BYTES = 64 << 20  # of all requests together
_KEEP_ALIVE_SECONDS = 120  # longer than the API server keeps an idle connection: it must be the one to close it
DRAIN_SECONDS = 3.0  # in which a Service learns that we end
_START_SECONDS = 10.0
_END_SECONDS = 2
_MOST_CONNECTIONS = 4000
_JSON = "application/json"
_TEXT = "text/plain; charset=utf-8"


class ReviewServer:
    """From `open` to `close`; it answers from the first `serve` on.

    `review` answers an AdmissionReview by several threads at once; an answer is given `seconds` after its question at
    the latest.
    """

    def __init__(
        self, address: str, port: int, review: Callable[[bytes], bytes], *, seconds: float, registry: CollectorRegistry
    ) -> None:
        self._address, self._port = address, port
        self._seconds = seconds
        self._queue = Queue(review, seconds, registry)
        self._waiting = 0  # bytes
        self._ending = False
        self._socket: socket.socket | None = None
        self._context = _context()
        self._served: Pair | None = None
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        """Takes the port, and answers nothing yet. Raises `IOFailure` when somebody has it."""
        family = socket.AF_INET6 if ":" in self._address else socket.AF_INET
        opened = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # else asyncio leaves TCP_NODELAY off
        try:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)  # `::` is every address of both
            opened.bind((self._address, self._port))
        except OSError as e:
            opened.close()
            raise IOFailure(f"listen on {self._address} port {self._port}: {os.strerror(e.errno or 0)}") from e
        self._socket = opened

    @property
    def served(self) -> Pair | None:
        """What new connections get."""
        return self._served

    def has_died(self) -> bool:
        """Whether it has begun to answer and no longer does, though nobody has closed it."""
        thread = self._thread
        return thread is not None and not thread.is_alive()

    def serve(self, pair: Pair) -> None:
        """With this certificate from now on. Raises `IOFailure`, and goes on as before."""
        if self._served is not None and pair.pem == self._served.pem:
            return
        _load(_context(), pair)  # what would not work must not touch the one in use
        if self._server is None:
            _load(self._context, pair)
            self._start()
        else:
            self._server.call(lambda: _load(self._context, pair))
        self._served = pair

    def close(self, drain_seconds: float = DRAIN_SECONDS) -> None:
        """Answers on for so long, ends its connections, then itself. Idempotent."""
        thread, self._thread = self._thread, None
        if self._server is not None and thread is not None:
            self._ending = True
            thread.join(drain_seconds)  # it does not end by itself
            with suppress(IOFailure):
                self._server.end()
            thread.join()
        elif self._socket is not None:
            self._socket.close()
        self._queue.close()

    def _start(self) -> None:
        assert self._socket is not None, "not open"
        config = uvicorn.Config(
            Starlette(routes=[Route(PATH, self._answer, methods=["POST"])]),
            loop="asyncio",
            http=_Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            limit_concurrency=_MOST_CONNECTIONS,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_END_SECONDS,
            ssl_context_factory=lambda _config, _default: self._context,
        )
        self._server = _Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name="webhook", daemon=True)
        self._thread.start()
        self._server.wait_running()

    async def _answer(self, request: Request) -> Response:
        loop = asyncio.get_running_loop()
        came = request.state.arrival.take(loop.time())
        if request.headers.get("content-type", "").partition(";")[0].strip() != _JSON:
            return self._refused(415, f"content type: expected {_JSON}")
        held = 0
        try:
            body = bytearray()
            async with asyncio.timeout(self._seconds):
                async for part in request.stream():
                    body += part
                    self._waiting += len(part)
                    held += len(part)
                    if len(body) > MAX_BYTES:
                        return self._refused(413, f"found more than {MAX_BYTES} bytes")
                    if self._waiting > _WAITING_BYTES:
                        return self._refused(503, "too much is waiting already")
            answer = await self._queue.answer(bytes(body), loop.time() - came)
        except NoReview:
            return self._refused(400, "expected an AdmissionReview")
        except (ClientDisconnect, TimeoutError):
            return self._refused(408, "the request did not come to its end")
        finally:
            self._waiting -= held
        return Response(answer, media_type=_JSON, headers=self._headers())

    def _refused(self, status: int, why: str) -> Response:
        self._queue.count_refused()
        return Response(f"{why}\n", status, media_type=_TEXT, headers={"Connection": "close"})

    def _headers(self) -> dict[str, str]:
        """On our way out a connection ends with its answer, so that none is closed while a question is coming in."""
        return {"Connection": "close"} if self._ending else {}


class _Arrival:
    """When somebody began to wait for an answer: for the first one of a connection before its handshake."""

    def __init__(self, at: float) -> None:
        self._at: float | None = at

    def take(self, now: float) -> float:
        at, self._at = self._at, None
        return now if at is None else at


class _Connection(H11Protocol):
    """Made when a connection is accepted; its handshake is still to come, and takes long when there are many."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        arrival = _Arrival(asyncio.get_running_loop().time())
        super().__init__(config, server_state, {**app_state, "arrival": arrival}, _loop)


class _Server(uvicorn.Server):
    """One that waits to be ended instead of looking ten times a second."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended = asyncio.Event()
        self._running = threading.Event()

    async def main_loop(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self.on_tick(0)
        self._running.set()
        await self._ended.wait()

    def wait_running(self) -> None:
        """Until it listens. Raises `IOFailure` when it does not."""
        if not self._running.wait(_START_SECONDS):
            raise IOFailure(f"serve reviews: does not listen after {_START_SECONDS:g} s")

    def call(self, act: Callable[[], None]) -> None:
        """Soon, in the loop's thread, where handshakes are; it must be running."""
        assert self._loop is not None, "not running"
        try:
            self._loop.call_soon_threadsafe(act)
        except RuntimeError as e:  # what asyncio raises of a closed loop
            raise IOFailure("serve reviews: the server has ended by itself") from e

    def end(self) -> None:
        self.call(self._ended.set)


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _load(context: ssl.SSLContext, pair: Pair) -> None:
    """Through memory that only has a number: OpenSSL wants a path."""
    number = os.memfd_create("homeport-admission", os.MFD_CLOEXEC)
    try:
        with open(number, "wb", closefd=False) as memory:
            memory.write(pair.pem + pair.key)
        context.load_cert_chain(f"/proc/self/fd/{number}")
    except OSError as e:
        raise IOFailure(f"use a certificate for {', '.join(sorted(pair.names))}: {e}") from e
    finally:
        os.close(number)
