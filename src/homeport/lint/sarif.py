"""A report as SARIF 2.1.0 (OASIS), which code scanning services read. No I/O."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from homeport.lint.checking import Lines, lines_of
from homeport.lint.findings import Edit, Finding, Rule, Severity

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"

_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}
_ROOT = "%SRCROOT%"
_FINGERPRINT = "homeportFinding/v1"


def log(
    findings: Sequence[Finding],
    texts: Mapping[str, str],
    *,
    rules: Sequence[Rule],
    problems: Sequence[str] = (),
    version: str,
) -> dict[str, Any]:
    """The whole log: one run. `problems` are what could not be looked at, `rules` all there are."""
    numbers = {rule.id: n for n, rule in enumerate(rules)}
    lines = {file: lines_of(texts[file]) for file in {f.file for f in findings}}
    alike: Counter[str] = Counter()
    results = [_result(f, numbers, texts[f.file], lines[f.file], alike) for f in findings]
    driver = {
        "name": "homeport",
        "version": version,
        "rules": [_rule(rule) for rule in rules],
    }
    told = [{"level": "error", "message": {"text": problem}} for problem in problems]
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "invocations": [{"executionSuccessful": not problems, "toolExecutionNotifications": told}],
        "results": results,
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(rule: Rule) -> dict[str, Any]:
    fix = f"`--fix` {rule.fix}." if rule.fix else "`--fix` leaves it to you."
    whole = "\n\n".join(part for part in (rule.summary, rule.explanation) if part)
    return {
        "id": rule.id,
        "shortDescription": {"text": rule.summary},
        "fullDescription": {"text": whole},
        "help": {"text": f"{whole}\n\n{fix.replace('`', '')}", "markdown": f"{whole}\n\n{fix}"},
        "defaultConfiguration": {"level": _LEVELS[rule.severity]},
        "properties": {"tags": ["kubernetes", "networking", "cni"], "precision": "high"},
    }


def _result(
    finding: Finding, numbers: Mapping[str, int], text: str, lines: Lines, alike: Counter[str]
) -> dict[str, Any]:
    fingerprint = _fingerprint(finding, text, lines)
    alike[fingerprint] += 1
    made = f" (made from {finding.origin})" if finding.origin else ""
    region = {
        "startLine": finding.line,
        "startColumn": finding.column,
        "endLine": finding.end_line,
        "endColumn": finding.end_column,
    }
    result: dict[str, Any] = {
        "ruleId": finding.rule,
        "ruleIndex": numbers[finding.rule],
        "level": _LEVELS[finding.severity],
        "message": {"text": f"{finding.found}; {finding.right}{made}"},
        "locations": [{"physicalLocation": {"artifactLocation": _artifact(finding.file), "region": region}}],
        "partialFingerprints": {_FINGERPRINT: f"{fingerprint}:{alike[fingerprint]}"},
    }
    if finding.edits:
        result["fixes"] = [_fix(finding, lines)]
    return result


def _fix(finding: Finding, lines: Lines) -> dict[str, Any]:
    replacements = [_replacement(edit, lines) for edit in sorted(finding.edits)]
    change = {"artifactLocation": _artifact(finding.file), "replacements": replacements}
    return {"description": {"text": finding.right}, "artifactChanges": [change]}


def _replacement(edit: Edit, lines: Lines) -> dict[str, Any]:
    (line, column), (end_line, end_column) = lines.place(edit.start), lines.place(edit.end)
    region = {"startLine": line, "startColumn": column, "endLine": end_line, "endColumn": end_column}
    return {"deletedRegion": region, "insertedContent": {"text": edit.text}}


def _artifact(file: str) -> dict[str, str]:
    """A relative path is one below the root of the sources."""
    if file.startswith("/"):
        return {"uri": f"file://{quote(file)}"}
    return {"uri": quote(file.removeprefix("./")), "uriBaseId": _ROOT}


def _fingerprint(finding: Finding, text: str, lines: Lines) -> str:
    """The same for the same mistake, wherever in its file it has moved to."""
    start, ends = lines.starts[finding.line - 1], lines.starts[finding.line : finding.line + 1]
    written = text[start : ends[0] if ends else len(text)].strip()
    said = "\0".join((finding.rule, finding.file, written, finding.found))
    return hashlib.sha256(said.encode()).hexdigest()[:32]
