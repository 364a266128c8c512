"""JSON with the place of every value, and with every mistake named where it stands. No I/O.

RFC 8259. Mistakes whose meaning is plain (a trailing or missing comma, a comment, single quotes) are reported and read
over, so that one slip does not hide the next; anything else ends the reading.
"""

from __future__ import annotations

import json
import re

import msgspec

from homeport.lint.findings import Span
from homeport.lint.nodes import MAX_DEPTH, Kind, Member, Node

_SPACE = re.compile(r"[ \t\r\n]*")
_COMMENT = re.compile(r"//[^\n]*|#[^\n]*|/\*.*?\*/", re.DOTALL)
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"', re.DOTALL)
_LOOSE_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_SINGLE = re.compile(r"'(?:[^'\\\n]|\\.)*'")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?(?![0-9A-Za-z_.+-])")
_WORD = re.compile(r"[A-Za-z0-9_.+-]+")
_CONSTANTS = {"true": True, "false": False, "null": None}
_NEAR_CONSTANTS = {"True": "true", "TRUE": "true", "False": "false", "FALSE": "false", "None": "null", "nil": "null"}
_MAX_DIGITS = 300
_MAX_SLIPS = 50


class Slip(msgspec.Struct, frozen=True):
    """A mistake in JSON text; `mend` replaces `span` where the meaning is beyond doubt."""

    span: Span
    found: str
    right: str
    mend: str | None = None


def read(text: str) -> tuple[Node | None, tuple[Slip, ...]]:
    """The value and the slips, with spans in `text`; no value where the text ends or breaks off."""
    reader = _Reader(text)
    try:
        node = reader.document()
    except _BrokenOff:
        node = None
    return node, tuple(reader.slips)


