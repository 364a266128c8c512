"""Findings that somebody has looked at and does not want to hear of again. No I/O."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

import msgspec

from homeport.lint.findings import Found, Span
from homeport.lint.nodes import Node

ANNOTATION = "homeport.dev/lint-ignore"
"""On the object where the findings stand: ids of rules, apart by commas."""

_APART = re.compile(r"[\s,]+")


class _Silenced(msgspec.Struct, frozen=True):
    file: str
    span: Span
    rules: frozenset[str]


class Silence:
    """What `objects` (with their files) say of themselves, and `ignored` of everything."""

    def __init__(self, objects: Iterable[tuple[str, Node]], ignored: Collection[str] = ()) -> None:
        self._ignored = frozenset(ignored)
        self._silenced = [
            _Silenced(file, node.span, frozenset(_APART.split(said.strip())))
            for file, node in objects
            if (said := node.text("metadata", "annotations", ANNOTATION)) is not None
        ]

    def covers(self, rule: str, found: Found) -> bool:
        """Whether nothing is to be said of it."""
        if rule in self._ignored:
            return True
        return any(
            rule in one.rules and one.file == found.file and one.span.start <= found.span.start < one.span.end
            for one in self._silenced
        )
