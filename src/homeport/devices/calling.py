"""One call of a gRPC service behind a unix socket. I/O: that socket.

HTTP/2 by h2, and above it "gRPC over HTTP2" (github.com/grpc/grpc, doc/PROTOCOL-HTTP2.md): a request and a reply of one
message each, the outcome in the trailers. Whatever the other side sends or leaves out, a call ends at its deadline and
keeps no more than the reply it was promised.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterable, Iterator
from urllib.parse import unquote

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings

from homeport.model.errors import CniError, IOFailure, TryAgainLater

_PREFIX = 5  # a byte that tells whether the message is compressed, four of its length
_CHUNK = 65536
_FRAME_HEADER, _MAX_FRAME, _GOAWAY = 9, 16384, 7
_OK, _RESOURCE_EXHAUSTED = 0, 8
_NAMES = {
    1: "CANCELLED", 2: "UNKNOWN", 3: "INVALID_ARGUMENT", 4: "DEADLINE_EXCEEDED", 5: "NOT_FOUND", 6: "ALREADY_EXISTS",
    7: "PERMISSION_DENIED", 8: "RESOURCE_EXHAUSTED", 9: "FAILED_PRECONDITION", 10: "ABORTED", 11: "OUT_OF_RANGE",
    12: "UNIMPLEMENTED", 13: "INTERNAL", 14: "UNAVAILABLE", 15: "DATA_LOSS", 16: "UNAUTHENTICATED",
}  # fmt: skip
_PASSING = frozenset({1, 4, 8, 10, 14})  # the same call may go well later


class Overloaded(TryAgainLater):
    """The server answered RESOURCE_EXHAUSTED: it serves so many calls a second and no more."""


def call(path: str, method: str, request: bytes, *, timeout_seconds: float, max_reply_bytes: int) -> bytes:
    """The reply to `request`. `method` is `/PACKAGE.SERVICE/METHOD`.

    Raises `TryAgainLater` when nobody answers, in time or at all, `IOFailure` when the answer is an error that will
    stay one, or is not gRPC.
    """
    what = f"call {method} of {path}"
    deadline = time.monotonic() + timeout_seconds
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
            _limit(channel, deadline)
            channel.connect(path)
            return _Exchange(channel, what, deadline, max_reply_bytes).hold(method, request)
    except TimeoutError as e:
        raise TryAgainLater(f"{what}: no answer within {timeout_seconds:g} s") from e
    except OSError as e:
        raise TryAgainLater(f"{what}: {e.strerror or e}") from e
    except h2.exceptions.H2Error as e:
        raise IOFailure(f"{what}: the answer is not HTTP/2", f"{type(e).__name__}: {e}") from e


def _limit(channel: socket.socket, deadline: float) -> None:
    """Lets the next operation on the socket take no longer than is left."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    channel.settimeout(left)


def _lets_the_stream_end(frame: bytes) -> bool:
    """Whether the frame is a GOAWAY without an error whose last stream is ours or later."""
    last_stream, error = int.from_bytes(frame[9:13], "big") & 0x7FFFFFFF, frame[13:17]
    return frame[3] == _GOAWAY and len(frame) >= _FRAME_HEADER + 8 and last_stream >= 1 and error == bytes(4)


