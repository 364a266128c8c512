"""The netlink message format: pure encoding and decoding, no I/O.

netlink(7), RFC 3549 §2.3: a 16-byte header, a fixed body, then attributes of 16-bit length and type, each padded to
four bytes. Numbers are in host byte order. Written here because a plugin's process lives for some ten milliseconds,
of which importing a netlink library would be the largest part (`benchmarks/netlink_floor.py` measures it).
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterator
from functools import wraps
from typing import NamedTuple, ParamSpec, TypeVar

from homeport.host import uapi
from homeport.model.errors import DecodeFailure

P = ParamSpec("P")
T = TypeVar("T")
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence number, port
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_TYPE_MASK = uapi.NLA_TYPE_MASK
_INT = struct.Struct("=i")
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")  # by length modulo four


class Message(NamedTuple):
    """One netlink message; `body` is everything after the header."""

    kind: int
    flags: int
    sequence: int
    body: bytes


class Refusal(NamedTuple):
    """An NLMSG_ERROR: a positive errno (0 for an acknowledgement) and the kernel's own explanation, often ""."""

    errno: int
    text: str


# --- encoding ----------------------------------------------------------------------------------------------------


def request(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    """A whole message, asked by the kernel's choice of port."""
    return _HEADER.pack(16 + len(body), kind, flags | uapi.NLM_F_REQUEST, sequence, 0) + body


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded."""
    return _ATTRIBUTE.pack(4 + len(payload), kind) + payload + _PADDING[len(payload) & 3]


def nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute made of attributes."""
    return attribute(kind | uapi.NLA_F_NESTED, b"".join(attributes))


def text(kind: int, value: str) -> bytes:
    """A NUL-terminated string."""
    return attribute(kind, value.encode() + b"\0")


def u8(kind: int, value: int) -> bytes:
    """An unsigned integer of one byte."""
    return attribute(kind, value.to_bytes(1, sys.byteorder))


def u16(kind: int, value: int) -> bytes:
    """An unsigned integer of two bytes."""
    return attribute(kind, struct.Struct("=H").pack(value))


def u32(kind: int, value: int) -> bytes:
    """An unsigned integer of four bytes."""
    return attribute(kind, struct.Struct("=I").pack(value))


# --- decoding ----------------------------------------------------------------------------------------------------


def messages(data: bytes) -> Iterator[Message]:
    """The messages of one datagram; `DecodeFailure` when it does not end where its last message does."""
    offset, end = 0, len(data)
    while offset < end:
        if end - offset < 16:
            raise DecodeFailure(f"netlink datagram: {end - offset} bytes left over, expected a 16-byte header")
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        if not 16 <= length <= end - offset:
            raise DecodeFailure(f"netlink message: length {length}, expected 16 to {end - offset}")
        yield Message(kind, flags, sequence, data[offset + 16 : offset + length])
        offset += (length + 3) & ~3


def each_attribute(data: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """(type without its flag bits, payload) of every attribute from `offset` on; types may repeat."""
    end = len(data)
    while end - offset >= 4:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if not 4 <= length <= end - offset:
            raise DecodeFailure(f"netlink attribute {kind}: length {length}, expected 4 to {end - offset}")
        yield kind & uapi.NLA_TYPE_MASK, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """Attributes by type, where none repeats. Written out for speed: a link has some forty."""
    found = {}
    end = len(data)
    unpack = _ATTRIBUTE.unpack_from
    while end - offset >= 4:
        length, kind = unpack(data, offset)
        if length < 4 or length > end - offset:
            raise DecodeFailure(f"netlink attribute {kind}: length {length}, expected 4 to {end - offset}")
        found[kind & _TYPE_MASK] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def decoder(decode: Callable[P, T]) -> Callable[P, T]:
    """Makes every way in which a message's bytes can be wrong one error."""

    @wraps(decode)
    def decode_or_fail(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return decode(*args, **kwargs)
        except (struct.error, KeyError, ValueError) as error:
            raise DecodeFailure(f"netlink message: {decode.__name__}", f"{type(error).__name__}: {error}") from error

    return decode_or_fail


def number(payload: bytes) -> int:
    """An unsigned integer of any width."""
    return int.from_bytes(payload, sys.byteorder)


def string(payload: bytes) -> str:
    """A NUL-terminated string; bytes that are no UTF-8 survive as surrogates, as in file names."""
    return payload.rstrip(b"\0").decode(errors="surrogateescape")


@decoder
def refusal(message: Message) -> Refusal:
    """Reads an NLMSG_ERROR, or the error number an NLMSG_DONE may carry."""
    body = message.body
    code = -_INT.unpack_from(body)[0] if len(body) >= 4 else 0
    if not message.flags & uapi.NLM_F_ACK_TLVS:
        return Refusal(code, "")
    if message.kind == uapi.NLMSG_DONE:
        offset = 4
    elif message.flags & uapi.NLM_F_CAPPED:
        offset = 20  # the error number and our request's header
    else:
        offset = 4 + ((_HEADER.unpack_from(body, 4)[0] + 3) & ~3)  # the error number and our whole request
    told = attributes(body, offset).get(uapi.NLMSGERR_ATTR_MSG, b"")
    return Refusal(code, string(told))