class _BrokenOff(Exception):
    """The rest cannot be read; the reason is the last slip."""


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.slips: list[Slip] = []

    def document(self) -> Node:
        self._skip()
        if self.position == len(self.text):
            raise self._broken(0, "nothing", "a JSON object")
        node = self._value(0)
        self._skip()
        if self.position < len(self.text):
            raise self._broken(self.position, f"{self._here()} after the end", "nothing after the last bracket")
        return node

    def _value(self, depth: int) -> Node:
        start, first = self.position, self.text[self.position : self.position + 1]
        if depth > MAX_DEPTH:
            raise self._broken(start, "brackets nested too deeply", f"at most {MAX_DEPTH} levels")
        match first:
            case "{":
                return self._object(depth)
            case "[":
                return self._array(depth)
            case '"' | "'":
                return self._string()
        if number := _NUMBER.match(self.text, start):
            return self._number(number)
        return self._constant()

    def _object(self, depth: int) -> Node:
        start = self._take()
        members: list[Member] = []
        while not self._closes("}", start, bool(members)):
            if self.text[self.position] not in "\"'":
                raise self._broken(self.position, self._here(), 'a key in double quotes, or "}"')
            key = self._string()
            self._skip()
            if not self.text.startswith(":", self.position):
                raise self._broken(self.position, f"{self._here()} after key {json.dumps(key.value)}", '":"')
            self._take()
            self._skip()
            members.append(Member(key, self._value(depth + 1)))
        return Node(kind="object", span=Span(start, self.position), members=tuple(members))

    def _array(self, depth: int) -> Node:
        start = self._take()
        items: list[Node] = []
        while not self._closes("]", start, bool(items)):
            items.append(self._value(depth + 1))
        return Node(kind="array", span=Span(start, self.position), items=tuple(items))

    def _closes(self, bracket: str, start: int, after_value: bool) -> bool:
        """Steps over the comma before the next element, or over the closing bracket, which it tells."""
        last = self.position
        self._skip()
        comma = self.position
        if after_value and self.text.startswith(",", comma):
            self._take()
            self._skip()
            if self.text.startswith(bracket, self.position):
                self._slip(comma, comma + 1, "a comma after the last element", "no comma there", mend="")
        elif after_value and self.text[comma : comma + 1] in ('"', "{", "[") and comma < len(self.text):
            self._slip(last, last, f"{self._here()} right after a value", "a comma between them", mend=",")
        elif after_value and not self.text.startswith(bracket, comma) and comma < len(self.text):
            raise self._broken(comma, f"{self._here()} after a value", f'"," or "{bracket}"')
        if self.position >= len(self.text):
            opened = self.text[start]
            raise self._broken(start, f'"{opened}" that is never closed', f'"{bracket}" before the end of the text')
        if self.text.startswith(bracket, self.position):
            self._take()
            return True
        return False

    def _string(self) -> Node:
        start = self.position
        if self.text[start] == "'":
            return self._single_quoted(start)
        match = _STRING.match(self.text, start)
        if match is None:
            match = _LOOSE_STRING.match(self.text, start)
            if match is None:
                raise self._broken(start, "a string that is never closed", 'a closing double quote (")')
            self._slip(start, match.end(), "a control character inside a string", r"an escape such as \n or \t")
        return Node(kind="string", span=Span(start, self._to(match.end())), value=self._decoded(match[0], start))

    def _decoded(self, quoted: str, start: int) -> str:
        if "\\" not in quoted:
            return quoted[1:-1]
        try:
            value = json.loads(quoted, strict=False)
        except json.JSONDecodeError as e:
            at = start + min(e.pos, len(quoted) - 1)
            self._slip(at, at + 1, "an escape that JSON does not have", r"one of \" \\ \/ \b \f \n \r \t \uXXXX")
            return quoted[1:-1]
        return str(value)

    def _single_quoted(self, start: int) -> Node:
        match = _SINGLE.match(self.text, start)
        if match is None:
            raise self._broken(start, "a single quote", "a string in double quotes")
        inner = match[0][1:-1]
        mend = None if '"' in inner or "\\" in inner else f'"{inner}"'
        self._slip(start, match.end(), f"{match[0]} in single quotes", "double quotes", mend=mend)
        return Node(kind="string", span=Span(start, self._to(match.end())), value=inner)

    def _number(self, match: re.Match[str]) -> Node:
        span = Span(match.start(), self._to(match.end()))
        if len(match[0]) > _MAX_DIGITS:
            raise self._broken(span.start, f"a number of {len(match[0])} digits", "a number of ordinary size")
        whole = match[1] is None and match[2] is None
        return Node(kind="number", span=span, value=int(match[0]) if whole else float(match[0]))

    def _constant(self) -> Node:
        start = self.position
        match = _WORD.match(self.text, start)
        if match is None:
            raise self._broken(start, self._here(), "a value")
        word = match[0]
        near = _NEAR_CONSTANTS.get(word)
        if word not in _CONSTANTS and near is None:
            raise self._broken(start, self._here(), "a value: a string in double quotes, a number, true, false or null")
        if near is not None:
            self._slip(start, match.end(), f'"{word}"', near, mend=near)
        value = _CONSTANTS[near or word]
        kind: Kind = "null" if value is None else "boolean"
        return Node(kind=kind, span=Span(start, self._to(match.end())), value=value)

    def _skip(self) -> None:
        """Over white space and, with a slip, over comments."""
        while True:
            space = _SPACE.match(self.text, self.position)
            self.position = space.end() if space else self.position
            comment = _COMMENT.match(self.text, self.position)
            if comment is None:
                return
            self._slip(comment.start(), comment.end(), "a comment", "no comments: JSON has none")
            self.position = comment.end()

    def _take(self) -> int:
        self.position += 1
        return self.position - 1

    def _to(self, position: int) -> int:
        self.position = position
        return position

    def _here(self) -> str:
        if self.position >= len(self.text):
            return "the end of the text"
        word = _WORD.match(self.text, self.position)
        shown = word[0][:40] if word else self.text[self.position]
        return "a double quote" if shown == '"' else f'"{shown}"' if shown.isprintable() else ascii(shown)

    def _slip(self, start: int, end: int, found: str, right: str, mend: str | None = None) -> None:
        self.slips.append(Slip(Span(start, end), found, right, mend))
        if len(self.slips) == _MAX_SLIPS:
            self.slips.append(
                Slip(Span(start, start), f"{_MAX_SLIPS} mistakes up to here", "JSON; the rest is not read")
            )
            raise _BrokenOff

    def _broken(self, start: int, found: str, right: str) -> _BrokenOff:
        self._slip(start, min(start + 1, len(self.text)), found, right)
        return _BrokenOff()
