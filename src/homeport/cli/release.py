"""`homeport release` and `homeport reserve`: an operator's hand on allocations. Each change is one compare-and-swap."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from homeport.cli import sources
from homeport.cli.ips import Filter, listed, owner_of
from homeport.cli.sources import Kubeconfig, LabName, Place, Scope, Source, StorePath
from homeport.cli.who import described, parse_address
from homeport.ipam.allocations import Allocation, Phase, Retention, released
from homeport.ipam.identities import Replica, Slot, Workload
from homeport.model.errors import AddressTaken, InvalidNetConf, NoSuchObject
from homeport.model.names import is_ifname, is_label, is_subdomain

if TYPE_CHECKING:
    from homeport.ipam.pools import PoolRange
    from homeport.model.addresses import IPAddress

_REPLICA = re.compile(r"(?P<namespace>[^/]+)/(?P<name>.+)-(?P<ordinal>0|[1-9][0-9]{0,9})")


def release(
    what: Annotated[
        str,
        typer.Argument(
            metavar="ADDRESS|POD", autocompletion=sources.complete_address, help="10.1.2.3 or web-0", show_default=False
        ),
    ] = "",
    workload: Annotated[str, typer.Option(help="Everything of this workload: statefulset/web.")] = "",
    namespace: Annotated[
        str | None, typer.Option("-n", "--namespace", help="Of the pod or workload [default: default].")
    ] = None,
    network: Annotated[str | None, typer.Option(help="Only of this network.")] = None,
    scope: Scope = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also what is Bound: take it from its holder without proof that it is gone.")
    ] = False,
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Ask nothing.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what it would be, and change nothing.")] = False,
    store: StorePath = None,
    lab: LabName = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Release addresses that are kept and not in use: Retained, Quarantined or Reserved.

    An address in use stays, unless --force says that its holder is gone although nothing proves it. What a replica has
    in use is then Retained for it, so that its new pod starts; anything else is free at once. If the old holder still
    runs, two pods have the address: switch its node off first.

    Example: homeport release 10.93.97.14

    Example: homeport release --workload web -n testnamespace --dry-run

    Example: homeport release web-0 -n testnamespace --force
    """
    if bool(what) == bool(workload):
        raise typer.BadParameter("expected an address or a pod, or --workload")
    with sources.opened(Place(store, lab, kubeconfig)) as source:
        found = _find(source, what, workload, namespace, network, scope)
        bound = [a for a in found if a.phase is Phase.BOUND]
        if bound and not force:
            _refuse(bound, found)
        if dry_run:
            for allocation in found:
                typer.echo(f"would release {allocation.address}: {described(allocation)}")
            return
        if not yes:
            _confirm(found, bound)
        failed = [not _release(source, allocation) for allocation in found]
    if any(failed):
        raise typer.Exit(1)


