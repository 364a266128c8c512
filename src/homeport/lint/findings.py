"""What lint says: rules, findings, and the edits that mend them. No I/O.

Offsets count characters of a file's whole text, from 0; an end is exclusive. Lines and columns count from 1.
"""

from __future__ import annotations

from enum import Enum

import msgspec


class Severity(Enum):
    """`ERROR` does not work, `WARNING` works otherwise than it reads, `INFO` is worth knowing."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Span(msgspec.Struct, frozen=True, order=True, gc=False):
    """A stretch of a file's text."""

    start: int
    end: int


class Edit(msgspec.Struct, frozen=True, order=True):
    """Replace `start`..`end` by `text`; an empty stretch inserts."""

    start: int
    end: int
    text: str


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of mistake. `fix` says what `--fix` does about it, and is empty where it does nothing."""

    id: str
    severity: Severity
    summary: str
    explanation: str
    fix: str = ""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A rule's word about one place: what stands there, what is right. `edits` are applied together or not at all."""

    file: str
    span: Span
    found: str
    right: str
    edits: tuple[Edit, ...] = ()


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """A `Found` with its rule and its place as people count. The end is exclusive.

    `origin` is the file that the text was made of, where Helm or Kustomize says so.
    """

    file: str
    line: int
    column: int
    end_line: int
    end_column: int
    rule: str
    severity: Severity
    found: str
    right: str
    edits: tuple[Edit, ...] = ()
    origin: str = ""

    @property
    def fixable(self) -> bool:
        return bool(self.edits)
