"""`homeport lab get|ping|exec|events`: what only looks."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from homeport.cli import lab_names, output
from homeport.cli.lab_names import LabName, Namespace
from homeport.cli.output import Format

if TYPE_CHECKING:
    from homeport.lab.pings import Row
    from homeport.lab.sessions import Lab


class Resource(Enum):
    """What `get` shows."""

    REPLICAS = "replicas"
    PODS = "pods"
    NODES = "nodes"
    NETWORKS = "networks"
    WORKLOADS = "workloads"
    ALLOCATIONS = "allocations"


Output = Annotated[Format, typer.Option("-o", "--output", help="Form of the output.")]
Shown = tuple[Sequence[Any], Sequence[str], Sequence[Sequence[str]]]  # values, headers, rows


def get(
    resource: Annotated[Resource, typer.Argument(help="What to list.")] = Resource.REPLICAS,
    namespace: Namespace = None,
    form: Output = Format.TABLE,
    lab: LabName = lab_names.DEFAULT,
) -> None:
    """List replicas with their addresses. Or pods, nodes, networks, workloads, allocations.

    Example: homeport lab get -o wide
    """
    with lab_names.session(lab) as session:
        values, headers, rows = _listing(session.lab, resource, namespace, wide=form is Format.WIDE)
        reasons = _reasons(session.lab) if resource in (Resource.REPLICAS, Resource.PODS) else []
    if not values and form in (Format.TABLE, Format.WIDE):
        typer.echo("no resources found", err=True)
        return
    output.show(form, values, headers=headers, rows=rows)
    if form in (Format.TABLE, Format.WIDE):
        for reason in reasons:
            typer.echo(reason, err=True)


def _listing(lab: Lab, resource: Resource, namespace: str | None, *, wide: bool) -> Shown:
    from homeport.lab import views

    match resource:
        case Resource.REPLICAS:
            return _replicas(views.replicas(lab.state, namespace), wide=wide)
        case Resource.PODS:
            pods = views.pods(lab.state, namespace)
            pod_rows = [(p.name, p.phase, p.node, ",".join(p.addresses), p.namespace) for p in pods]
            return pods, ("name", "status", "node", "addresses", "namespace"), pod_rows
        case Resource.NODES:
            nodes = views.nodes(lab.state)
            return nodes, ("name", "status", "pods"), [(n.name, n.status, str(n.pods)) for n in nodes]
        case Resource.NETWORKS:
            networks = views.networks(lab.state, namespace)
            network_rows = [(n.name, ",".join(n.plugins), n.namespace) for n in networks]
            return networks, ("name", "plugins", "namespace"), network_rows
        case Resource.WORKLOADS:
            sets = views.workloads(lab.state, namespace)
            set_rows = [(w.name, w.kind, f"{w.ready}/{w.replicas}", str(w.up_to_date), w.namespace) for w in sets]
            return sets, ("name", "kind", "ready", "up-to-date", "namespace"), set_rows
        case Resource.ALLOCATIONS:
            return _allocations(lab, namespace)


def _replicas(found: Sequence[Any], *, wide: bool) -> Shown:
    headers = ["replica", "node", "network", "interface", "address", "mac", "phase"]
    rows = [[r.replica, r.node, r.network, r.interface, ",".join(r.addresses), r.mac, r.phase] for r in found]
    if wide or len({r.namespace for r in found}) > 1:
        headers.append("namespace")
        rows = [[*row, r.namespace] for row, r in zip(rows, found, strict=True)]
    return found, headers, rows


def _allocations(lab: Lab, namespace: str | None) -> Shown:
    from homeport.lab import views

    found = views.allocations(lab.allocations.all(), namespace)
    now = lab.clock.now()
    rows = [
        (a.address, a.owner, a.network, a.interface, a.phase, a.node, a.mac, output.age(a.since, now)) for a in found
    ]
    return found, ("address", "owner", "network", "interface", "phase", "node", "mac", "age"), rows


def _reasons(lab: Lab) -> list[str]:
    from homeport.lab import views

    return [f"{pod}: {why}" for pod, why in views.troubles(lab.state)]


def ping(
    network: Annotated[str | None, typer.Option(help="Only this network [default: all].")] = None,
    namespace: Namespace = None,
    form: Output = Format.TABLE,
    lab: LabName = lab_names.DEFAULT,
) -> None:
    """Ping from every pod to every other over their networks.

    Exits 1 if a pair fails. SOURCE is the address a request leaves from, TABLE the routing table it selects.
    """
    from homeport.lab import pings

    with lab_names.session(lab) as session:
        rows = pings.matrix(session.lab, network, namespace)
    if not rows:
        typer.echo("no pair of pods shares a network", err=True)
        return
    reached_from = [row.pod for row in rows]
    names = list(dict.fromkeys([*reached_from, *(to for row in rows for to in row.replies)]))
    headers = ["network", "from", "source", "table", *names]
    cells = [_ping_cells(row, names) for row in rows]
    if len(output.table(headers, cells).partition("\n")[0]) > shutil.get_terminal_size((120, 24)).columns:
        headers[4:] = [str(n) for n in range(1, len(names) + 1)]
        cells = [[c[0], f"{names.index(c[1]) + 1} {c[1]}", *c[2:]] for c in cells]
    output.show(form, rows, headers=headers, rows=cells)
    asked = [reply for row in rows for reply in row.replies.values()]
    reached = sum(reply.milliseconds is not None for reply in asked)
    if form in (Format.TABLE, Format.WIDE):
        typer.echo(f"{reached} of {len(asked)} reached")
    if reached < len(asked):
        raise typer.Exit(1)


def _ping_cells(row: Row, names: Sequence[str]) -> list[str]:
    cells = [row.network, row.pod, row.source, row.table]
    for name in names:
        reply = row.replies.get(name)
        if reply is None:
            cells.append("-")
        else:
            cells.append(f"{reply.milliseconds:.2f} ms" if reply.milliseconds is not None else reply.reason)
    return cells


def exec_(
    pod: Annotated[str, typer.Argument(metavar="POD", autocompletion=lab_names.complete_pod)],
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND")],
    namespace: Namespace = None,
    lab: LabName = lab_names.DEFAULT,
) -> None:
    """Run a command in a pod's network namespace.

    Example: homeport lab exec web-0 -- ip address
    """
    from homeport.lab import actions, entering
    from homeport.lab.objects import Sandbox
    from homeport.model.errors import TryAgainLater

    with lab_names.session(lab) as session:
        found = actions.find_pod(session.lab, pod, namespace)
        ready = [s for s in session.lab.state.all(Sandbox) if s.pod_uid == found.uid and s.ready]
        if not ready:
            raise TryAgainLater(f'exec in pod "{pod}": it is not running', found.message)
    entering.join_network(ready[0].netns_path)
    try:
        os.execvp(command[0], command)  # noqa: S606 -- the person's own command, in the person's own powers
    except OSError as e:
        typer.echo(f'homeport: run "{command[0]}": {(e.strerror or "").lower()}', err=True)
        raise typer.Exit(127) from e


def events(
    form: Output = Format.TABLE,
    lab: LabName = lab_names.DEFAULT,
) -> None:
    """List what happened, the oldest first."""
    with lab_names.session(lab) as session:
        found = session.lab.state.events()
        now = session.lab.clock.now()
    rows = [
        (output.age(e.at, now), e.type, e.reason, e.regarding, e.message + (f" (x{e.count})" if e.count > 1 else ""))
        for e in found
    ]
    output.show(form, found, headers=("last seen", "type", "reason", "object", "message"), rows=rows)
