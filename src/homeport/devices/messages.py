"""Protocol Buffers' wire format, as far as it takes to find some strings in a message. No I/O.

https://protobuf.dev/programming-guides/encoding. What is asked for here are only length-delimited fields: strings and
embedded messages. All others are passed over, as are field numbers the caller does not know. One message is read from
front to back once; nothing is built of it but what the caller keeps, and the number of fields is bounded.
"""

from __future__ import annotations

from collections.abc import Iterator

from homeport.model.errors import DecodeFailure

MAX_FIELDS = 1_000_000
_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5
_VARINT_MAX_BYTES = 10


class Reader:
    """Reads the messages of one reply; MAX_FIELDS bounds all of them together. `what` names the reply in errors."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._left = MAX_FIELDS

    def fields(self, message: memoryview) -> Iterator[tuple[int, memoryview]]:
        """(field number, contents) of every length-delimited field, in order; raises `DecodeFailure` on the way."""
        at = 0
        while at < len(message):
            if self._left == 0:
                raise self._wrong(f"found more than {MAX_FIELDS} fields")
            self._left -= 1
            tag, at = self._varint(message, at)
            number, kind = tag >> 3, tag & 7
            if number == 0:
                raise self._wrong("found field number 0")
            if kind == _VARINT:
                _, at = self._varint(message, at)
                continue
            if kind == _DELIMITED:
                length, at = self._varint(message, at)
            elif kind in (_FIXED64, _FIXED32):
                length = 8 if kind == _FIXED64 else 4
            else:
                raise self._wrong(f"field {number}: found wire type {kind}, which proto3 does not have")
            if length > len(message) - at:
                raise self._wrong(f"field {number}: found {len(message) - at} bytes, expected {length}")
            if kind == _DELIMITED:
                yield number, message[at : at + length]
            at += length

    def text(self, contents: memoryview) -> str:
        """A string field."""
        try:
            return str(contents, "utf-8")
        except UnicodeDecodeError as e:
            raise self._wrong("found a string that is not UTF-8") from e

    def _varint(self, message: memoryview, at: int) -> tuple[int, int]:
        """(value, where the next byte is)."""
        value = 0
        for n, byte in enumerate(message[at : at + _VARINT_MAX_BYTES]):
            value |= (byte & 0x7F) << (7 * n)
            if byte < 0x80:
                return value, at + n + 1
        raise self._wrong("found a number without end")

    def _wrong(self, problem: str) -> DecodeFailure:
        return DecodeFailure(f"decode {self._what}: {problem}")