class _Exchange:
    """One stream on one connection, up to its end."""

    def __init__(self, channel: socket.socket, what: str, deadline: float, max_reply_bytes: int) -> None:
        self._channel = channel
        self._what = what
        self._deadline = deadline
        self._max_reply_bytes = max_reply_bytes
        self._http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding=None))
        self._headers: dict[bytes, bytes] = {}  # the response's, then with the trailers added
        self._unread = bytearray()
        self._body = bytearray()
        self._ended = False

    def hold(self, method: str, request: bytes) -> bytes:
        http = self._http
        http.local_settings[h2.settings.SettingCodes.ENABLE_PUSH] = 0
        http.initiate_connection()
        http.send_headers(1, self._request_headers(method))
        http.send_data(1, b"\0" + len(request).to_bytes(4, "big") + request, end_stream=True)
        while not self._ended:
            self._send()
            _limit(self._channel, self._deadline)
            data = self._channel.recv(_CHUNK)
            if not data:
                raise TryAgainLater(f"{self._what}: the connection was closed before the end of the answer")
            for frame in self._frames(data):
                for event in http.receive_data(frame):
                    self._see(event)
        return self._reply()

    def _frames(self, data: bytes) -> Iterator[bytes]:
        """The frames that are whole by now, but for one: h2 reads nothing after GOAWAY.

        A server that ends in good order sends it without an error, and finishes the streams it has (RFC 9113 §6.8).
        """
        self._unread += data
        while len(self._unread) >= _FRAME_HEADER:
            length = int.from_bytes(self._unread[:3], "big")
            if length > _MAX_FRAME:
                raise IOFailure(f"{self._what}: the answer is not HTTP/2", f"a frame of {length} bytes")
            if len(self._unread) < _FRAME_HEADER + length:
                return
            frame = bytes(self._unread[: _FRAME_HEADER + length])
            del self._unread[: _FRAME_HEADER + length]
            if not _lets_the_stream_end(frame):
                yield frame

    def _request_headers(self, method: str) -> list[tuple[bytes, bytes]]:
        milliseconds = max(1, int((self._deadline - time.monotonic()) * 1000))
        return [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", method.encode()),
            (b":authority", b"localhost"),
            (b"te", b"trailers"),
            (b"grpc-timeout", f"{milliseconds}m".encode()),
            (b"content-type", b"application/grpc"),
            (b"user-agent", b"homeport"),
        ]

    def _send(self) -> None:
        data = self._http.data_to_send()
        if data:
            _limit(self._channel, self._deadline)
            with contextlib.suppress(BrokenPipeError):  # all of the answer may have come before the other side hung up
                self._channel.sendall(data)

    def _see(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.ResponseReceived() | h2.events.TrailersReceived():
                self._take_headers(event.headers or ())
            case h2.events.DataReceived():
                self._body += event.data or b""
                if len(self._body) > _PREFIX + self._max_reply_bytes:
                    raise IOFailure(f"{self._what}: found more than {self._max_reply_bytes} bytes in the answer")
                self._http.acknowledge_received_data(event.flow_controlled_length or 0, 1)  # opens the windows again
            case h2.events.StreamEnded():
                self._ended = True
            case h2.events.StreamReset():
                raise TryAgainLater(f"{self._what}: the stream was reset", f"HTTP/2 error code {event.error_code}")
            case h2.events.ConnectionTerminated() if not self._ended:
                raise TryAgainLater(f"{self._what}: the server is going away", f"HTTP/2 error code {event.error_code}")

    def _take_headers(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        for name, value in headers:
            self._headers[bytes(name)] = bytes(value)

    def _reply(self) -> bytes:
        """The message, once the stream has ended as gRPC has it."""
        status = self._text(b":status")
        if b"grpc-status" not in self._headers:
            if status == "200":
                raise TryAgainLater(f"{self._what}: the answer ended without a status")
            raise IOFailure(f"{self._what}: found HTTP status {status}, expected 200")
        outcome = self._text(b"grpc-status")
        if outcome != str(_OK):
            raise self._refusal(outcome)
        encoding = self._text(b"grpc-encoding") or "identity"
        if encoding != "identity" or (self._body and self._body[0] != 0):
            raise IOFailure(f'{self._what}: found encoding "{encoding}", expected an answer that is not compressed')
        length = int.from_bytes(self._body[1:_PREFIX], "big")
        if len(self._body) != _PREFIX + length:
            raise IOFailure(f"{self._what}: found {len(self._body)} bytes, expected one message of {length}")
        return bytes(self._body[_PREFIX:])

    def _refusal(self, outcome: str) -> CniError:
        code = int(outcome) if outcome.isascii() and outcome.isdigit() and len(outcome) < 10 else 2
        told = unquote(self._text(b"grpc-message"), errors="replace")
        problem = f"{self._what}: the server answered {_NAMES.get(code, f'status {code}')}"
        if code == _RESOURCE_EXHAUSTED:
            return Overloaded(problem, told)
        return TryAgainLater(problem, told) if code in _PASSING else IOFailure(problem, told)

    def _text(self, header: bytes) -> str:
        return self._headers.get(header, b"").decode(errors="replace")
