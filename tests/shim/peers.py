"""A daemon's place: a unix socket, and a script for each connection, in threads of the test."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

MAGIC = b"HPR1"


class Request(msgspec.Struct, frozen=True):
    """A frame taken apart by the protocol's words, not by our parser."""

    env: dict[bytes, bytes]
    variables: tuple[bytes, ...]  # in order
    stdin: bytes
    frame: bytes


Script = Callable[[socket.socket], None]


def answer(stdout: bytes = b"", code: int = 0) -> bytes:
    return MAGIC + code.to_bytes(4, "big") + len(stdout).to_bytes(4, "big") + stdout


def read_exactly(connection: socket.socket, size: int) -> bytes:
    read = bytearray()
    while len(read) < size:
        piece = connection.recv(size - len(read))
        assert piece, f"the shim hung up after {len(read)} of {size} bytes"
        read += piece
    return bytes(read)


def read_request(connection: socket.socket) -> Request:
    header = read_exactly(connection, 12)
    assert header[:4] == MAGIC
    env_size, stdin_size = int.from_bytes(header[4:8], "big"), int.from_bytes(header[8:12], "big")
    assert env_size <= 256 * 1024
    assert stdin_size <= 4 * 1024 * 1024
    env, stdin = read_exactly(connection, env_size), read_exactly(connection, stdin_size)
    return decode(header + env + stdin)


def decode(frame: bytes) -> Request:
    env_size = int.from_bytes(frame[4:8], "big")
    env, stdin = frame[12 : 12 + env_size], frame[12 + env_size :]
    assert len(stdin) == int.from_bytes(frame[8:12], "big")
    assert env.endswith(b"\0")
    variables = tuple(env[:-1].split(b"\0"))
    pairs = {key: value for key, _, value in (variable.partition(b"=") for variable in variables)}
    return Request(pairs, variables, stdin, frame)


class Peer:
    """Listens, and runs the scripts, one a connection, in order; the last one for all that follow."""

    def __init__(self, path: Path, *scripts: Script, backlog: int = 16) -> None:
        self.requests: list[Request] = []
        self.connections = 0
        self.failure: BaseException | None = None
        self._scripts = scripts
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(backlog)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection = self._listener.accept()[0]
            except OSError:
                return
            script = self._scripts[min(self.connections, len(self._scripts) - 1)]
            self.connections += 1
            connection.settimeout(30)
            with connection:
                try:
                    script(connection)
                except BrokenPipeError:
                    continue  # a shim that has heard enough hangs up
                except (AssertionError, OSError) as e:
                    self.failure = e

    def replies(self, *pieces: bytes) -> Script:
        """Reads a whole request, notes it, and sends these pieces one after the other."""

        def script(connection: socket.socket) -> None:
            self.requests.append(read_request(connection))
            for piece in pieces:
                connection.sendall(piece)

        return script

    def then(self, *scripts: Script) -> None:
        self._scripts = scripts

    def close(self) -> None:
        """Hears no more calls; the socket's file stays. Doing it again changes nothing."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(30)
        assert not self._thread.is_alive()


def hang_up(connection: socket.socket) -> None:
    """Closes with the request unread, as the kernel does for a daemon that is killed."""


def silent_until(over: threading.Event) -> Script:
    """Neither reads nor writes."""

    def script(_connection: socket.socket) -> None:
        over.wait(30)

    return script
