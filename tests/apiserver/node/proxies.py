"""Between a node's daemon and the real API server: answers with errors when it is told to. I/O: HTTPS.

It has the control plane's own certificate, and passes on whatever it is not told to refuse, watches included.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from testcluster.control_plane import ControlPlane

Refuse = Callable[[str, str], int]  # (method, path with its query) to a status, 0 to pass it on
REASONS = {404: "NotFound", 409: "Conflict", 410: "Expired", 429: "TooManyRequests", 500: "InternalError"}


class Proxy:
    """`refuse` may be replaced at any time; `refused` lists what was, as "METHOD PATH STATUS"."""

    def __init__(self, plane: ControlPlane) -> None:
        self.refuse: Refuse = lambda _method, _path: 0
        self.refused: list[str] = []
        self._watches: set[http.client.HTTPSConnection] = set()
        pki = plane.folder / "pki"
        upstream = urlsplit(plane.server)
        assert upstream.hostname
        self._upstream = (upstream.hostname, upstream.port)
        self._trust = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        self._server = ThreadingHTTPServer((upstream.hostname, 0), self._handler())
        self._server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pki / "serving.crt", pki / "serving.key")
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"https://{upstream.hostname}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self.end_watches()
        self._server.server_close()

    def end_watches(self) -> None:
        """Breaks off those that are open."""
        for connection in list(self._watches):
            with contextlib.suppress(OSError):
                assert connection.sock
                connection.sock.shutdown(2)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                """Nothing."""

            def handle(self) -> None:
                with contextlib.suppress(OSError, http.client.HTTPException):  # either side may break off
                    super().handle()

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status = proxy.refuse(self.command, self.path)
                if status:
                    proxy.refused.append(f"{self.command} {self.path} {status}")
                    self._refuse(status)
                else:
                    self._pass_on(body)

            do_POST = do_PATCH = do_PUT = do_DELETE = do_GET  # noqa: N815

            def _refuse(self, status: int) -> None:
                text = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status}
                answer = json.dumps({**text, "reason": REASONS[status], "message": "the test refuses it"}).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                if status == 429:
                    self.send_header("Retry-After", "1")
                self.end_headers()
                self.wfile.write(answer)

            def _pass_on(self, body: bytes) -> None:
                host, port = proxy._upstream
                connection = http.client.HTTPSConnection(host, port, context=proxy._trust)
                headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "accept-encoding")}
                with contextlib.closing(connection):
                    connection.request(self.command, self.path, body or None, headers)
                    answer = connection.getresponse()
                    self.send_response(answer.status)
                    self.send_header("Content-Type", answer.headers.get("Content-Type", "application/json"))
                    if "watch=" in self.path:
                        self._stream(connection, answer)
                        return
                    content = answer.read()
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)

            def _stream(self, connection: http.client.HTTPSConnection, answer: http.client.HTTPResponse) -> None:
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                self.close_connection = True
                proxy._watches.add(connection)
                try:
                    while line := answer.readline():
                        self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
                        self.wfile.flush()
                    self.wfile.write(b"0\r\n\r\n")
                finally:
                    proxy._watches.discard(connection)

        return Handler
