"""YAML as located nodes, one document at a time. No I/O.

Reads ruamel.yaml's events and composes them without recursion, so that neither depth nor aliases (one node, however
often it is named) can exhaust anything. A document that is not YAML does not hide the others of its file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.reader import ReaderError

from homeport.lint.findings import Span
from homeport.lint.nodes import MAX_DEPTH, Member, Node

MAX_DOCUMENT = 3 * 1024 * 1024  # characters; what an API server takes in one request
_MARKER = re.compile(r"^---(?=[ \t\r\n]|$)", re.MULTILINE)
_CONTENT = re.compile(r"^[ \t]*[^\s#%]|^[ \t]+%", re.MULTILINE)
_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")
_MERGE = "<<"
_MAX_DOCUMENTS = 10_000  # of one file
_MAX_MERGED = 100_000  # members brought in by merge keys, over a document


class Trouble(msgspec.Struct, frozen=True):
    """Why a document, or a key of it, cannot be taken."""

    span: Span
    found: str
    right: str


def documents(text: str) -> Iterator[Node | Trouble]:
    """The root of every document that has content, in order; a `Trouble` in place of one that is not YAML."""
    starts = [0, *(m.start() for m in _MARKER.finditer(text))]
    if len(starts) > _MAX_DOCUMENTS:
        yield Trouble(Span(0, 0), f"{len(starts):,} documents", f"at most {_MAX_DOCUMENTS:,} in a file; split it")
        return
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        piece = text[start:end]
        if not _CONTENT.search(piece.removeprefix("---")):
            continue
        if len(piece) > MAX_DOCUMENT:
            size = f"a document of {len(piece):,} characters"
            yield Trouble(Span(start, start + 3), size, f"at most {MAX_DOCUMENT:,}: no API server takes more")
            continue
        try:
            yield from _Composer(start).compose(piece)
        except ReaderError as e:
            at = start + int(e.position)
            yield Trouble(Span(at, at + 1), f"character {chr(_code(e.character))!a}", "text that YAML allows")
        except MarkedYAMLError as e:
            mark = e.problem_mark or e.context_mark
            at = start + min(mark.index if mark else 0, max(len(piece) - 1, 0))
            yield Trouble(Span(at, at + 1), _problem(e), _hint(piece))
        except (YAMLError, ValueError, IndexError, AttributeError) as e:
            # The scanner lets a few of Python's own errors out for odd escapes and tags.
            yield Trouble(Span(start, start + 1), f"text that is not YAML ({e})", _hint(piece))
        except _Refused as e:
            yield e.trouble


def duplicates(node: Node) -> Iterator[Member]:
    """Members of one object whose key comes again later: they have no effect."""
    last = {m.name: m for m in node.members if m.key.kind == "string"}
    yield from (m for m in node.members if m.key.kind == "string" and last[m.name] is not m)


class _Refused(Exception):
    def __init__(self, span: Span, found: str, right: str) -> None:
        super().__init__(found)
        self.trouble = Trouble(span, found, right)


class _Open(msgspec.Struct):
    """A mapping or sequence whose end has not come."""

    start: int
    anchor: str | None
    is_mapping: bool
    children: list[Node]


class _Composer:
    def __init__(self, offset: int) -> None:
        self.offset = offset
        self.anchors: dict[str, Node | None] = {}
        self.open: list[_Open] = []
        self.roots: list[Node] = []
        self.merged = 0

    def compose(self, piece: str) -> list[Node]:
        parser: Any = YAML(typ="safe", pure=True)
        for event in parser.parse(piece):
            match event:
                case DocumentStartEvent():
                    self.anchors.clear()
                case ScalarEvent():
                    self._close(self._scalar(event), event.anchor)
                case AliasEvent():
                    self._close(self._alias(event), None)
                case MappingStartEvent() | SequenceStartEvent():
                    self._begin(event)
                case MappingEndEvent() | SequenceEndEvent():
                    self._end(event)
        return self.roots

    def _span(self, event: Any) -> Span:
        return Span(self.offset + event.start_mark.index, self.offset + event.end_mark.index)

    def _begin(self, event: Any) -> None:
        if len(self.open) >= MAX_DEPTH:
            raise _Refused(self._span(event), "values nested too deeply", f"at most {MAX_DEPTH} levels")
        if event.anchor:
            self.anchors[event.anchor] = None
        self.open.append(_Open(self._span(event).start, event.anchor, isinstance(event, MappingStartEvent), []))

    def _end(self, event: Any) -> None:
        frame = self.open.pop()
        span = Span(frame.start, self._span(event).end)
        if frame.is_mapping:
            keys, values = frame.children[::2], frame.children[1::2]
            members = _merged([Member(k, v) for k, v in zip(keys, values, strict=True)])
            self.merged += max(0, len(members) - len(keys))
            if self.merged > _MAX_MERGED:
                raise _Refused(span, "merge keys that repeat too much", f"at most {_MAX_MERGED:,} merged members")
            self._close(Node(kind="object", span=span, members=members), frame.anchor)
        else:
            self._close(Node(kind="array", span=span, items=tuple(frame.children)), frame.anchor)

    def _close(self, node: Node, anchor: str | None) -> None:
        if anchor:
            self.anchors[anchor] = node
        (self.open[-1].children if self.open else self.roots).append(node)

    def _alias(self, event: Any) -> Node:
        node = self.anchors.get(event.anchor)
        if node is None:
            around = event.anchor in self.anchors
            raise _Refused(
                self._span(event),
                f'alias "*{event.anchor}" ' + ("inside its own anchor" if around else "without an anchor"),
                f'"&{event.anchor}" on a value that ended before',
            )
        return node

    def _scalar(self, event: Any) -> Node:
        span, style, text = self._span(event), event.style or "", str(event.value)
        if not style and event.implicit[0]:
            if text in ("", "~", "null", "Null", "NULL"):
                return Node(kind="null", span=span)
            if text in ("true", "True", "TRUE", "false", "False", "FALSE"):
                return Node(kind="boolean", span=span, value=text.lower() == "true")
            if _INTEGER.fullmatch(text):
                return Node(kind="number", span=span, value=int(text))
        return Node(kind="string", span=span, value=text, style=style)


def _merged(members: list[Member]) -> tuple[Member, ...]:
    """Members with `<<` resolved: what is written here goes before what is merged in."""
    if not any(m.key.value == _MERGE and not m.key.style for m in members):
        return tuple(members)
    own = [m for m in members if m.key.value != _MERGE]
    names = {m.key.value for m in own}
    for merge in (m.value for m in members if m.key.value == _MERGE):
        for source in merge.items if merge.kind == "array" else (merge,):
            fresh = [m for m in source.members if m.key.value not in names]
            names.update(m.key.value for m in fresh)
            own.extend(fresh)
    return tuple(own)


def _problem(error: MarkedYAMLError) -> str:
    parts = [str(part) for part in (error.problem, error.context) if part]
    return "text that is not YAML: " + ", ".join(parts)


def _hint(piece: str) -> str:
    if "{{" in piece:
        return "YAML; a template must be rendered first (helm template ... | homeport lint -)"
    return "YAML"


def _code(character: Any) -> int:
    return ord(character) if isinstance(character, str) else int(character)
