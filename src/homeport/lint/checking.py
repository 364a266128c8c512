"""Texts in, findings out. No I/O."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Mapping
from itertools import accumulate

import msgspec

from homeport.lint import manifests, origins, rules
from homeport.lint.findings import Finding, Found, Rule
from homeport.lint.manifests import Manifests
from homeport.lint.silencing import Silence


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """`findings` in order of file (as given) and place; how many definitions were looked at."""

    findings: tuple[Finding, ...]
    networks: int
    workloads: int


class Lines(msgspec.Struct, frozen=True):
    """Offsets of a text's lines."""

    starts: tuple[int, ...]

    def place(self, offset: int) -> tuple[int, int]:
        """(line, column), both from 1; columns count characters."""
        line = bisect_right(self.starts, offset)
        return line, offset - self.starts[line - 1] + 1


def lines_of(text: str) -> Lines:
    """Lines end with a line feed; a carriage return before it belongs to the line."""
    return Lines((0, *accumulate(len(line) + 1 for line in text.split("\n")[:-1])))


def check(texts: Mapping[str, str], *, ignored: Collection[str] = ()) -> Report:
    """What every rule but the `ignored` finds in texts keyed by file name, looked at together. Never raises."""
    read = manifests.read(texts)
    lines = {file: lines_of(text) for file, text in texts.items()}
    order = {file: n for n, file in enumerate(texts)}
    made_of = origins.Origins(texts, read.objects)
    findings = [
        _finding(said, rule, lines[said.file], made_of.of(said.file, said.span))
        for rule, said in found_in(read, ignored)
    ]
    findings.sort(key=lambda f: (order[f.file], f.line, f.column, f.rule, f.found))
    return Report(findings=tuple(findings), networks=len(read.networks), workloads=len(read.workloads))


def found_in(read: Manifests, ignored: Collection[str] = ()) -> tuple[tuple[Rule, Found], ...]:
    """What every rule but the `ignored` finds in what was read, in no order worth relying on. Never raises.

    Without what an object says is to be ignored of it.
    """
    silence = Silence(read.objects, ignored)
    # Two manifests may share a text through an alias; what is wrong with it is said once.
    found = {(s.file, s.span, one.rule.id, s.found): (one.rule, s) for one in rules.ALL for s in one.find(read)}
    return tuple(pair for pair in found.values() if not silence.covers(pair[0].id, pair[1]))


def _finding(said: Found, rule: Rule, lines: Lines, origin: str) -> Finding:
    line, column = lines.place(said.span.start)
    end_line, end_column = lines.place(max(said.span.start, said.span.end))
    return Finding(
        file=said.file,
        line=line,
        column=column,
        end_line=end_line,
        end_column=end_column,
        rule=rule.id,
        severity=rule.severity,
        found=said.found,
        right=said.right,
        edits=said.edits,
        origin=origin,
    )
