"""One request and its answer on one connection, in the protocol its first bytes tell. Bytes in, bytes out; no I/O."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from homeport.daemon import framing
from homeport.daemon.calls import Call, Outcome
from homeport.daemon.framing import BadFrame
from homeport.daemon.http import CountRequest, HttpExchange

_MARK = framing.MAGIC[:3]  # no method of HTTP begins with it; the last byte is the protocol's version


class Exchange(Protocol):
    """What a connection goes through: `receive` until it gives something, then `encode` if that was a call."""

    def receive(self, data: bytes) -> Call | bytes | None:
        """What came, b"" at its end. Returns a call to carry out, or the answer to send, or None: more must come.

        b"" as an answer means that there is nobody to answer. Not to be called again after it gave something.
        """

    def encode(self, outcome: Outcome) -> bytes: ...


class FramedExchange:
    """Homeport's own protocol (`framing`)."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._whole = 0  # length of the request, once its header is there

    def receive(self, data: bytes) -> Call | bytes | None:
        self._received += data
        try:
            if not self._whole and len(self._received) >= framing.HEADER_BYTES:
                self._whole = framing.request_sizes(bytes(self._received[: framing.HEADER_BYTES])).whole
            if self._whole and len(self._received) >= self._whole:
                return framing.decode_request(bytes(self._received))
            if not data:
                raise BadFrame(f"decode request: it ends after {len(self._received)} bytes")
        except BadFrame as e:
            return self.encode(Outcome(error=e))
        return None

    def encode(self, outcome: Outcome) -> bytes:
        try:
            return framing.encode_reply(outcome.reply())
        except BadFrame as e:
            return framing.encode_reply(Outcome(error=e, cni_version=outcome.cni_version).reply())


class OpeningExchange:
    """An exchange whose protocol is still to be told; the arguments are those of `HttpExchange`."""

    def __init__(self, unready: Callable[[], str], count: CountRequest) -> None:
        self._unready = unready
        self._count = count
        self._opening = b""
        self._chosen: Exchange | None = None

    def receive(self, data: bytes) -> Call | bytes | None:
        if self._chosen is not None:
            return self._chosen.receive(data)
        self._opening += data
        if data and _MARK.startswith(self._opening[: len(_MARK)]) and len(self._opening) < len(_MARK):
            return None
        if not self._opening:
            return b""  # somebody who only looked whether we are there
        self._chosen = FramedExchange() if self._opening.startswith(_MARK) else HttpExchange(self._unready, self._count)
        answer = self._chosen.receive(self._opening)
        return self._chosen.receive(b"") if answer is None and not data else answer

    def encode(self, outcome: Outcome) -> bytes:
        assert self._chosen is not None, "nothing was received"
        return self._chosen.encode(outcome)
