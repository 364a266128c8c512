"""A connection to the API server: HTTP/1.1 by h11 over a socket, with a deadline that holds for every byte of it.

RFC 9112. h11 and a socket of our own take half the CPU time of urllib3 a request, and let one deadline cover
connecting, TLS, waiting and reading, however slowly bytes trickle in (docs/kubernetes.md has the measurement).
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import time
from collections.abc import Iterator

import h11
import msgspec

from homeport.kube.configs import ApiConfig
from homeport.kube.credentials import Material
from homeport.kube.requests import Request
from homeport.model.errors import DecodeFailure

MAX_BODY_BYTES = 64 * 1024 * 1024  # a page of a list; one object is 1.5 MiB at most, as etcd limits it
MAX_HEAD_BYTES = 64 * 1024
_RECEIVE_BYTES = 64 * 1024
_CONNECT_SECONDS = 1.0  # of one attempt at one address, so that within a question another can be tried
_UNACKNOWLEDGED_MS = 1200  # after which a peer that is silently gone shows itself, and the question is asked anew
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 15), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))

# What an answer that never was whole raises, besides TimeoutError for one that came too late.
BROKEN = (OSError, h11.RemoteProtocolError)


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer. `retry_after_seconds` is what the API server asks us to wait, 0 when it does not; `date` its
    own time as RFC 9110 §6.6.1 writes it, "" when it tells none.
    """

    code: int
    body: bytes = b""
    retry_after_seconds: float = 0.0
    date: str = ""


class Connection:
    """One connection, for one request at a time. Not to be shared by threads; only `abort` may be called from another.

    `used` says whether a request was answered on it before: the next one may then find that the peer has closed it.
    """

    def __init__(self, config: ApiConfig, material: Material, until: float) -> None:
        """Raises OSError (TimeoutError when `until`, a monotonic time, is past)."""
        self.generation = material.generation
        self.used = False
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._host = f"[{config.host}]:{config.port}" if ":" in config.host else f"{config.host}:{config.port}"
        self._prefix = config.path_prefix
        plain = _connected(config.host, config.port, until)
        try:
            self._socket = plain if material.context is None else _secured(plain, material.context, config, until)
        except BaseException:
            plain.close()
            raise
        self._lever = socket.socket(fileno=os.dup(self._socket.fileno()))

    def ask(self, request: Request, authorization: str | None, until: float) -> Answer:
        """The whole answer; after an exception the connection is of no more use."""
        head = self._send(request, authorization, until)
        body = bytearray()
        for piece in self._pieces(until):
            body += piece
            if len(body) > MAX_BODY_BYTES:
                raise DecodeFailure(f"{request}: found an answer of more than {MAX_BODY_BYTES} bytes, expected less")
        date = dict(head.headers).get(b"date", b"").decode("ascii", "replace")
        return Answer(code=head.status_code, body=bytes(body), retry_after_seconds=_retry_after(head), date=date)

    def begin(self, request: Request, authorization: str | None, until: float) -> int:
        """Sends it and returns the status; the body is read by `lines`, or by `rest`."""
        return self._send(request, authorization, until).status_code

    def lines(self, until: float) -> Iterator[bytes]:
        """The body as lines without their ends, each as soon as it is there. Ends with the answer."""
        begun = bytearray()
        for piece in self._pieces(until):
            *whole, rest = piece.split(b"\n")
            for line in whole:
                begun += line
                if begun:
                    yield bytes(begun)
                    begun.clear()
            begun += rest
            if len(begun) > MAX_BODY_BYTES:
                raise DecodeFailure(f"watch event: found one of more than {MAX_BODY_BYTES} bytes, expected less")

    def rest(self, until: float) -> bytes:
        """What remains of a body, no more than an error needs."""
        body = bytearray()
        for piece in self._pieces(until):
            body += piece
            if len(body) > MAX_HEAD_BYTES:
                break
        return bytes(body)

    def reusable(self) -> bool:
        """Makes ready for another request; False when the answer was the connection's last."""
        try:
            self._http.start_next_cycle()
        except h11.LocalProtocolError:
            return False
        self.used = True
        return not self._http.trailing_data[0]

    def stale(self) -> bool:
        """Whether the peer has closed it, or sent what nobody asked for, since the last answer."""
        poll = select.poll()
        poll.register(self._lever, select.POLLIN | select.POLLHUP)
        return bool(poll.poll(0))

    def abort(self) -> None:
        """Ends what another thread is reading."""
        try:
            self._lever.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # not connected any more

    def close(self) -> None:
        self._socket.close()
        self._lever.close()

    def _send(self, request: Request, authorization: str | None, until: float) -> h11.Response:
        headers = [("Host", self._host), ("User-Agent", "homeport")]
        if "Accept" not in dict(request.headers):
            headers.append(("Accept", "application/json"))
        if authorization is not None:
            headers.append(("Authorization", authorization))
        headers += request.headers
        if request.body:
            headers.append(("Content-Length", str(len(request.body))))
        target = self._prefix + request.target
        sent = self._http.send(h11.Request(method=request.method, target=target, headers=headers)) or b""
        if request.body:
            sent += self._http.send(h11.Data(data=request.body)) or b""
        self._http.send(h11.EndOfMessage())
        self._limit(until)
        self._socket.sendall(sent)
        while True:
            event = self._event(until)
            if isinstance(event, h11.Response):  # and no interim answer
                return event

    def _pieces(self, until: float) -> Iterator[bytes]:
        while True:
            event = self._event(until)
            if isinstance(event, h11.Data):
                yield event.data
            else:
                return

    def _event(self, until: float) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._limit(until)
            received = self._socket.recv(_RECEIVE_BYTES)
            if not received and self._http.their_state is h11.SEND_RESPONSE:
                raise h11.RemoteProtocolError("the connection was closed before an answer")
            self._http.receive_data(received)
        return event

    def _limit(self, until: float) -> None:
        self._socket.settimeout(_remaining(until))


def _connected(host: str, port: int, until: float) -> socket.socket:
    """To the first address of `host` that takes us. The system's resolver keeps its own time."""
    problem: OSError = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        found = socket.socket(family, kind, protocol)
        try:
            found.settimeout(min(_remaining(until), _CONNECT_SECONDS))
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED_MS)
            found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _KEEPALIVE:
                found.setsockopt(socket.IPPROTO_TCP, option, value)
            found.connect(address)
        except OSError as e:
            found.close()
            problem = e
        else:
            return found
    raise problem


def _secured(plain: socket.socket, context: ssl.SSLContext, config: ApiConfig, until: float) -> ssl.SSLSocket:
    plain.settimeout(_remaining(until))
    return context.wrap_socket(plain, server_hostname=config.server_name or config.host)


def _remaining(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError("deadline")
    return left


def _retry_after(head: h11.Response) -> float:
    """Seconds alone: the API server never sends a date."""
    for name, value in head.headers:
        if name == b"retry-after" and value.isdigit() and len(value) < 6:
            return float(value)
    return 0.0
