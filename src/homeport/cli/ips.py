"""`homeport ips`: which addresses are whose."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from homeport.cli import output, sources
from homeport.cli.output import Format
from homeport.cli.sources import Kubeconfig, LabName, Place, Scope, Source, StorePath
from homeport.ipam.allocations import Allocation, Phase
from homeport.ipam.identities import ContainerOwner, PodOwner, Replica, Workload

if TYPE_CHECKING:
    from homeport.ipam.pools import Pool

_POLL_SECONDS = 2.0


class Owner(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Whose an address is; `pod` is the pod's name."""

    kind: str
    namespace: str = ""
    pod: str = ""
    workload: str = ""
    ordinal: int | None = None
    container_id: str = msgspec.field(name="containerID", default="")


class View(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One allocation, for programs."""

    address: str
    scope: str
    network: str
    interface: str
    phase: str
    owner: Owner
    node: str
    pod_uid: str = msgspec.field(name="podUID")
    container_id: str = msgspec.field(name="containerID")
    mac: str
    since: datetime
    retention: Mapping[str, Any]


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """What to show; None is all."""

    network: str | None = None
    workload: str | None = None
    pod: str | None = None
    node: str | None = None
    phase: Phase | None = None
    namespace: str | None = None
    scope: str | None = None

    def takes(self, allocation: Allocation) -> bool:
        owner = owner_of(allocation)
        node = allocation.holder.node if allocation.holder is not None else ""
        return (
            self.network in (None, allocation.slot.network)
            and (self.workload is None or _is_named(self.workload, owner))
            and (self.pod is None or self.pod in (owner.pod, f"{owner.namespace}/{owner.pod}"))
            and self.node in (None, node)
            and self.phase in (None, allocation.phase)
            and self.namespace in (None, owner.namespace)
            and self.scope in (None, allocation.scope)
        )


def ips(
    network: Annotated[
        str | None, typer.Option(help="Only of this network.", autocompletion=sources.complete_network)
    ] = None,
    workload: Annotated[str | None, typer.Option(help="Only of this workload: web, or statefulset/web.")] = None,
    pod: Annotated[str | None, typer.Option(help="Only of this pod.", autocompletion=sources.complete_pod)] = None,
    node: Annotated[str | None, typer.Option(help="Only in use on this node.")] = None,
    phase: Annotated[Phase | None, typer.Option(help="Only in this phase.", case_sensitive=False)] = None,
    namespace: Annotated[
        str | None, typer.Option("-n", "--namespace", help="Only of this namespace [default: all].")
    ] = None,
    every: Annotated[bool, typer.Option("-A", "--all-namespaces", help="Of all namespaces, as without -n.")] = False,
    scope: Scope = None,
    watch: Annotated[bool, typer.Option("-w", "--watch", help="Go on, with a line for every change.")] = False,
    form: Annotated[Format, typer.Option("-o", "--output", help="Form of the output.")] = Format.TABLE,
    store: StorePath = None,
    lab: LabName = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """List addresses with their owners, by address.

    Example: homeport ips --network multustest

    Example: homeport ips --workload statefulset/web -n testnamespace -o wide

    Example: homeport ips --phase Retained -o name
    """
    if every and namespace is not None:
        raise typer.BadParameter("expected one of -n and -A")
    wanted = Filter(
        network=network, workload=workload, pod=pod, node=node, phase=phase, namespace=namespace, scope=scope
    )
    with sources.opened(Place(store, lab, kubeconfig)) as source:
        found = listed(source, wanted)
        _show(found, source, form)
        if watch:
            _watch(source, wanted, found, form)


def listed(source: Source, wanted: Filter) -> list[Allocation]:
    """In order of scope and address."""
    with output.progress("reading allocations"):
        found = [a for a in _candidates(source, wanted) if wanted.takes(a)]
    return sorted(found, key=lambda a: (a.scope, a.address.version, int(a.address)))


def _candidates(source: Source, wanted: Filter) -> Iterable[Allocation]:
    """Asks for a part where the store can tell it apart: a cluster may have many thousands."""
    kind, _, name = (wanted.workload or "").rpartition("/")
    if kind.lower() == "statefulset" and wanted.namespace is not None:
        return source.store.of_workload(Workload(wanted.namespace, "StatefulSet", name))
    if wanted.node is not None:
        return source.store.of_node(wanted.node)
    return source.store.all(wanted.scope)


def owner_of(allocation: Allocation) -> Owner:
    """The owner as it is shown."""
    match allocation.slot.owner:
        case Replica(workload=workload, ordinal=ordinal) as replica:
            return Owner(
                kind=workload.kind,
                namespace=workload.namespace,
                pod=replica.pod.name,
                workload=workload.name,
                ordinal=ordinal,
            )
        case PodOwner(namespace=namespace, name=name):
            return Owner(kind="Pod", namespace=namespace, pod=name)
        case ContainerOwner(container_id=container_id):
            return Owner(kind="Container", container_id=container_id)


def view_of(allocation: Allocation) -> View:
    """The allocation for programs."""
    holder, rule = allocation.holder, allocation.retention
    retention = {
        "whenScaled": rule.when_scaled,
        "whenDeleted": rule.when_deleted,
        "retainForSeconds": None if rule.retain_for is None else int(rule.retain_for.total_seconds()),
        "adopt": rule.adopt,
    }
    return View(
        address=str(allocation.address),
        scope=allocation.scope,
        network=allocation.slot.network,
        interface=allocation.slot.ifname,
        phase=allocation.phase.value,
        owner=owner_of(allocation),
        node=holder.node if holder is not None else "",
        pod_uid=holder.pod_uid if holder is not None else "",
        container_id=holder.container_id if holder is not None else "",
        mac=allocation.mac or "",
        since=allocation.since,
        retention=retention if allocation.slot.workload is not None else {},
    )


def summary(found: Iterable[Allocation], pools: Iterable[Pool]) -> list[str]:
    """One line a network, or a range of it where that is known."""
    by_network: dict[tuple[str, str], list[Allocation]] = {}
    for allocation in found:
        by_network.setdefault((allocation.slot.network, allocation.scope), []).append(allocation)
    ranges = {(pool.network, r.scope, r.range.span): r.range.usable for pool in pools for r in pool.ranges}
    lines = []
    for (network, scope), some in by_network.items():
        spans = {span: usable for (*of, span), usable in ranges.items() if of == [network, scope]}
        for span, usable in spans.items():
            inside = [a for a in some if a.address in span]
            lines.append(f"{network} {span}: {_counted(inside)}, of {usable} usable")
        outside = [a for a in some if not any(a.address in span for span in spans)]
        if outside:
            lines.append(f"{network}{' outside its ranges' if spans else ''}: {_counted(outside)}")
    return lines


def _counted(found: Sequence[Allocation]) -> str:
    counts = Counter(a.phase for a in found)
    return ", ".join(f"{counts[phase]} {phase.value}" for phase in Phase if counts[phase]) or "none allocated"


def _show(found: Sequence[Allocation], source: Source, form: Format) -> None:
    if form in (Format.JSON, Format.YAML):
        output.show(form, [view_of(a) for a in found], headers=(), rows=())
        return
    if not found and form is not Format.NAME:
        typer.echo(f"no address is allocated there ({source.name})", err=True)
        return
    headers, row = _columns(source, wide=form is Format.WIDE)
    output.show(form, None, headers=headers, rows=[row(a) for a in found])
    if form is not Format.NAME:
        typer.echo("")
        for line in summary(found, [pool for _, pool in source.pools()]):
            typer.echo(line)


def _columns(source: Source, *, wide: bool) -> tuple[Sequence[str], Callable[[Allocation], Sequence[str]]]:
    headers = ["address", "namespace", "pod", "network", "interface", "phase", "node", "age"]
    now = source.now()

    def row(allocation: Allocation) -> Sequence[str]:
        view = view_of(allocation)
        cells = [
            view.address,
            view.owner.namespace,
            view.owner.pod or view.owner.container_id[:13],
            view.network,
            view.interface,
            view.phase,
            view.node,
            output.age(allocation.since, now),
        ]
        workload = f"{view.owner.kind.lower()}/{view.owner.workload}" if view.owner.workload else ""
        return [*cells, view.mac, workload, view.container_id[:13], view.scope] if wide else cells

    return ([*headers, "mac", "workload", "container", "scope"] if wide else headers), row


def _watch(source: Source, wanted: Filter, found: Sequence[Allocation], form: Format) -> None:
    """A line for every allocation that is new or another one than before; `Released` for what is gone."""
    from homeport.host.clocks import SystemClock

    clock, known = SystemClock(), {(a.scope, a.address): a for a in found}
    while True:
        clock.sleep(_POLL_SECONDS)
        now = {(a.scope, a.address): a for a in listed(source, wanted)}
        _, row = _columns(source, wide=form is Format.WIDE)
        for place, allocation in now.items():
            if known.get(place) != allocation:
                _tell(row(allocation), view_of(allocation), form)
        for place, allocation in known.items():
            if place not in now:
                cells = [("Released" if n == 5 else cell) for n, cell in enumerate(row(allocation))]
                _tell(cells, msgspec.structs.replace(view_of(allocation), phase="Released"), form)
        known = now


def _tell(cells: Sequence[str], view: View, form: Format) -> None:
    if form is Format.JSON:
        typer.echo(msgspec.json.encode(view).decode())
    elif form is Format.YAML:
        typer.echo(f"---\n{output.yaml(view)}")
    elif form is Format.NAME:
        typer.echo(cells[0])
    else:
        typer.echo("   ".join(cell or "<none>" for cell in cells))


def _is_named(text: str, owner: Owner) -> bool:
    """`web` or `statefulset/web`. A pod that is no replica is known by its name alone: `visitor-5d8f-x2x4k`."""
    kind, _, name = text.rpartition("/")
    kind = kind.lower()
    if owner.workload:
        return name == owner.workload and kind in ("", owner.kind.lower(), owner.kind.partition(".")[0].lower())
    if kind == "statefulset":
        return False
    return re.fullmatch(rf"{re.escape(name)}(-[a-z0-9]+)?-[a-z0-9]{{5}}", owner.pod) is not None
