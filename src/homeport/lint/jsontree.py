"""Correct JSON as located nodes, at the speed of its tokens. No I/O.

A strict decoder says first whether the text is JSON (RFC 8259) at all; what it let pass needs no grammar, only places.
Anything else, and what is too deep or too large to be meant, is None here: jsontext names what is wrong with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

from homeport.lint.findings import Span
from homeport.lint.nodes import MAX_DEPTH, Member, Node

_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\]]|[^\s,:{}\[\]"]+')
_CONSTANTS = {"true": True, "false": False}
_MAX_DIGITS = 18  # of a whole number: beyond that neither YAML's nor Go's are


def read(text: str, place: Callable[[int, int], Span] = Span, *, style: str = "") -> Node | None:
    """The tree, or None where the text is not JSON. `place` says where a stretch of it stands, `style` its strings'."""
    try:
        msgspec.json.decode(text)
    except (ValueError, RecursionError):  # of ValueError: DecodeError, and a lone surrogate that UTF-8 has no form for
        return None
    opened: list[tuple[int, list[Node]]] = []
    children: list[Node] = []
    for token in _TOKEN.finditer(text):
        start, end = token.span()
        first = text[start]
        if first == '"':
            written = text[start + 1 : end - 1]
            value = msgspec.json.decode(token[0], type=str) if "\\" in written else written
            children.append(Node(kind="string", span=place(start, end), value=value, style=style))
        elif first in "{[":
            if len(opened) > MAX_DEPTH:
                return None
            opened.append((start, children))
            children = []
        elif first in "}]":
            begun, outer = opened.pop()
            outer.append(_closed(first, place(begun, end), children))
            children = outer
        elif (scalar := _scalar(token[0], place(start, end))) is not None:
            children.append(scalar)
        else:
            return None
    return children[0]


def _closed(bracket: str, span: Span, children: list[Node]) -> Node:
    if bracket == "]":
        return Node(kind="array", span=span, items=tuple(children))
    return Node(kind="object", span=span, members=tuple(map(Member, children[::2], children[1::2])))


def _scalar(word: str, span: Span) -> Node | None:
    """A number, true, false or null; None for a number of more digits than anyone means."""
    if word in _CONSTANTS:
        return Node(kind="boolean", span=span, value=_CONSTANTS[word])
    if word == "null":
        return Node(kind="null", span=span)
    if any(c in word for c in ".eE"):
        return Node(kind="number", span=span, value=float(word))
    return Node(kind="number", span=span, value=int(word)) if len(word) <= _MAX_DIGITS else None
