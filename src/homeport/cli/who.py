"""`homeport who`: whose an address is, was, and since when."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from homeport.cli import output, sources
from homeport.cli.ips import owner_of, view_of
from homeport.cli.output import Format
from homeport.cli.sources import Kubeconfig, LabName, Place, Scope, Source, StorePath
from homeport.ipam.allocations import Allocation
from homeport.model.addresses import IPAddress
from homeport.model.errors import InvalidNetConf

if TYPE_CHECKING:
    from homeport.ports import LedgerEntry
    from homeport.runtime.histories import Then

_LAST = 10  # changes that are shown unless more are asked for
_AGO = re.compile(r"(.+?)\s+ago")


def who(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", autocompletion=sources.complete_address)],
    at: Annotated[
        str, typer.Option(metavar="TIME", help='2026-11-23T14:00:00Z, or "3h ago".', show_default=False)
    ] = "",
    scope: Scope = None,
    every: Annotated[bool, typer.Option("--all", help=f"Every change, not only the last {_LAST}.")] = False,
    form: Annotated[Format, typer.Option("-o", "--output", help="Form of the output.")] = Format.TABLE,
    store: StorePath = None,
    lab: LabName = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Tell whose an address is, and whose it was.

    Exits with 1 when the ledger does not reach back to the time asked for.

    Example: homeport who 10.93.97.12

    Example: homeport who 10.93.97.12 --at "3h ago"
    """
    wanted = parse_address(address)
    with sources.opened(Place(store, lab, kubeconfig)) as source:
        then = parse_time(at, source.now()) if at else None
        if then is not None and then > source.now():
            raise typer.BadParameter(f"found {_written(then)}, expected a time that has been", param_hint="--at")
        histories = _histories(source, wanted, scope)
        if then is None:
            _show_present(wanted, histories, form, source.now(), last=None if every else _LAST)
        else:
            _show_then(wanted, histories, source, then, form)


def parse_address(text: str) -> IPAddress:
    """An address that a person typed, with or without a prefix length."""
    from homeport.ipam import ranges

    try:
        return ranges.parse_address(text.partition("/")[0], "ADDRESS")
    except InvalidNetConf as e:
        raise typer.BadParameter(f'found "{text}", expected an IP address', param_hint="ADDRESS") from e


def parse_time(text: str, now: datetime) -> datetime:
    """RFC 3339, or a duration before now."""
    from homeport.ipam.policies import parse_duration

    ago = _AGO.fullmatch(text.strip())
    try:
        if ago is not None:
            return now - parse_duration(ago[1].replace(" ", ""), "--at")
        found = datetime.fromisoformat(text.strip())
        return found if found.tzinfo is not None else found.astimezone()
    except (ValueError, OverflowError, InvalidNetConf) as e:
        expected = 'a time such as 2026-11-23T14:00:00Z, or "3h ago"'
        raise typer.BadParameter(f'found "{text}", expected {expected}', param_hint="--at") from e


History = tuple[Allocation | None, Sequence["LedgerEntry"]]
"""What stands at an address in one scope now, and the ledger's entries about it, oldest first."""


def _histories(source: Source, address: IPAddress, scope: str | None) -> Mapping[str, History]:
    """By scope: the one asked for, else those that the ledger or a network knows of the address."""
    from homeport.runtime.histories import scope_of

    with output.progress("reading the ledger"):
        entries = list(source.store.ledger(address=address))
    if scope is not None:
        scopes = [scope]
    else:
        known = [r.scope for _, pool in source.pools() for r in pool.ranges if address in r.range.span]
        scopes = list(dict.fromkeys(["", *known, *map(scope_of, entries)]))
    found = {s: (source.store.get(s, address), [e for e in entries if scope_of(e) == s]) for s in scopes}
    said = {s: history for s, history in found.items() if history[0] is not None or history[1]}
    return said or {scopes[0]: (None, ())}


