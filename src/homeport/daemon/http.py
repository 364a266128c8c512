"""Upstream's thick-plugin protocol, for its unmodified `multus-shim` and for hotplug controllers. No I/O.

HTTP/1.1 (RFC 9112), one request a connection. `POST /cni` carries a call of a runtime and `POST /delegate` the
attaching of one network by itself: `{"env": {...}, "config": "<base64 of stdin>", "interfaceAttributes": {...}}`.
ADD is answered with `{"Result": {...}}` as of CNI 1.1.0, the other verbs with nothing; a failure is status 400 and
always a CNI error object. `/healthz` says that the daemon lives, `/readyz` whether it takes calls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import h11
import msgspec

import homeport
from homeport.cni import documents, versions
from homeport.daemon import framing
from homeport.daemon.calls import Call, Outcome
from homeport.model.errors import CniError, DecodeFailure, InvalidEnvironment

# A configuration in base64 is a third longer; the rest is the environment, whose JSON may be longer than itself.
MAX_BODY_BYTES = framing.MAX_STDIN_BYTES // 3 * 4 + 4 * framing.MAX_ENVIRONMENT_BYTES
MAX_HEADER_BYTES = 16 * 1024
_CALLING_PLUGIN = "multus-shim"
# What upstream supposes where a controller leaves it out.
_DEFAULTS = {"CNI_IFNAME": "eth0", "CNI_PATH": "/opt/cni/bin"}
_METHODS = {"/cni": ("POST",), "/delegate": ("POST",), "/healthz": ("GET", "POST"), "/readyz": ("GET", "POST")}
_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    411: "Length Required",
    413: "Content Too Large",
    417: "Expectation Failed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
}

CountRequest = Callable[[str, int, str], object]  # (path, status, method)


class _Body(msgspec.Struct):
    env: dict[str, str] = {}
    config: bytes = b""
    interface_attributes: dict[str, Any] = msgspec.field(name="interfaceAttributes", default_factory=dict)


class HttpExchange:
    """One request and its response. `unready` says why the daemon takes no calls, "" while it does.

    `count` hears of each response to a request for one of our paths.
    """

    def __init__(self, unready: Callable[[], str], count: CountRequest = lambda *_: None) -> None:
        self._unready = unready
        self._count = count
        self._connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEADER_BYTES)
        self._method = self._path = ""
        self._body = bytearray()

    def receive(self, data: bytes) -> Call | bytes | None:
        """What came, b"" at its end. Returns the call, or the whole response, or None when more is to come."""
        try:
            self._connection.receive_data(data)
            return self._advance()
        except h11.RemoteProtocolError as e:
            return self._respond(e.error_status_hint, f"{e}\n")

    def encode(self, outcome: Outcome) -> bytes:
        """The response to the call."""
        if outcome.error is not None:
            return self.refuse(outcome.error, outcome.cni_version)
        if outcome.result is not None:
            result = versions.encode_result(outcome.result, versions.CURRENT)
            return self._respond(200, msgspec.json.encode({"Result": result}))
        return self._respond(200, outcome.text)

    def refuse(self, error: CniError, cni_version: str = "") -> bytes:
        """A failure as upstream's shim reads it."""
        return self._respond(400, documents.write(versions.encode_error(error, cni_version)))

    def _advance(self) -> Call | bytes | None:
        while True:
            event = self._connection.next_event()
            if isinstance(event, h11.Request):
                refusal = self._begin(event)
                if refusal is not None:
                    return refusal
            elif isinstance(event, h11.Data):
                self._body += event.data
                if len(self._body) > MAX_BODY_BYTES:
                    return self._respond(413, f"found more than {MAX_BODY_BYTES} bytes\n")
            elif isinstance(event, h11.EndOfMessage):
                return self._answer()
            else:
                return None

    def _begin(self, request: h11.Request) -> bytes | None:
        """A request that is refused before its body is read; None when it may come."""
        self._method = request.method.decode("ascii")
        self._path = request.target.decode("ascii", "backslashreplace").partition("?")[0]
        allowed = _METHODS.get(self._path)
        if allowed is None:
            return self._respond(404, f"{self._path}: found no such path, expected one of {', '.join(_METHODS)}\n")
        if self._method not in allowed:
            return self._respond(
                405, f"{self._path}: found {self._method}, expected {' or '.join(allowed)}\n", allow=", ".join(allowed)
            )
        headers = dict(request.headers)  # h11 has refused a Content-Length that is no number, or two that differ
        length = headers.get(b"content-length")
        if allowed == ("POST",) and length is None and b"transfer-encoding" not in headers:
            return self._respond(411, "found no Content-Length\n")
        if length is not None and int(length) > MAX_BODY_BYTES:
            return self._respond(413, f"found a body of {int(length)} bytes, expected at most {MAX_BODY_BYTES}\n")
        if self._connection.they_are_waiting_for_100_continue:
            return self._respond(417, "found Expect: 100-continue, expected the body at once\n")
        return None

    def _answer(self) -> Call | bytes:
        if self._path == "/healthz":
            return self._respond(200, b"")
        if self._path == "/readyz":
            reason = self._unready()
            return self._respond(500, f"{reason}\n") if reason else self._respond(200, b"")
        try:
            return decode_call(bytes(self._body), hotplug=self._path == "/delegate")
        except CniError as e:
            return self.refuse(e)

    def _respond(self, status: int, body: bytes | str, **headers: str) -> bytes:
        if self._path in _METHODS:
            self._count(self._path, status, self._method)
        kind = "application/json"
        if isinstance(body, str):
            kind, body = "text/plain; charset=utf-8", body.encode()
        fields = [
            ("Server", f"homeportd/{homeport.__version__}"),
            ("Content-Type", kind),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
            *headers.items(),
        ]
        response = h11.Response(status_code=status, reason=_REASONS.get(status, ""), headers=fields)
        data = b"" if self._method == "HEAD" else body
        sent = [self._connection.send(event) for event in (response, h11.Data(data=data), h11.EndOfMessage())]
        return b"".join(piece or b"" for piece in sent)


def decode_call(body: bytes, *, hotplug: bool) -> Call:
    """The call in a request's body; raises `CniError`."""
    wire = documents.convert(documents.decode_object(body, "request"), _Body, error=DecodeFailure)
    environ = {name: value for name, value in wire.env.items() if name.startswith("CNI_")}
    _require_no_nul(environ)
    if len(wire.config) > framing.MAX_STDIN_BYTES:
        raise DecodeFailure(f'key "config": found {len(wire.config)} bytes, expected at most {framing.MAX_STDIN_BYTES}')
    return Call(
        plugin=_CALLING_PLUGIN,
        environ={**environ, **{name: value for name, value in _DEFAULTS.items() if not environ.get(name)}},
        stdin=wire.config,
        attributes=wire.interface_attributes if hotplug else None,
    )


def _require_no_nul(environ: Mapping[str, str]) -> None:
    """No process could have such a variable, and no file such a name."""
    bad = [name for name, value in environ.items() if "\0" in name + value]
    if bad:
        raise InvalidEnvironment("; ".join(f"{name!a}: found NUL in it" for name in bad))
