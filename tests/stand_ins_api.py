"""A server on a socket that answers as a test says, bytes and all: whole, in pieces, late, broken off, or never."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

from homeport.kube.configs import ApiConfig


class Asked(msgspec.Struct, frozen=True):
    """A request as it came in."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def watching(self) -> bool:
        return self.query.get("watch") == "true"


class Reset:
    """Ends the connection with RST."""


class Hang:
    """Keeps the connection, and says no more until the server is closed."""


Piece = bytes | Reset | Hang
Behaviour = Callable[[Asked], Iterator[Piece]]


def answer(code: int, body: Any = b"", **headers: str) -> bytes:
    """A whole answer; anything but bytes is made JSON."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {"Content-Type": "application/json", "Content-Length": str(len(raw)), **headers}
    head = f"HTTP/1.1 {code} x\r\n" + "".join(f"{k.replace('_', '-')}: {v}\r\n" for k, v in fields.items())
    return head.encode() + b"\r\n" + raw


def status(code: int, reason: str = "", message: str = "", **details: Any) -> bytes:
    """A refusal as an API server writes it."""
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason}
    return answer(code, {**body, "message": message, "details": details})


def not_found(name: str, kind: str = "pods") -> bytes:
    return status(404, "NotFound", f'{kind} "{name}" not found', name=name, kind=kind)


def streaming() -> bytes:
    """The head of an answer that goes on."""
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(line: Any) -> bytes:
    """A line of a watch, as a chunk."""
    raw = (line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n"
    return f"{len(raw):x}\r\n".encode() + raw + b"\r\n"


LAST_CHUNK = b"0\r\n\r\n"


class ScriptedServer:
    """Listens on loopback; `behaviour` gives the pieces of each answer. `asked` is what came, in order."""

    def __init__(self, behaviour: Behaviour, *, context: ssl.SSLContext | None = None) -> None:
        self.behaviour = behaviour
        self.asked: list[Asked] = []
        self.connections = 0
        self._context = context
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def config(self) -> ApiConfig:
        return ApiConfig(host="127.0.0.1", port=self.port, tls=False, source="a test")

    def close(self) -> None:
        """Idempotent; from then on connections are refused."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()

    def hang_up(self) -> None:
        """Closes every connection there is."""
        with self._lock:
            for connection in self._open:
                with suppress(OSError):  # closed by itself just now
                    connection.shutdown(socket.SHUT_RDWR)
            self._open.clear()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self.connections += 1
                self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, raw: socket.socket) -> None:
        try:
            connection = self._context.wrap_socket(raw, server_side=True) if self._context is not None else raw
            with connection:
                received = b""
                while (read := _read_request(connection, received)) is not None:
                    asked, received = read
                    with self._lock:
                        self.asked.append(asked)
                    for piece in self.behaviour(asked):
                        if not self._write(connection, piece):
                            return
        except OSError:
            return  # the client went away, as some tests have it
        finally:
            with self._lock:
                self._open.discard(raw)
            raw.close()

    def _write(self, connection: socket.socket, piece: Piece) -> bool:
        if isinstance(piece, Hang):
            self._closing.wait()
            return False
        if isinstance(piece, Reset):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        if not piece:
            return False  # closed in good order
        connection.sendall(piece)
        return True


def _read_request(connection: socket.socket, received: bytes) -> tuple[Asked, bytes] | None:
    while b"\r\n\r\n" not in received:
        more = connection.recv(65536)
        if not more:
            return None
        received += more
    head, _, rest = received.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = int(headers.get("content-length", "0"))
    while len(rest) < length:
        rest += connection.recv(65536)
    parts = urlsplit(target)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    return Asked(method, parts.path, query, headers, rest[:length]), rest[length:]
