"""`homeport migrate`: takes a cluster's addresses over from another address manager, without changing one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from homeport.cli import output
from homeport.cli.sources import Kubeconfig
from homeport.model.errors import InvalidEnvironment

if TYPE_CHECKING:
    from homeport.ipam.allocations import Allocation
    from homeport.migration.applying import Done
    from homeport.migration.facts import Facts, Plan
    from homeport.model.addresses import IPAddress
    from homeport.ports import AllocationStore, Objects

app = typer.Typer(no_args_is_help=True, help="Take a cluster's addresses over from another address manager.")
whereabouts = typer.Typer(
    no_args_is_help=True,
    help="From Whereabouts: its IPPools and reservations become IPAllocations. Exits with 0 when all is well, 1 when "
    "something is not.",
)
app.add_typer(whereabouts, name="whereabouts")

Namespace = Annotated[str, typer.Option("-n", "--namespace", help="Where Whereabouts keeps its objects.")]
Coexist = Annotated[
    bool,
    typer.Option(
        "--coexist",
        help="Nodes with Whereabouts remain: take over replicas, and all pods of each --node, and keep what is taken "
        "over from Whereabouts.",
    ),
]
Nodes = Annotated[
    list[str] | None, typer.Option("--node", metavar="NAME", help="A node that changes over now; with --coexist.")
]
Form = Annotated[output.Format, typer.Option("-o", "--output", help="How to print.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")]

_PROGRESS = 500  # addresses between two lines of progress


@whereabouts.command("plan")
def plan(
    kubeconfig: Kubeconfig = None,
    namespace: Namespace = "kube-system",
    coexist: Coexist = False,
    node: Nodes = None,
    form: Form = output.Format.TABLE,
) -> None:
    """Show what would be taken over, and what speaks against it. Changes nothing.

    Example: homeport migrate whereabouts plan -o wide
    """
    with _opened(kubeconfig) as (objects, store):
        _, found = _read(objects, store, namespace, coexist, node)
    _show_plan(found, form)
    _exit(failed=bool(found.conflicts))


@whereabouts.command("apply")
def apply(
    kubeconfig: Kubeconfig = None,
    namespace: Namespace = "kube-system",
    coexist: Coexist = False,
    node: Nodes = None,
    dry_run: DryRun = False,
    skip_conflicts: Annotated[
        bool, typer.Option("--skip-conflicts", help="Take the rest over; with --coexist, which keeps them safe.")
    ] = False,
    form: Form = output.Format.TABLE,
) -> None:
    """Make the IPAllocations. No address changes. Again after an interruption, it goes on where it was.

    With a conflict it does nothing. Example: homeport migrate whereabouts apply --coexist --node worker-1
    """
    from homeport.migration import applying
    from homeport.migration.marking import MarkingObjects
    from homeport.stores.kubernetes.store import KubernetesStore

    if skip_conflicts and not coexist:
        raise typer.BadParameter(
            "expected with --coexist: without Whereabouts, nothing keeps those addresses", param_hint="--skip-conflicts"
        )
    with _opened(kubeconfig) as (objects, store):
        _, found = _read(objects, store, namespace, coexist, node)
        if dry_run or (found.conflicts and not skip_conflicts):
            _show_plan(found, form)
            if not dry_run:
                typer.echo("nothing done: resolve the conflicts first", err=True)
            _exit(failed=bool(found.conflicts))
        marking = MarkingObjects(objects)
        protect = _protector(objects, store, namespace) if coexist else None
        done = applying.apply(found, KubernetesStore(marking), noting=marking.noting, protect=protect)
        _show_done(_followed(done, len(found.imports)), form)


@whereabouts.command("verify")
def verify(
    kubeconfig: Kubeconfig = None,
    namespace: Namespace = "kube-system",
    coexist: Coexist = False,
    node: Nodes = None,
    form: Form = output.Format.TABLE,
) -> None:
    """Compare the IPAllocations with Whereabouts' records and the pods' network-status. Changes nothing."""
    from homeport.migration.verifying import verify as compare

    with _opened(kubeconfig) as (objects, store):
        facts, found = _read(objects, store, namespace, coexist, node)
    for conflict in found.conflicts:
        typer.echo(f"{conflict.where}: {_told(conflict.address, conflict.told)}", err=True)
    _show_done(list(compare(found, facts)), form, failed=bool(found.conflicts))


@whereabouts.command("rollback")
def rollback(
    kubeconfig: Kubeconfig = None,
    namespace: Namespace = "kube-system",
    dry_run: DryRun = False,
    form: Form = output.Format.TABLE,
) -> None:
    """Remove the IPAllocations that apply made, and give Whereabouts its entries back.

    What Homeport has given to a pod since stays, and is told.
    """
    from homeport.cli import migrate_undoing
    from homeport.migration import applying
    from homeport.stores.whereabouts import WhereaboutsRecords

    with _opened(kubeconfig) as (objects, store):
        made = migrate_undoing.made(objects)
        if dry_run:
            _show_done([migrate_undoing.foretold(allocation, note) for allocation, note in made], form)
        records = WhereaboutsRecords(objects, namespace)

        give_back = partial(migrate_undoing.give_back, records)
        done = _followed(applying.roll_back(made, store, give_back=give_back), len(made))
        migrate_undoing.remove_records(objects, store)
        _show_done(done, form)


@contextmanager
def _opened(kubeconfig: Kubeconfig) -> Iterator[tuple[Objects, AllocationStore]]:
    from homeport import wiring
    from homeport.cli import sources

    with wiring.open_cluster_store(sources.usual_kubeconfig(kubeconfig)) as opened:
        if opened is None:
            raise InvalidEnvironment("find the cluster: found no kubeconfig, and this is no pod", "give --kubeconfig")
        yield opened.kubernetes.objects, opened.store


def _read(
    objects: Objects, store: AllocationStore, namespace: str, coexist: bool, nodes: Iterable[str] | None
) -> tuple[Facts, Plan]:
    from homeport.cli.migrate_reading import read_facts
    from homeport.migration import planning
    from homeport.migration.facts import Extent

    listed = frozenset(nodes or ())
    if listed and not coexist:
        raise typer.BadParameter("expected with --coexist: else every node changes over", param_hint="--node")
    facts = read_facts(objects, store, namespace)
    for told in facts.unread_networks:
        typer.echo(f"homeport: passed over: {told}", err=True)
    return facts, planning.plan(facts, Extent(coexist=coexist, nodes=listed))


def _protector(objects: Objects, store: AllocationStore, namespace: str) -> Callable[[Allocation], str]:
    """Makes Whereabouts see an allocation; gives what speaks against it."""
    from homeport.stores.coexisting import CoexistingStore
    from homeport.stores.whereabouts import HeldByWhereabouts, pools_of

    coexisting = CoexistingStore(store, objects, namespace)
    pools, slices = coexisting.records.all_pools(), coexisting.records.slices()

    def protect(allocation: Allocation) -> str:
        try:
            coexisting.protect(allocation, among=pools_of(allocation.scope, pools, slices))
        except HeldByWhereabouts as e:
            return f"contested: {e}"
        return ""

    return protect


def _followed(done: Iterable[Done], total: int) -> list[Done]:
    """All of it, with a line now and then for who waits; on a terminal alone."""
    listed: list[Done] = []
    for one in done:
        listed.append(one)
        if sys.stderr.isatty() and len(listed) % _PROGRESS == 0:
            typer.echo(f"{len(listed)} of {total} addresses", err=True)
    return listed


def _show_plan(found: Plan, form: output.Format) -> None:
    if form in (output.Format.JSON, output.Format.YAML):
        output.show(form, _plain(found), headers=(), rows=())
        return
    listed: list[tuple[IPAddress | None, str, str, str]] = [
        (i.allocation.address, "already there" if i.known else "import", str(i.allocation.slot), i.why)
        for i in found.imports
    ]
    listed += [(s.address, s.reason.value, s.where, s.told) for s in found.skipped]
    listed.sort(key=lambda row: (row[0].version, int(row[0])) if row[0] is not None else (9, 0))
    rows = [(str(row[0] or ""), *row[1:]) for row in listed if row[0] is not None or form is not output.Format.NAME]
    if rows:
        output.show(form, None, headers=("address", "action", "for", "because"), rows=rows)
    if form is not output.Format.NAME:
        there = len(found.imports) - len(found.to_make)
        counted = f"{len(found.to_make)} to import, {there} there already, {len(found.conflicts)} conflicts"
        typer.echo(f"{counted}, {len(found.skipped) - len(found.conflicts)} passed over")


def _plain(found: Plan) -> dict[str, Any]:
    return {
        "imports": [
            {
                "address": str(i.allocation.address),
                "scope": i.allocation.scope,
                "slot": str(i.allocation.slot),
                "phase": i.allocation.phase.value,
                "pool": i.origin.pool,
                "known": i.known is not None,
                "because": i.why,
            }
            for i in found.imports
        ],
        "skipped": [
            {"address": str(s.address or ""), "reason": s.reason.value, "where": s.where, "because": s.told}
            for s in found.skipped
        ],
    }


def _show_done(done: Sequence[Done], form: output.Format, *, failed: bool = False) -> None:
    """Prints and ends the program."""
    from homeport.migration.applying import counted

    plain = [
        {
            "address": str(d.allocation.address),
            "scope": d.allocation.scope,
            "slot": str(d.allocation.slot),
            "outcome": d.outcome,
            "failed": d.failed,
        }
        for d in done
    ]
    shown = done if form is output.Format.WIDE else [d for d in done if d.failed]
    rows = [(str(d.allocation.address), str(d.allocation.slot), d.outcome) for d in shown]
    if rows or form in (output.Format.JSON, output.Format.YAML):
        output.show(form, plain, headers=("address", "for", "outcome"), rows=rows)
    if form in (output.Format.TABLE, output.Format.WIDE):
        typer.echo(", ".join(f"{count} {what}" for what, count in counted(done).items()) or "nothing to do")
    _exit(failed=failed or any(d.failed for d in done))


def _told(address: object, text: str) -> str:
    return f"{address}: {text}" if address is not None else text


def _exit(*, failed: bool) -> None:
    raise typer.Exit(1 if failed else 0)
