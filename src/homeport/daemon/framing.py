"""Homeport's own protocol between shim and daemon: one request, one reply, then the connection is closed. No I/O.

Integers are unsigned, of 32 bits, the most significant byte first.

    request   "HPR1"  length of environment  length of stdin  environment  stdin
    reply     "HPR1"  exit code              length of stdout              stdout

The environment is a run of KEY=VALUE, each ended by NUL: the caller's variables that start with CNI_, and
HOMEPORT_PLUGIN, the name the shim was called by. Others are ignored; of a name given twice the first counts, as for
getenv(3). A file of the journal is such a request, byte for byte.

Whatever bytes come in, the functions here return a value or raise `BadFrame`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import NamedTuple

from homeport.daemon.calls import Call, Reply
from homeport.model.errors import DecodeFailure

MAGIC = b"HPR1"
HEADER_BYTES = 12
MAX_ENVIRONMENT_BYTES = 256 * 1024
MAX_STDIN_BYTES = 4 * 1024 * 1024
MAX_STDOUT_BYTES = 4 * 1024 * 1024
MAX_REQUEST_BYTES = HEADER_BYTES + MAX_ENVIRONMENT_BYTES + MAX_STDIN_BYTES
PLUGIN_VARIABLE = "HOMEPORT_PLUGIN"

_HEADER = struct.Struct(">4sII")


class BadFrame(DecodeFailure):
    """Bytes that are not a request, or not a reply, of this protocol."""


class Sizes(NamedTuple):
    """What a request's header announces, in bytes."""

    environment: int
    stdin: int

    @property
    def whole(self) -> int:
        """The length of the request, its header included."""
        return HEADER_BYTES + self.environment + self.stdin


def request_sizes(beginning: bytes) -> Sizes:
    """Of a request whose first HEADER_BYTES are there, so that nothing too long is ever read."""
    sizes = Sizes(*_header(beginning, "request"))
    _require_at_most(sizes.environment, MAX_ENVIRONMENT_BYTES, "environment")
    _require_at_most(sizes.stdin, MAX_STDIN_BYTES, "stdin")
    return sizes


def decode_request(frame: bytes) -> Call:
    """A whole request, no byte more and no byte less."""
    sizes = request_sizes(frame)
    if len(frame) != sizes.whole:
        raise BadFrame(f"decode request: found {len(frame)} bytes, expected {sizes.whole}")
    end = HEADER_BYTES + sizes.environment
    environ = _environment(frame[HEADER_BYTES:end])
    plugin = environ.pop(PLUGIN_VARIABLE, "")
    if not plugin:
        raise BadFrame(f"decode request: {PLUGIN_VARIABLE} is missing from its environment")
    return Call(plugin=plugin, environ=environ, stdin=frame[end:])


def encode_request(call: Call) -> bytes:
    """The inverse of `decode_request`; raises `BadFrame` for what the form cannot carry."""
    environment = _encode_environment({**call.environ, PLUGIN_VARIABLE: call.plugin})
    _require_at_most(len(environment), MAX_ENVIRONMENT_BYTES, "environment")
    _require_at_most(len(call.stdin), MAX_STDIN_BYTES, "stdin")
    return _HEADER.pack(MAGIC, len(environment), len(call.stdin)) + environment + call.stdin


def encode_reply(reply: Reply) -> bytes:
    """Raises `BadFrame` for an answer too long for the form."""
    _require_at_most(len(reply.stdout), MAX_STDOUT_BYTES, "stdout")
    return _HEADER.pack(MAGIC, reply.exit_code, len(reply.stdout)) + reply.stdout


def decode_reply(frame: bytes) -> Reply:
    """A whole reply, as read until the daemon closed the connection."""
    exit_code, length = _header(frame, "reply")
    if exit_code > 255:
        raise BadFrame(f"decode reply: found exit code {exit_code}, expected 0 to 255")
    _require_at_most(length, MAX_STDOUT_BYTES, "stdout")
    if len(frame) != HEADER_BYTES + length:
        raise BadFrame(f"decode reply: found {len(frame)} bytes, expected {HEADER_BYTES + length}")
    return Reply(exit_code=exit_code, stdout=frame[HEADER_BYTES:])


def _header(frame: bytes, what: str) -> tuple[int, int]:
    if len(frame) < HEADER_BYTES:
        raise BadFrame(f"decode {what}: found {len(frame)} bytes, expected a header of {HEADER_BYTES}")
    magic, one, other = _HEADER.unpack_from(frame)
    if magic != MAGIC:
        raise BadFrame(f"decode {what}: found {magic!r} at its beginning, expected {MAGIC!r}")
    return one, other


def _environment(block: bytes) -> dict[str, str]:
    if block and not block.endswith(b"\0"):
        raise BadFrame("decode request: the last variable of its environment does not end with NUL")
    environ: dict[str, str] = {}
    for entry in block.split(b"\0")[:-1]:
        name, equals, value = entry.partition(b"=")
        if not name or not equals:
            raise BadFrame(f"decode request: found {entry[:80]!r} in its environment, expected KEY=VALUE")
        if name.startswith(b"CNI_") or name == PLUGIN_VARIABLE.encode():
            environ.setdefault(_text(name), _text(value))
    return environ


def _encode_environment(environ: Mapping[str, str]) -> bytes:
    block = bytearray()
    for name, value in environ.items():
        if not name or "=" in name or "\0" in name + value:
            raise BadFrame(f"encode request: found variable {name!r}, expected a name without =, and no NUL")
        try:
            block += f"{name}={value}\0".encode(errors="surrogateescape")
        except UnicodeEncodeError as e:
            raise BadFrame(f"encode request: variable {name!r} is no text: {e.reason}") from e
    return bytes(block)


def _text(raw: bytes) -> str:
    """As os.environ has it: bytes that are not UTF-8 become lone surrogates, and those who check values name them."""
    return raw.decode(errors="surrogateescape")


def _require_at_most(found: int, limit: int, what: str) -> None:
    if found > limit:
        raise BadFrame(f"{what} of the call: found {found} bytes, expected at most {limit}")