def reserve(
    address: Annotated[str, typer.Argument(metavar="ADDRESS")],
    owner: Annotated[str, typer.Option("--for", metavar="NAMESPACE/WORKLOAD-ORDINAL", help="testnamespace/web-0")],
    network: Annotated[str, typer.Option(help="The network's name.", autocompletion=sources.complete_network)],
    interface: Annotated[str, typer.Option(help="The pod's interface on it.")] = "net1",
    kind: Annotated[str, typer.Option(help="The workload's kind.")] = "StatefulSet",
    scope: Annotated[
        str | None, typer.Option(metavar="NAME", help="Its scope [default: the network's, where it is known].")
    ] = None,
    store: StorePath = None,
    lab: LabName = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Keep an address for a replica, which gets it at its next start.

    It is Retained for the replica, as if it had used it before and stopped: nobody else gets it until the workload's
    retention lets it go, or `homeport release` does. A replica that has another address keeps it: release that first.

    Example: homeport reserve 10.93.97.20 --for testnamespace/web-2 --network multustest
    """
    from homeport.ports import AlreadyExists

    wanted, replica = parse_address(address), _replica(owner, kind)
    if not is_ifname(interface):
        raise typer.BadParameter(f'found "{interface}", expected a name such as net1', param_hint="--interface")
    slot = Slot(replica, network, interface)
    with sources.opened(Place(store, lab, kubeconfig)) as source:
        pooled = _range_of(source, wanted, slot, scope)
        where = pooled.scope if pooled is not None else scope or ""
        _require_none(source, wanted, where, slot, pooled)
        kept = Allocation(
            scope=where,
            address=wanted,
            slot=slot,
            phase=Phase.RETAINED,
            since=source.now(),
            # Until the workload is there to be asked: it may be deployed only next week.
            retention=Retention(when_scaled="Retain", when_deleted="Retain"),
        )
        try:
            source.store.create(kept, cause=f"reserved by {sources.user()}")
        except AlreadyExists as e:
            if e.present.slot == slot:
                typer.echo(f"{wanted} is {described(e.present)} already")
                return
            raise AddressTaken(f"reserve {wanted} for {slot}: it is {described(e.present)}") from e
    typer.echo(f"{wanted} reserved for {replica} ({interface} on {network})")


# --- releasing ---------------------------------------------------------------------------------------------------


def _find(
    source: Source, what: str, workload: str, namespace: str | None, network: str | None, scope: str | None
) -> Sequence[Allocation]:
    wanted = Filter(network=network, scope=scope)
    if workload:
        name, wanted = workload, msgspec.structs.replace(wanted, workload=workload, namespace=namespace or "default")
    elif _is_address(what):
        found = _at(source, parse_address(what), wanted)
        if len(found) > 1:
            scopes = ", ".join(f'"{a.scope}"' for a in found)
            raise InvalidNetConf(f"release {what}: found it in scopes {scopes}, expected one", "say which: --scope")
        if not found:
            raise NoSuchObject(f"release {what}: it is nobody's")
        return found
    else:
        in_pod, slash, pod = what.rpartition("/")
        space = in_pod if slash else namespace or "default"
        name, wanted = f"{space}/{pod}", msgspec.structs.replace(wanted, pod=pod, namespace=space)
    found = listed(source, wanted)
    if not found:
        raise NoSuchObject(f"release what {name} has: found no address of it")
    return found


def _at(source: Source, address: IPAddress, wanted: Filter) -> Sequence[Allocation]:
    """What stands at the address, in whatever scope; by name where the scopes are known."""
    known = [r.scope for _, pool in source.pools() for r in pool.ranges]
    scopes = dict.fromkeys(known if wanted.scope is None else [wanted.scope])
    found = [a for scope in scopes if (a := source.store.get(scope, address)) is not None and wanted.takes(a)]
    return found or [a for a in listed(source, wanted) if a.address == address]


def _is_address(text: str) -> bool:
    return ":" in text or re.fullmatch(r"[0-9]+(\.[0-9]+){3}(/[0-9]+)?", text) is not None


def _refuse(bound: Sequence[Allocation], found: Sequence[Allocation]) -> None:
    first, free = bound[0], len(found) - len(bound)
    more = f", and {len(bound) - 1} more" if len(bound) > 1 else ""
    left = f"; nothing was changed, though {free} not in use could be" if free else ""
    raise AddressTaken(
        f"release {first.address}: in use{more}: {described(first)}",
        f"scale the workload down or delete the pod; --force if its holder is gone for certain{left}",
    )


def _confirm(found: Sequence[Allocation], bound: Sequence[Allocation]) -> None:
    """A yes for what is not in use; for what is, the sentence that somebody makes themselves answerable for."""
    for allocation in found:
        typer.echo(f"{allocation.address}: {described(allocation)}")
    if not bound:
        typer.confirm(f"release {len(found)} address{'es' if len(found) > 1 else ''}?", abort=True)
        return
    first = bound[0]
    node = first.holder.node if first.holder is not None else ""
    whose = owner_of(first).pod or "the container"
    oath = f"{whose} on {node} is dead" if len(bound) == 1 else f"all {len(bound)} are dead"
    typer.echo(f'Nothing shows it to be so, and two holders of one address break both. If it is, type "{oath}".')
    if typer.prompt(">", prompt_suffix=" ", default="", show_default=False) != oath:
        raise typer.Abort


def _release(source: Source, allocation: Allocation) -> bool:
    """Whether it is released; another version than the one shown is left alone."""
    from homeport.ports import Conflict

    in_use = allocation.phase is Phase.BOUND
    left = released(allocation, at=source.now()) if in_use else None
    cause = f"released{' by force' if in_use else ''} by {sources.user()}"
    try:
        if left is None:
            source.store.delete(allocation, cause=cause)
            typer.echo(f"{allocation.address} released")
        else:
            source.store.replace(left, cause=cause)
            typer.echo(f"{allocation.address} taken from its holder, and Retained for {allocation.slot.owner}")
    except Conflict:
        typer.echo(f"homeport: release {allocation.address}: it changed meanwhile; look again", err=True)
        return False
    return True


# --- reserving ---------------------------------------------------------------------------------------------------


def _replica(text: str, kind: str) -> Replica:
    match = _REPLICA.fullmatch(text)
    if match is None or not is_label(match["namespace"]) or not is_subdomain(match["name"]):
        raise typer.BadParameter(
            f'found "{text}", expected NAMESPACE/WORKLOAD-ORDINAL such as testnamespace/web-0', param_hint="--for"
        )
    return Replica(Workload(match["namespace"], kind, match["name"]), int(match["ordinal"]))


def _require_none(source: Source, wanted: IPAddress, scope: str, slot: Slot, pooled: PoolRange | None) -> None:
    """A second address of the same range would never be used, and go as surplus."""
    for other in source.store.of_slot(slot):
        same = other.address in pooled.range.subnet if pooled else other.address.version == wanted.version
        if same and other.scope == scope and other.address != wanted:
            raise AddressTaken(
                f"reserve {wanted} for {slot}: it has {other.address} already, {other.phase.value}",
                f"homeport release {other.address}",
            )


def _range_of(source: Source, address: IPAddress, slot: Slot, scope: str | None) -> PoolRange | None:
    """The range of the slot's network that hands the address out; None where networks are not known.

    Networks of one name may be defined in several namespaces: the workload's own goes first.
    """
    if source.definitions is None:
        return None
    assert slot.workload is not None
    named = [(d, pool) for d, pool in source.pools() if pool.network == slot.network]
    if not named:
        raise NoSuchObject(f'reserve {address}: no network "{slot.network}" whose addresses are ours')
    own = [pool for definition, pool in named if definition.namespace == slot.workload.namespace]
    ranges = [r for pool in own or [pool for _, pool in named] for r in pool.ranges]
    fitting = {r.scope: r for r in ranges if address in r.range and scope in (None, r.scope)}
    if len(fitting) > 1:
        scopes = ", ".join(f'"{s}"' for s in fitting)
        raise InvalidNetConf(f"reserve {address}: found it in scopes {scopes}, expected one", "say which: --scope")
    if not fitting:
        found = ", ".join(str(r.range) for r in ranges)
        network = f'network "{slot.network}"'
        raise InvalidNetConf(f"reserve {address}: {network} does not hand it out, expected one of {found}")
    return next(iter(fitting.values()))
