"""Edits applied: texts in, texts out. No I/O.

Only what a finding's edits touch changes; comments, quoting and layout elsewhere stay. Applying again changes nothing.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from homeport.lint.checking import check
from homeport.lint.findings import Edit, Finding

_MAX_PASSES = 10


class Fixed(msgspec.Struct, frozen=True, kw_only=True):
    """The texts after fixing, and how many findings that settled."""

    texts: Mapping[str, str]
    count: int


def fix(texts: Mapping[str, str], *, ignored: Collection[str] = ()) -> Fixed:
    """Applies every fix but those of `ignored` rules, pass after pass while one uncovers another."""
    current, count = dict(texts), 0
    for _ in range(_MAX_PASSES):
        findings = [f for f in check(current, ignored=ignored).findings if f.edits]
        if not findings:
            break
        for file in {f.file: None for f in findings}:
            chosen = _compatible(f for f in findings if f.file == file)
            current[file] = apply(current[file], {edit for finding in chosen for edit in finding.edits})
            count += len(chosen)
    return Fixed(texts=current, count=count)


def apply(text: str, edits: Iterable[Edit]) -> str:
    """`text` with edits that do not overlap."""
    parts: list[str] = []
    done = 0
    for edit in sorted(edits):
        parts += [text[done : edit.start], edit.text]
        done = edit.end
    return "".join((*parts, text[done:]))


def _compatible(findings: Iterable[Finding]) -> list[Finding]:
    """Findings whose edits can be applied together, each wholly, by place; clashes are left to the next pass."""
    chosen: list[Finding] = []
    taken: list[Edit] = []  # in order, none overlapping another
    for finding in findings:
        fresh = [edit for edit in finding.edits if not _is_among(edit, taken)]
        if finding.edits and not any(_clashes(edit, taken) for edit in fresh):
            chosen.append(finding)
            for edit in fresh:
                insort(taken, edit)
    return chosen


def _is_among(edit: Edit, taken: Sequence[Edit]) -> bool:
    place = bisect_left(taken, edit)
    return place < len(taken) and taken[place] == edit


def _clashes(edit: Edit, taken: Sequence[Edit]) -> bool:
    """Whether an edit touches the same characters as one already taken, or begins at the same place."""
    place = bisect_left(taken, edit)
    before = taken[place - 1] if place else None
    after = taken[place] if place < len(taken) else None
    if before is not None and (edit.start < before.end or edit.start == before.start):
        return True
    return after is not None and (after.start < edit.end or after.start == edit.start)
