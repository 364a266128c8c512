"""Findings as text for a person and as plain values for a program. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import unified_diff
from typing import Any

from homeport.lint.checking import Report
from homeport.lint.findings import Finding, Rule, Severity

_SGR = {Severity.ERROR: "1;31", Severity.WARNING: "1;33", Severity.INFO: "1;36"}
_BOLD, _FRAME, _ADDED, _REMOVED = "1", "34", "32", "31"
_WIDTH = 120  # characters of a source line worth showing
_TAB = "    "


def line(finding: Finding, *, colour: bool = False) -> str:
    """`FILE:LINE:COLUMN: SEVERITY[RULE]: what was found; what is right`."""
    place = _printable(f"{finding.file}:{finding.line}:{finding.column}:")
    label = f"{finding.severity.value}[{finding.rule}]"
    said = _printable(f"{finding.found}; {finding.right}")
    if not colour:
        return f"{place} {label}: {said}"
    return f"{_styled(place, _BOLD)} {_styled(label, _SGR[finding.severity])}: {said}"


def excerpt(finding: Finding, lines: Sequence[str], *, colour: bool = False) -> str:
    """The source line with the place underlined, out of the file's lines. Long ones are cut around it."""
    source = lines[finding.line - 1].rstrip("\r")
    first = finding.column - 1
    last = finding.end_column - 1 if finding.end_line == finding.line else len(source)
    cut = max(0, first - _WIDTH // 2) if len(source) > _WIDTH else 0
    shown = source[cut : cut + _WIDTH]
    before = ("..." if cut else "") + _printable(shown[: first - cut])
    marked = _printable(shown[first - cut : last - cut])
    after = _printable(shown[last - cut if last > first else first - cut :]) if last - cut <= _WIDTH else ""
    after += "..." if cut + _WIDTH < len(source) else ""
    margin = " " * len(str(finding.line))
    underline = " " * len(before) + _mark("^" * max(1, len(marked)), finding, colour)
    bar = _styled("|", _FRAME) if colour else "|"
    number = _styled(str(finding.line), _FRAME) if colour else str(finding.line)
    made = f"\n{margin} = made from {_printable(finding.origin)}" if finding.origin else ""
    return f"{margin} {bar}\n{number} {bar} {before}{marked}{after}\n{margin} {bar} {underline}{made}"


def text(findings: Sequence[Finding], texts: Mapping[str, str], *, colour: bool = False) -> str:
    """Every finding with its excerpt, a blank line after each."""
    lines = {file: texts[file].split("\n") for file in {f.file for f in findings}}
    parts = (f"{line(f, colour=colour)}\n{excerpt(f, lines[f.file], colour=colour)}\n\n" for f in findings)
    return "".join(parts)


def summary(report: Report, files: int, noun: str = "file") -> str:
    """One line: how many of which severity, how many of them can be fixed, or that all is well. `noun` is a file's."""
    looked = ", ".join(
        (_counted(files, noun), _counted(report.networks, "network"), _counted(report.workloads, "workload"))
    )
    if not report.findings:
        return f"no problems in {looked}"
    by_severity = {s: sum(f.severity is s for f in report.findings) for s in Severity}
    names = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}
    counts = ", ".join(_counted(n, names[s]) for s, n in by_severity.items() if n)
    fixable = sum(f.fixable for f in report.findings)
    hint = f" ({fixable} fixable with --fix)" if fixable else ""
    return f"{counts} in {looked}{hint}"


def plain(finding: Finding) -> dict[str, Any]:
    """What `-o json` lists. Lines and columns count from 1, columns in characters; the end is exclusive.

    `origin` is there only where the text says what it was made of.
    """
    origin = {"origin": finding.origin} if finding.origin else {}
    return {
        "file": finding.file,
        "line": finding.line,
        "column": finding.column,
        "endLine": finding.end_line,
        "endColumn": finding.end_column,
        "rule": finding.rule,
        "severity": finding.severity.value,
        "found": finding.found,
        "right": finding.right,
        "fixable": finding.fixable,
        **origin,
    }


def explanation(rule: Rule) -> str:
    """A rule's whole page as text."""
    fix = rule.fix or "nothing; it takes a decision"
    return f"{rule.id} ({rule.severity.value})\n\n{rule.summary}\n\n{rule.explanation}\n\n--fix: {fix}".replace(
        "\n\n\n\n", "\n\n"
    )


def diff(before: Mapping[str, str], after: Mapping[str, str], *, colour: bool = False) -> str:
    """What fixing changes, as a unified diff that patch(1) takes."""
    out: list[str] = []
    for file, old in before.items():
        old_lines, new_lines = _kept(old), _kept(after[file])
        for row in unified_diff(old_lines, new_lines, f"a/{file.lstrip('/')}", f"b/{file.lstrip('/')}"):
            style = _ADDED if row.startswith("+") else _REMOVED if row.startswith("-") else ""
            ended = row if row.endswith("\n") else f"{row}\n\\ No newline at end of file\n"
            out.append(_styled(ended.rstrip("\n"), style) + "\n" if colour and style else ended)
    return "".join(out)


def is_failure(findings: Sequence[Finding], *, strict: bool) -> bool:
    """Whether CI should stop: for errors, and with `strict` for warnings."""
    fatal = (Severity.ERROR, Severity.WARNING) if strict else (Severity.ERROR,)
    return any(f.severity in fatal for f in findings)


def _kept(text: str) -> list[str]:
    """Lines with their ends; only a line feed ends one."""
    lines = [f"{row}\n" for row in text.split("\n")]
    lines[-1] = lines[-1].removesuffix("\n")
    return [row for row in lines if row]


def _mark(carets: str, finding: Finding, colour: bool) -> str:
    return _styled(carets, _SGR[finding.severity]) if colour else carets


def _printable(text: str) -> str:
    """Safe on a terminal: tabs as blanks, whatever else does not print as a dot."""
    return "".join(c if c.isprintable() else _TAB if c == "\t" else "·" for c in text)


def _styled(text: str, sgr: str) -> str:
    return f"\x1b[{sgr}m{text}\x1b[0m"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
