"""/healthz, /readyz and /metrics over HTTP. I/O: a socket, threads."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from homeport.model.errors import IOFailure

_READ_SECONDS = 5.0
_TEXT = "text/plain; charset=utf-8"


class Pages(ThreadingHTTPServer):
    """Serves from `start` to `close`.

    `unhealthy` says why the process should be started anew, `unready` why it does not do its work; "" when all is well.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(
        self,
        address: str,
        port: int,
        *,
        registry: CollectorRegistry,
        unhealthy: Callable[[], str],
        unready: Callable[[], str],
    ) -> None:
        self.registry, self.unhealthy, self.unready = registry, unhealthy, unready
        try:
            super().__init__((address, port), _Handler)
        except OSError as e:
            raise IOFailure(f"listen on {address}:{port}: {os.strerror(e.errno or 0)}") from e

    def start(self) -> None:
        threading.Thread(target=self.serve_forever, name="pages", daemon=True).start()

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Pages
    timeout = _READ_SECONDS
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        match self.path.partition("?")[0]:
            case "/healthz":
                self._say(self.server.unhealthy())
            case "/readyz":
                self._say(self.server.unready())
            case "/metrics":
                self._send(200, generate_latest(self.server.registry), CONTENT_TYPE_LATEST)
            case other:
                self._send(
                    404, f"{other}: found no such page, expected /healthz, /readyz or /metrics\n".encode(), _TEXT
                )

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a probe every second is no news."""

    def _say(self, trouble: str) -> None:
        self._send(503 if trouble else 200, f"{trouble or 'ok'}\n".encode(), _TEXT)

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
