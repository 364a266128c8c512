"""`homeport lint`: reads files, standard input or a cluster; with --fix writes files back, each in one step."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from homeport.cli import output, reading
from homeport.cli.sources import Kubeconfig
from homeport.model.errors import CniError, IOFailure

if TYPE_CHECKING:
    from homeport.lint.checking import Report
    from homeport.lint.findings import Rule

_UNUSABLE = 2
_UNKNOWN_NETWORK = "unknown-network"


class Style(Enum):
    """The values of `-o`."""

    TEXT = "text"
    JSON = "json"
    SARIF = "sarif"
    GITHUB = "github"


class SchemaName(Enum):
    """The values of `--schema`."""

    CONFIG = "config"
    NAD = "nad"


class _Looked(msgspec.Struct, frozen=True, kw_only=True):
    """What was read and found; `problems` could not be looked at, `beside` was read only for the sake of the rest."""

    texts: Mapping[str, str]
    report: Report
    problems: Sequence[CniError] = ()
    fixed: int = 0
    beside: frozenset[str] = frozenset()


def _complete_rule(incomplete: str) -> list[str]:
    from homeport.lint.rules import ALL

    return [check.rule.id for check in ALL if check.rule.id.startswith(incomplete)]


def lint(
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE", help='Manifests, directories of them, or "-" for standard input.'),
    ] = None,
    cluster: Annotated[bool, typer.Option("--cluster", help="Look at what a cluster has, not at files.")] = False,
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", metavar="NAME", help="Of the cluster, only this [default: all].")
    ] = "",
    kubeconfig: Kubeconfig = None,
    fix: Annotated[bool, typer.Option("--fix", help="Fix what can be fixed safely, in the files.")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Show what --fix would change, and change nothing.")] = False,
    ignore: Annotated[
        list[str] | None,
        typer.Option(metavar="RULE", help="Say nothing of this rule. May be repeated.", autocompletion=_complete_rule),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 for warnings as well.")] = False,
    rules: Annotated[bool, typer.Option("--rules", help="List the rules.")] = False,
    explain: Annotated[
        str, typer.Option(metavar="RULE", help="Explain one rule.", show_default=False, autocompletion=_complete_rule)
    ] = "",
    schema: Annotated[
        SchemaName | None, typer.Option("--schema", help="Print the JSON schema of a configuration or a NAD.")
    ] = None,
    style: Annotated[Style, typer.Option("-o", "--output", help="How to print.")] = Style.TEXT,
) -> None:
    """Find mistakes in network definitions and the workloads that use them.

    Exits with 0 when all is well, 1 for errors found, 2 when something could not be read.
    """
    if rules:
        _print_rules(style)
    elif explain:
        _print_explanation(explain)
    elif schema is not None:
        _print_schema(schema)
    else:
        given = tuple(files or ())
        _require_sense(given, cluster=cluster, namespace=namespace, kubeconfig=kubeconfig, fix=fix, diff=diff)
        ignored = tuple(_known(rule_id, "--ignore").id for rule_id in ignore or ())
        looked = (
            _look_at_cluster(kubeconfig, namespace, ignored) if cluster else _look_at_files(given, ignored, fix=fix)
        )
        _print_report(looked, ignored, diff=diff, style=style, noun="object" if cluster else "file")
        _exit(looked, strict=strict)


def _require_sense(
    files: Sequence[str], *, cluster: bool, namespace: str, kubeconfig: Path | None, fix: bool, diff: bool
) -> None:
    if cluster and files:
        raise typer.BadParameter("expected no files with it", param_hint="--cluster")
    if cluster and fix:
        raise typer.BadParameter(
            "expected files: what a cluster has is put right where it is applied from; --diff shows the change",
            param_hint="--fix",
        )
    if not cluster and (namespace or kubeconfig is not None):
        raise typer.BadParameter("expected with --cluster", param_hint="--namespace" if namespace else "--kubeconfig")
    if not cluster and not files:
        raise typer.BadParameter(
            'expected files, directories, or "-" for standard input, or --cluster', param_hint="FILE..."
        )
    if fix and (diff or reading.STDIN in files):
        other = "--diff" if diff else "standard input, for which there is --diff"
        raise typer.BadParameter(f"expected without {other}", param_hint="--fix")


def _look_at_files(files: Iterable[str], ignored: Sequence[str], *, fix: bool) -> _Looked:
    from homeport.lint import checking, fixing

    texts, unread = reading.read_all(files)
    report = checking.check(texts, ignored=ignored)
    if not fix or not any(f.fixable for f in report.findings):
        return _Looked(texts=texts, report=report, problems=unread)
    fixed = fixing.fix(texts, ignored=ignored)
    unread += _write_all(texts, fixed.texts)
    report = checking.check(fixed.texts, ignored=ignored)
    return _Looked(texts=fixed.texts, report=report, problems=unread, fixed=fixed.count)


def _look_at_cluster(kubeconfig: Path | None, namespace: str, ignored: Sequence[str]) -> _Looked:
    from homeport.cli import lint_cluster
    from homeport.lint import checking

    with output.progress("looking at the cluster"):
        try:
            live = lint_cluster.read(kubeconfig, namespace)
        except CniError as e:
            live = lint_cluster.Live(texts={}, problems=[e], all_networks=False)
        report = checking.check(live.texts, ignored=ignored)
    beside = frozenset(file for file in live.texts if not lint_cluster.is_of(file, namespace))
    certain = tuple(
        f for f in report.findings if f.file not in beside and (live.all_networks or f.rule != _UNKNOWN_NETWORK)
    )
    report = msgspec.structs.replace(report, findings=certain)
    return _Looked(texts=live.texts, report=report, problems=live.problems, beside=beside)


def _print_report(looked: _Looked, ignored: Sequence[str], *, diff: bool, style: Style, noun: str) -> None:
    from homeport.lint import fixing, reporting

    problems = [problem.msg for problem in looked.problems]
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    if diff:
        before = {file: text for file, text in looked.texts.items() if file not in looked.beside}
        _print(reporting.diff(before, fixing.fix(looked.texts, ignored=ignored).texts, colour=colour))
    else:
        _print_findings(looked, problems, style, colour=colour)
    if style is Style.TEXT and (looked.texts or not problems):
        done = f"fixed {looked.fixed}; " if looked.fixed else ""
        typer.echo(done + reporting.summary(looked.report, len(looked.texts), noun), err=diff)
    for problem in looked.problems:
        typer.echo(f"homeport: {problem.msg}", err=True)
        if problem.details:
            typer.echo(f"  {problem.details}", err=True)


def _print_findings(looked: _Looked, problems: Sequence[str], style: Style, *, colour: bool) -> None:
    import homeport
    from homeport.lint import github, reporting, sarif
    from homeport.lint.rules import ALL

    findings = looked.report.findings
    match style:
        case Style.JSON:
            typer.echo(output.json([reporting.plain(f) for f in findings]))
        case Style.SARIF:
            listed = [check.rule for check in ALL]
            log = sarif.log(findings, looked.texts, rules=listed, problems=problems, version=homeport.__version__)
            typer.echo(output.json(log))
        case Style.GITHUB:
            _print(github.text(findings) + "".join(map(github.problem, problems)))
        case Style.TEXT:
            _print(reporting.text(findings, looked.texts, colour=colour))


def _exit(looked: _Looked, *, strict: bool) -> None:
    from homeport.lint import reporting

    if looked.problems:
        raise typer.Exit(_UNUSABLE)
    if reporting.is_failure(looked.report.findings, strict=strict):
        raise typer.Exit(1)


def _print_rules(style: Style) -> None:
    from homeport.lint.rules import ALL

    listed = [check.rule for check in ALL]
    if style is Style.JSON:
        typer.echo(output.json(listed))
    elif style is not Style.TEXT:
        raise typer.BadParameter("expected text or json with --rules", param_hint="--output")
    else:
        rows = [(r.id, r.severity.value, "yes" if r.fix else "no", r.summary) for r in listed]
        typer.echo(output.table(("rule", "severity", "fix", "summary"), rows))


def _print_explanation(rule_id: str) -> None:
    from homeport.lint import reporting

    typer.echo(reporting.explanation(_known(rule_id, "--explain")))


def _known(rule_id: str, option: str) -> Rule:
    from homeport.lint import catalogue
    from homeport.lint.rules import ALL, by_id

    rule = by_id(rule_id)
    if rule is None:
        near = catalogue.nearest(rule_id, tuple(check.rule.id for check in ALL))
        hint = f'did you mean "{near}"?' if near else "--rules lists them"
        raise typer.BadParameter(f'no rule "{rule_id}"; {hint}', param_hint=option)
    return rule


def _print_schema(name: SchemaName) -> None:
    from homeport.lint import schema

    typer.echo(output.json(schema.SCHEMAS[name.value]()))


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
