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
from homeport.model.errors import AddressTaken, CniError, InvalidNetConf, NoSuchObject, TryAgainLater
from homeport.model.names import is_ifname, is_label, is_subdomain

if TYPE_CHECKING:
    from homeport.ipam.pools import PoolRange
    from homeport.model.addresses import IPAddress

_REPLICA = re.compile(r"(?P<namespace>[^/]+)/(?P<name>.+)-(?P<ordinal>0|[1-9][0-9]{0,9})")


def release(
    what: Annotated[
        str,
        typer.Argument(
            metavar="ADDRESS|POD",
            autocompletion=sources.complete_address,
            help="10.1.2.3, or web-0",
            show_default=False,
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

    typer.echo(f'Nothing proves it gone, and two holders of one address break both. If it is so, type "{oath}".')
    if typer.prompt(">", prompt_suffix=" ", default="", show_default=False) != oath:
        raise typer.Abort


def _release(source: Source, allocation: Allocation) -> bool:
    """Whether it is released; another version than the one shown is left alone."""
    from homeport.ports import Conflict

    left = released(allocation, at=source.now()) if allocation.phase is Phase.BOUND else None
    forced = " by force" if allocation.phase is Phase.BOUND else ""
    cause = f"released{forced} by {sources.user()}"
    try:
        if left is None:
            source.store.delete(allocation, cause=cause)
            typer.echo(f"{allocation.address} released")
        else:
            source.store.replace(left, cause=cause)
            typer.echo(f"{allocation.address} taken from its holder, and Retained for {allocation.slot.owner}")
    except Conflict:
        error: CniError = TryAgainLater(f"release {allocation.address}: it changed meanwhile")
        typer.echo(f"homeport: {error.msg}", err=True)
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


def _range_of(source: Source, address: IPAddress, network: str, scope: str | None) -> PoolRange | None:
    """The network's range that hands the address out; None where networks are not known."""
    if source.definitions is None:
        return None
    pool = source.pools().get(network)
    if pool is None:
        raise NoSuchObject(f'reserve {address}: no network "{network}" whose addresses are ours')
    for pooled in pool.ranges:
        if address in pooled.range and scope in (None, pooled.scope):
            return pooled
    found = ", ".join(str(r.range) for r in pool.ranges)
    raise InvalidNetConf(f'reserve {address}: network "{network}" does not hand it out, expected one of {found}')
