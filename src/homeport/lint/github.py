"""Findings as GitHub's workflow commands, which it shows beside the lines of a pull request. No I/O.

docs.github.com, "Workflow commands for GitHub Actions". A command is one line; what would end it, or part its fields,
is escaped as the runner's own toolkit does.
"""

from __future__ import annotations

from collections.abc import Iterable

from homeport.lint.findings import Finding, Severity

_COMMANDS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "notice"}


def text(findings: Iterable[Finding]) -> str:
    """One command for each finding. Those of standard input name no file: there is no line to show them beside."""
    return "".join(f"{_command(finding)}\n" for finding in findings)


def problem(said: str) -> str:
    """What could not be looked at, as a command."""
    return f"::error title=homeport::{_message(said)}\n"


def _command(finding: Finding) -> str:
    fields = {"title": f"homeport {finding.rule}"}
    if not finding.file.startswith("<"):
        fields |= {"file": finding.file, "line": str(finding.line), "endLine": str(finding.end_line)}
        if finding.line == finding.end_line:  # of several lines, GitHub takes no columns
            fields |= {"col": str(finding.column), "endColumn": str(finding.end_column)}
    made = f" (made from {finding.origin})" if finding.origin else ""
    said = ",".join(f"{name}={_field(value)}" for name, value in fields.items())
    return f"::{_COMMANDS[finding.severity]} {said}::{_message(f'{finding.found}; {finding.right}{made}')}"


def _message(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _field(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")
