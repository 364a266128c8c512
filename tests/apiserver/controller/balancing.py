"""What stands for a Service before several controllers: connections, given to one after the other. I/O: sockets."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from contextlib import suppress

Place = tuple[str, int]


class Balancer:
    """Listens on an address of its own from the start until `close`. `backends` may be changed at any time."""

    def __init__(self, host: str, backends: Sequence[Place]) -> None:
        self.backends = tuple(backends)
        self._turn = 0
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server((host, 0), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        for end in tuple(self._open):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _run(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        """One connection, from its first byte to its last; nobody to give it to ends it."""
        with client:
            backend = self._connected()
            if backend is None:
                return
            with backend:
                self._open |= {client, backend}
                back = threading.Thread(target=_pump, args=(backend, client), daemon=True)
                back.start()
                _pump(client, backend)
                back.join()
                self._open -= {client, backend}

    def _connected(self) -> socket.socket | None:
        for _ in self.backends:
            self._turn += 1
            with suppress(OSError):
                return socket.create_connection(self.backends[self._turn % len(self.backends)], timeout=10)
        return None


def _pump(source: socket.socket, sink: socket.socket) -> None:
    source.settimeout(None)
    with suppress(OSError):
        while part := source.recv(1 << 16):
            sink.sendall(part)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
