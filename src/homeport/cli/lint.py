"""`homeport lint`: reads files, directories and standard input; with --fix writes files back, each in one step."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from homeport.cli import output, reading
from homeport.model.errors import CniError, IOFailure

_UNUSABLE = 2


class Style(Enum):
    """The values of `-o`."""

    TEXT = "text"
    JSON = "json"


def lint(
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE", help='Manifests, directories of them, or "-" for standard input.'),
    ] = None,
    fix: Annotated[bool, typer.Option("--fix", help="Fix what can be fixed safely, in the files.")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Show what --fix would change, and change nothing.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 for warnings as well.")] = False,
    rules: Annotated[bool, typer.Option("--rules", help="List the rules.")] = False,
    explain: Annotated[str, typer.Option(metavar="RULE", help="Explain one rule.", show_default=False)] = "",
    style: Annotated[Style, typer.Option("-o", "--output", help="How to print.")] = Style.TEXT,
) -> None:
    """Find mistakes in network definitions and the workloads that use them.

    Exits with 0 when all is well, 1 for errors found, 2 when a file could not be read.
    """
    if rules:
        _print_rules(style)
    elif explain:
        _print_explanation(explain)
    elif not files:
        raise typer.BadParameter('expected files, directories, or "-" for standard input', param_hint="FILE...")
    elif fix and (diff or reading.STDIN in files):
        other = "--diff" if diff else "standard input, for which there is --diff"
        raise typer.BadParameter(f"expected without {other}", param_hint="--fix")
    else:
        _run(files, fix=fix, diff=diff, strict=strict, style=style)


def _run(files: Iterable[str], *, fix: bool, diff: bool, strict: bool, style: Style) -> None:
    from homeport.lint import checking, fixing, reporting

    texts, unread = reading.read_all(files)
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    report = checking.check(texts)
    count = 0
    if fix and any(f.fixable for f in report.findings):
        fixed = fixing.fix(texts)
        unread += _write_all(texts, fixed.texts)
        texts, count = dict(fixed.texts), fixed.count
        report = checking.check(texts)
    if diff:
        _print(reporting.diff(texts, fixing.fix(texts).texts, colour=colour))
    elif style is Style.JSON:
        typer.echo(output.json([reporting.plain(f) for f in report.findings]))
    else:
        _print(reporting.text(report.findings, texts, colour=colour))
    if style is Style.TEXT:
        done = f"fixed {count}; " if count else ""
        typer.echo(done + reporting.summary(report, len(texts)), err=diff)
    for problem in unread:
        typer.echo(f"homeport: {problem}", err=True)
    if unread:
        raise typer.Exit(_UNUSABLE)
    if reporting.is_failure(report.findings, strict=strict):
        raise typer.Exit(1)


def _print_rules(style: Style) -> None:
    from homeport.lint.rules import ALL

    listed = [check.rule for check in ALL]
    if style is Style.JSON:
        typer.echo(output.json(listed))
    else:
        rows = [(r.id, r.severity.value, "yes" if r.fix else "no", r.summary) for r in listed]
        typer.echo(output.table(("rule", "severity", "fix", "summary"), rows))


def _print_explanation(rule_id: str) -> None:
    from homeport.lint import catalogue, reporting
    from homeport.lint.rules import ALL, by_id

    rule = by_id(rule_id)
    if rule is None:
        near = catalogue.nearest(rule_id, tuple(check.rule.id for check in ALL))
        hint = f'did you mean "{near}"?' if near else "--rules lists them"
        raise typer.BadParameter(f'no rule "{rule_id}"; {hint}', param_hint="--explain")
    typer.echo(reporting.explanation(rule))


def _print(text: str) -> None:
    """Text that may hold any character, also where the terminal's encoding lacks some."""
    encoding = sys.stdout.encoding or "utf-8"
    typer.echo(text.encode(encoding, "backslashreplace").decode(encoding), nl=False)


def _write_all(before: Mapping[str, str], after: Mapping[str, str]) -> list[CniError]:
    problems: list[CniError] = []
    for name, text in after.items():
        if text != before[name]:
            try:
                _replace(Path(name), text)
            except OSError as e:
                problems.append(IOFailure(f'write "{name}": {e.strerror}'))
    return problems


def _replace(path: Path, text: str) -> None:
    """Old or new, never half: written beside the file and renamed over it. Mode kept; a link's target is the file."""
    target = path.resolve()
    descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode())
            os.fchmod(file.fileno(), target.stat().st_mode & 0o7777)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
