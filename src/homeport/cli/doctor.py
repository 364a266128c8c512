"""`homeport doctor`: what is wrong on this node, in the cluster or in a lab. Changes nothing without --repair."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from homeport.cli import output, sources
from homeport.model.errors import CniError, InvalidEnvironment, KernelRefused

if TYPE_CHECKING:
    from homeport.doctor.findings import Diagnosis, Report

_DEFAULT_NAMESPACE = "kube-system"
_UNUSABLE = 2


class Style(Enum):
    """The values of `-o`."""

    TEXT = "text"
    JSON = "json"


def doctor(
    cluster: Annotated[bool, typer.Option("--cluster", help="Look at the cluster through its API server.")] = False,
    lab: sources.LabName = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The daemon's configuration on this node.")
    ] = None,
    kubeconfig: sources.Kubeconfig = None,
    namespace: Annotated[
        str, typer.Option("-n", "--namespace", help="With --cluster: where the controllers run.")
    ] = _DEFAULT_NAMESPACE,
    repair: Annotated[bool, typer.Option("--repair", help="Put right what is proven safe; asks each time.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --repair: do not ask.")] = False,
    checks: Annotated[bool, typer.Option("--checks", help="List what is looked for.")] = False,
    style: Annotated[Style, typer.Option("-o", "--output", help="How to print.")] = Style.TEXT,
) -> None:
    """Find what is wrong where Homeport runs, how sure that is, and what to do about it.

    Exits with 0 when no error was found, 1 for errors, 2 when something could not be looked at.
    """
    _require_one_place(cluster=cluster, lab=lab, config=config, kubeconfig=kubeconfig)
    if repair and (cluster or lab is not None):
        raise typer.BadParameter("expected on the node itself, without --cluster and --lab", param_hint="--repair")
    if yes and not repair:
        raise typer.BadParameter("expected with --repair", param_hint="--yes")
    if repair and not yes and (style is Style.JSON or not _is_asked_by_a_person()):
        raise typer.BadParameter("expected with --yes, as there is nobody to ask", param_hint="--repair")
    if checks:
        _print_checks(style)
        return
    examine = _examiner(cluster=cluster, lab=lab, config=config, kubeconfig=kubeconfig, namespace=namespace)
    try:
        report = examine()
    except CniError as e:  # nothing at all could be looked at, which is not what 1 says
        typer.echo(f"homeport: {e}", err=True)
        raise typer.Exit(_UNUSABLE) from e
    if repair and any(d.repair is not None for d in report.diagnoses):
        if style is Style.TEXT:
            _print(report)
        _repair(report, ask=not yes)
        report = examine()
    if style is Style.JSON:
        typer.echo(output.json(report))
    else:
        _print(report)
    if report.exit_code:
        raise typer.Exit(report.exit_code)


def _is_asked_by_a_person() -> bool:
    return sys.stdin.isatty()


def _require_one_place(*, cluster: bool, lab: str | None, config: Path | None, kubeconfig: Path | None) -> None:
    given = [name for name, is_given in (("--cluster", cluster), ("--lab", lab is not None)) if is_given]
    if len(given) > 1:
        raise typer.BadParameter("expected one of --cluster and --lab, found both")
    if config is not None and given:
        raise typer.BadParameter(f"expected without {given[0]}: it is a node's", param_hint="--config")
    if kubeconfig is not None and not cluster:
        raise typer.BadParameter(
            "expected with --cluster; on a node the daemon's configuration names it", param_hint="--kubeconfig"
        )


def _examiner(
    *, cluster: bool, lab: str | None, config: Path | None, kubeconfig: Path | None, namespace: str
) -> Callable[[], Report]:
    if cluster:
        return lambda: _examine_cluster(kubeconfig, namespace)
    if lab is not None:
        return lambda: _examine_lab(lab)
    return lambda: _examine_node(config)


def _examine_cluster(kubeconfig: Path | None, namespace: str) -> Report:
    from homeport import wiring
    from homeport.doctor import cluster

    with (
        output.progress("looking at the cluster"),
        wiring.open_cluster_store(sources.usual_kubeconfig(kubeconfig)) as found,
    ):
        if found is None:
            raise InvalidEnvironment("find the cluster: found no kubeconfig, and this is no pod", "give --kubeconfig")
        return cluster.examine(found.kubernetes.objects, place=found.place, namespace=namespace)


def _examine_node(config: Path | None) -> Report:
    from homeport.cli import doctor_site
    from homeport.doctor import node

    if os.geteuid() != 0:
        raise KernelRefused(f"look at this node as user {os.geteuid()}: expected root", "or --cluster, from anywhere")
    try:
        site = doctor_site.read(config, os.environ)
    except CniError as e:
        return doctor_site.broken(config, e)
    with output.progress(f"looking at node {site.node}"):
        return node.examine(site, doctor_site.TOOLS, environ=os.environ)


def _examine_lab(name: str) -> Report:
    from homeport.cli import doctor_lab

    return doctor_lab.examine(name)


def _print_checks(style: Style) -> None:
    from homeport.doctor import cluster_checks, node_checks

    listed = (*node_checks.CHECKS, *cluster_checks.CHECKS)
    if style is Style.JSON:
        typer.echo(output.json({"node": node_checks.CHECKS, "cluster": cluster_checks.CHECKS}))
        return
    where = ["node"] * len(node_checks.CHECKS) + ["cluster"] * len(cluster_checks.CHECKS)
    rows = [(one.id, place, one.severity.value, one.summary) for one, place in zip(listed, where, strict=True)]
    typer.echo(output.table(("check", "where", "severity", "summary"), rows))


# --- repairing -------------------------------------------------------------------------------------------------------


def _repair(report: Report, *, ask: bool) -> None:
    """Each by itself: one that fails keeps no other from being done."""
    from homeport.doctor import repairing

    for diagnosis in report.diagnoses:
        if diagnosis.repair is None:
            continue
        wanted = f"{diagnosis.repair.says} ({diagnosis.repair.proof})"
        if ask and not typer.confirm(f"repair {diagnosis.id}: {wanted}?", err=True):
            continue
        try:
            done = repairing.carry_out(diagnosis.repair)
        except CniError as e:
            done = f"not done: {e}"
        typer.echo(f"repair {diagnosis.id}: {diagnosis.repair.says}: {done}", err=True)


# --- printing --------------------------------------------------------------------------------------------------------


def _print(report: Report) -> None:
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    for diagnosis in report.diagnoses:
        typer.echo("\n".join(_told(diagnosis, colour=colour)) + "\n")
    for place in report.unlooked:
        typer.echo(f"not looked at: {place.place}: {place.why}\n")
    typer.echo(_summary(report))


def _told(diagnosis: Diagnosis, *, colour: bool) -> list[str]:
    severity = diagnosis.severity.value
    if colour:
        severity = typer.style(severity, fg={"error": "red", "warning": "yellow"}.get(severity, "cyan"), bold=True)
    sure = "" if diagnosis.sure.value == "certain" else f" ({diagnosis.sure.value})"
    lines = [
        f"{severity}: {diagnosis.place} [{diagnosis.id}]{sure}",
        f"  found:    {diagnosis.found}",
        f"  expected: {diagnosis.expected}",
        f"  why:      {diagnosis.why}",
        *(f"  run:      {command}" for command in diagnosis.run),
    ]
    if diagnosis.repair is not None:
        lines.append(f"  --repair: {diagnosis.repair.says}: {diagnosis.repair.proof}")
    return lines


def _summary(report: Report) -> str:
    counts = {name: sum(d.severity.value == name for d in report.diagnoses) for name in ("error", "warning", "info")}
    parts = [f"{n} {name}{'s' if n != 1 and name != 'info' else ''}" for name, n in counts.items() if n]
    if report.unlooked:
        parts.append(f"{len(report.unlooked)} not looked at")
    return f"{report.place}: {', '.join(parts) or 'nothing is wrong'}"
