"""Where each character of a YAML scalar's value stands in the file. No I/O.

YAML 1.2.2 §7.3 and §8.1: quoting, folding and indentation change only white space, `''` and backslash escapes.
Every other character appears in the file in the order of the value, so that walking both side by side places it
exactly. White space that folding made is placed near where it came from.
"""

from __future__ import annotations

import re

import msgspec

from homeport.lint.findings import Span

_BLANK = " \t\r\n\x85\u2028\u2029\ufeff"
_ESCAPE_LENGTHS = {"x": 4, "u": 6, "U": 10}
_INDENTS = "|>"
_JSON_ESCAPE = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\.")


class ScalarText(msgspec.Struct, frozen=True, kw_only=True):
    """`text` is the value; its character i is written at `starts[i]`..`ends[i]` of the file."""

    text: str
    style: str
    starts: list[int]
    ends: list[int]
    end: int

    def span(self, span: Span) -> Span:
        """Where a stretch of the value stands in the file."""
        start = self.starts[span.start] if span.start < len(self.starts) else self.end
        if span.end <= span.start:
            return Span(start, start)
        return Span(start, max(start, self.ends[min(span.end, len(self.ends)) - 1]))

    def encode(self, text: str) -> str:
        """Printable `text` without line breaks, as it must be written inside this scalar."""
        if self.style == "'":
            return text.replace("'", "''")
        if self.style == '"':
            return text.replace("\\", "\\\\").replace('"', '\\"')
        return text


def locate(source: str, span: Span, value: str, style: str) -> ScalarText:
    """Places `value`, which YAML read from `source[span]`; the span may begin with an anchor or a tag."""
    position = _content(source, span, style)
    starts: list[int] = []
    ends: list[int] = []
    for character in value:
        if character in _BLANK:
            position, stop = _blank(source, position, span.end, character)
        else:
            position, stop = _visible(source, position, span.end, character, style)
        starts.append(position)
        ends.append(stop)
        position = stop
    return ScalarText(text=value, style=style, starts=starts, ends=ends, end=span.end)


def locate_json(source: str, span: Span, value: str) -> ScalarText:
    """As `locate`, of a string in correct JSON, where nothing is folded: runs between escapes stand as they are."""
    starts: list[int] = []
    position, end = span.start + 1, span.end - 1
    for escape in _JSON_ESCAPE.finditer(source, position, end):
        starts.extend(range(position, escape.start() + 1))
        position = escape.end()
    starts.extend(range(position, end))
    return ScalarText(text=value, style='"', starts=starts, ends=[*starts[1:], end][: len(starts)], end=span.end)


def whole(text: str) -> ScalarText:
    """A file that is JSON itself: every character stands for itself."""
    return ScalarText(
        text=text, style="", starts=list(range(len(text))), ends=list(range(1, len(text) + 1)), end=len(text)
    )


def _content(source: str, span: Span, style: str) -> int:
    """The first offset that can belong to the value: after anchor and tag, the quote or the block's header line."""
    position = span.start
    while source[position : position + 1] in ("&", "!") and position < span.end:
        while position < span.end and source[position] not in _BLANK:
            position += 1
        while position < span.end and source[position] in _BLANK:
            position += 1
    if style in ("'", '"'):
        return position + 1
    if style and style in _INDENTS:
        line_end = source.find("\n", position, span.end)
        return span.end if line_end < 0 else line_end + 1
    return position


def _blank(source: str, position: int, end: int, character: str) -> tuple[int, int]:
    if position < end and source[position] == character:
        return position, position + 1
    if source.startswith("\\", position):
        stop = position + _escape_length(source, position)
        if not _is_visible_escape(source[position:stop]):
            return position, stop
    return position, position


def _visible(source: str, position: int, end: int, character: str, style: str) -> tuple[int, int]:
    while position < end:
        found = source[position]
        if style == '"' and found == "\\":
            length = _escape_length(source, position)
            if _is_visible_escape(source[position : position + length]):
                return position, position + length
            position += length
        elif style == "'" and found == "'":
            return position, position + 2
        elif found == character:
            return position, position + 1
        else:
            position += 1
    return end, end


def _escape_length(source: str, position: int) -> int:
    return _ESCAPE_LENGTHS.get(source[position + 1 : position + 2], 2)


def _is_visible_escape(escape: str) -> bool:
    """Whether an escape stands for something else than white space or a joined line."""
    if escape[1:2] in "xuU" and len(escape) > 2:
        return chr(int(escape[2:], 16)) not in _BLANK
    return escape[1:2] not in ("\n", "\r", " ", "\t", "t", "n", "r", "N", "L", "P")
