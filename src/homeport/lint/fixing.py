"""Edits applied: texts in, texts out. No I/O.

Only what a finding's edits touch changes; comments, quoting and layout elsewhere stay. Applying again changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from homeport.lint.checking import check
from homeport.lint.findings import Edit, Finding

_MAX_PASSES = 10
_UNREADABLE = ("yaml-syntax", "config-not-json", "config-shape")


class Fixed(msgspec.Struct, frozen=True, kw_only=True):
    """The texts after fixing, and how many findings that mended."""

    texts: Mapping[str, str]
    mended: int


def fix(texts: Mapping[str, str]) -> Fixed:
    """Applies every fix, pass after pass while one uncovers another. A pass that would make a file worse is dropped."""
    current, mended = dict(texts), 0
    refused: set[str] = set()
    for _ in range(_MAX_PASSES):
        findings = check(current).findings
        changed = False
        for file in {f.file: None for f in findings if f.edits and f.file not in refused}:
            own = [f for f in findings if f.file == file]
            chosen = _compatible(own)
            text = apply(current[file], {edit for f in chosen for edit in f.edits})
            if _unreadable(check({file: text}).findings) > _unreadable(own):
                refused.add(file)
                continue
            changed = changed or text != current[file]
            mended += len(chosen)
            current[file] = text
        if not changed:
            break
    return Fixed(texts=current, mended=mended)


def apply(text: str, edits: Iterable[Edit]) -> str:
    """`text` with edits that do not overlap."""
    for edit in sorted(edits, reverse=True):
        text = text[: edit.start] + edit.text + text[edit.end :]
    return text


def _compatible(findings: Iterable[Finding]) -> list[Finding]:
    """Findings whose edits can be applied together, each wholly, by place; clashes are left to the next pass."""
    chosen: list[Finding] = []
    edits: set[Edit] = set()
    for finding in findings:
        fresh = [edit for edit in finding.edits if edit not in edits]
        if finding.edits and not any(_clash(edit, other) for edit in fresh for other in edits):
            chosen.append(finding)
            edits.update(fresh)
    return chosen


def _clash(one: Edit, other: Edit) -> bool:
    """Whether two edits touch the same characters, or insert at the same place."""
    if one.start == other.start:
        return True
    return one.start < other.end and other.start < one.end


def _unreadable(findings: Iterable[Finding]) -> int:
    return sum(f.rule in _UNREADABLE for f in findings)
