"""`homeport plan`: every replica's address before anything runs."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from homeport.cli import output, reading, sources
from homeport.cli.output import Format
from homeport.cli.sources import Kubeconfig, LabName, Place, StorePath

if TYPE_CHECKING:
    from homeport.ipam.allocations import Allocation
    from homeport.ipam.planning import Plan


class Against(Enum):
    """What is there already."""

    NOTHING = "nothing"
    CLUSTER = "cluster"
    STORE = "store"


def plan(
    file: Annotated[
        list[str],
        typer.Option("-f", "--filename", help='Manifests, directories of them, or "-". May be repeated.'),
    ],
    against: Annotated[
        Against | None,
        typer.Option(help="What is allocated already: nothing, the cluster's, or that of --store or --lab."),
    ] = None,
    namespace: Annotated[str, typer.Option("-n", "--namespace", help="Of manifests that name none.")] = "default",
    nodes: Annotated[int, typer.Option(min=0, help="Pods of a DaemonSet.")] = 1,
    form: Annotated[Format, typer.Option("-o", "--output", help="Form of the output.")] = Format.TABLE,
    store: StorePath = None,
    lab: LabName = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Show every replica's address on every network before anything runs.

    Also what would clash, how much room is left in every range, and how many more replicas fit. Exits with 1 for a
    clash.

    Example: homeport plan -f nad.yaml -f statefulset.yaml

    Example: helm template ./chart | homeport plan -f - --against cluster
    """
    place = Place(store, lab, kubeconfig)
    named = place != Place()
    if against is Against.STORE and store is None and lab is None:
        raise typer.BadParameter("expected --store PATH or --lab NAME with it", param_hint="--against store")
    if against is Against.NOTHING and named:
        raise typer.BadParameter("expected without --store, --lab and --kubeconfig", param_hint="--against nothing")
    made = _make(file, namespace, nodes, place if named or against is Against.CLUSTER else None)
    if form in (Format.JSON, Format.YAML):
        typer.echo((output.json if form is Format.JSON else output.yaml)(_value(made)))
    elif form is Format.NAME:
        for line in made.lines:
            typer.echo(str(line.address.ip) if line.address is not None else "")
    else:
        _print(made, wide=form is Format.WIDE)
    if made.clashes:
        raise typer.Exit(1)


def _make(files: list[str], namespace: str, nodes: int, place: Place | None) -> Plan:
    from datetime import UTC, datetime

    from homeport.cli import plan_files
    from homeport.ipam.planning import make_plan

    allocated: tuple[Allocation, ...]
    texts, unread = reading.read_all(files)
    if unread:
        raise unread[0]
    found = plan_files.read(texts, namespace)
    if place is None:
        asked, allocated, now = plan_files.ask(found, None, (), nodes=nodes), (), datetime.now(UTC)
    else:
        with sources.opened(place) as source, output.progress("reading allocations"):
            allocated, now = tuple(source.store.all()), source.now()
            asked = plan_files.ask(
                found, source.find, allocated, find_claim=source.find_claim, cluster=source.cluster, nodes=nodes
            )
    return make_plan(
        asked.demands, asked.crowds, allocated, at=now, reservations=asked.reservations, clashes=asked.problems
    )


def _print(made: Plan, *, wide: bool) -> None:
    from homeport.ipam.planning import written

    rows = [
        [str(line.slot.owner).partition("/")[2], line.slot.network, line.slot.ifname, str(line.address or ""), line.how]
        for line in made.lines
    ]
    rows += [
        [written(c.workload).rpartition("/")[2] + "-*", c.network, c.ifname, ",".join(map(str, c.spans)), c.how]
        for c in made.crowds
    ]
    headers = ["pod", "network", "interface", "address", "why"]
    if wide:
        namespaces = [_namespace(line.slot.owner) for line in made.lines] + [c.workload.namespace for c in made.crowds]
        headers, rows = [*headers, "namespace"], [[*r, n] for r, n in zip(rows, namespaces, strict=True)]
    if not rows:
        typer.echo("no pod of these files asks for a network", err=True)
    else:
        typer.echo(output.table(headers, rows))
    if made.rooms:
        typer.echo("")
        numbers = ("usable", "taken", "planned", "surge", "left")
        ranges = [
            [str(r.span), ",".join(r.networks), *(str(getattr(r, n)) for n in numbers), *([r.scope] if wide else [])]
            for r in made.rooms
        ]
        typer.echo(output.table(["range", "network", *numbers, *(["scope"] if wide else [])], ranges))
    for fit in made.fits:
        fits = "replica fits" if fit.more == 1 else "replicas fit"
        typer.echo(f"{fit.workload}: {fit.more or 'no'} more {fits} ({fit.limit})")
    for note in made.notes:
        typer.echo(f"note: {note}")
    for clash in made.clashes:
        typer.echo(f"clash: {clash}")


def _value(made: Plan) -> dict[str, Any]:
    """The plan in the keys of the API's objects."""
    return {
        "replicas": [
            {
                "namespace": _namespace(line.slot.owner),
                "pod": str(line.slot.owner).partition("/")[2],
                "network": line.slot.network,
                "interface": line.slot.ifname,
                "address": None if line.address is None else str(line.address),
                "why": line.how,
                "kept": line.kept,
            }
            for line in made.lines
        ],
        "others": [
            {
                "namespace": c.workload.namespace,
                "kind": c.workload.kind,
                "name": c.workload.name,
                "network": c.network,
                "interface": c.ifname,
                "addresses": [str(span) for span in c.spans],
                "why": c.how,
            }
            for c in made.crowds
        ],
        "ranges": [
            {
                "scope": r.scope,
                "first": str(r.span.first),
                "last": str(r.span.last),
                "networks": r.networks,
                "usable": r.usable,
                "taken": r.taken,
                "planned": r.planned,
                "surge": r.surge,
                "left": r.left,
            }
            for r in made.rooms
        ],
        "fits": made.fits,
        "clashes": made.clashes,
        "notes": made.notes,
    }


def _namespace(owner: object) -> str:
    return str(owner).partition("/")[0]