def _show_present(
    address: IPAddress, histories: Mapping[str, History], form: Format, now: datetime, *, last: int | None
) -> None:
    if form in (Format.JSON, Format.YAML):
        value = [
            {"scope": scope, "now": view_of(a) if a else None, "history": [_entry(e) for e in entries]}
            for scope, (a, entries) in histories.items()
        ]
        output.show(form, value, headers=(), rows=())
        return
    for scope, (allocation, entries) in histories.items():
        typer.echo(sentence(address, scope, allocation, now))
        if form is Format.NAME or not entries:
            continue
        shown = entries[-last:] if last is not None else entries
        typer.echo("")
        typer.echo(output.table(["time", "phase", "pod", "network", "node", "cause"], [_row(e) for e in shown]))
        if len(shown) < len(entries):
            typer.echo(f"{len(entries) - len(shown)} earlier changes: --all")


def _show_then(
    address: IPAddress, histories: Mapping[str, History], source: Source, at: datetime, form: Format
) -> None:
    from homeport.runtime.histories import at_time

    reaches = None
    if any(not any(e.at <= at for e in entries) for _, entries in histories.values()):
        with output.progress("reading the ledger"):
            reaches = next((e.at for e in source.store.ledger(until=at)), None) or next(
                (e.at for e in source.store.ledger()), None
            )
    answers = {s: at_time(entries, now, at, reaches) for s, (now, entries) in histories.items()}
    if form in (Format.JSON, Format.YAML):
        output.show(form, [_then(s, t) for s, t in answers.items()], headers=(), rows=())
    else:
        for scope, then in answers.items():
            typer.echo(_sentence_then(address, scope, then, at))
    if not all(then.certain for then in answers.values()):
        raise typer.Exit(1)


def sentence(address: IPAddress, scope: str, allocation: Allocation | None, now: datetime) -> str:
    """Whose it is now, in a line."""
    place = f"{address} in scope {scope}" if scope else str(address)
    if allocation is None:
        return f"{place} is nobody's"
    since = f"for {output.age(allocation.since, now)}, since {_written(allocation.since)}"
    return f"{place} is {described(allocation)}, {since}"


def described(allocation: Allocation) -> str:
    """`Bound: testnamespace/web-0, net1 on multustest, node node-1`."""
    owner = owner_of(allocation)
    whose = f"{owner.namespace}/{owner.pod}" if owner.pod else f"container {owner.container_id[:13]}"
    words = [f"{allocation.phase.value}: {whose}", f"{allocation.slot.ifname} on {allocation.slot.network}"]
    if allocation.holder is not None:
        words.append(f"node {allocation.holder.node}")
    if allocation.mac:
        words.append(f"MAC {allocation.mac}")
    return ", ".join(words)


def _sentence_then(address: IPAddress, scope: str, then: Then, at: datetime) -> str:
    place = f"{address} in scope {scope}" if scope else str(address)
    if not then.certain:
        return f"{place} at {_written(at)}: unknown: {then.why}"
    if then.allocation is None:
        return f"{place} at {_written(at)}: nobody's"
    last = f" ({then.entry.cause}, {_written(then.entry.at)})" if then.entry is not None else ""
    return f"{place} at {_written(at)}: {described(then.allocation)}{last}"


def _row(entry: LedgerEntry) -> Sequence[str]:
    subject = entry.after or entry.before
    assert subject is not None
    owner = owner_of(subject)
    held = subject.holder or (entry.before.holder if entry.before is not None else None)
    return [
        _written(entry.at),
        entry.after.phase.value if entry.after is not None else "Released",
        f"{owner.namespace}/{owner.pod}" if owner.pod else owner.container_id[:13],
        f"{subject.slot.network}/{subject.slot.ifname}",
        held.node if held is not None else "",
        entry.cause,
    ]


def _entry(entry: LedgerEntry) -> dict[str, Any]:
    return {
        "at": entry.at,
        "cause": entry.cause,
        "before": view_of(entry.before) if entry.before is not None else None,
        "after": view_of(entry.after) if entry.after is not None else None,
    }


def _then(scope: str, then: Then) -> dict[str, Any]:
    return {
        "scope": scope,
        "known": then.certain,
        "why": then.why,
        "allocation": view_of(then.allocation) if then.allocation is not None else None,
        "change": _entry(then.entry) if then.entry is not None else None,
    }


def _written(at: datetime) -> str:
    """RFC 3339 in UTC; to the second."""
    from datetime import UTC

    return f"{at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='seconds')}Z"
