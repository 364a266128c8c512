"""Doctor on a lab: what its sandboxes have against what its allocations say. I/O: reads the lab's files alone.

A lab's nodes have neither daemon nor runtime, and their namespaces are the keeper's: `homeport lab` looks after those.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from homeport.cni import conflists
from homeport.doctor.findings import Diagnosis, Report, Severity, Sure, report
from homeport.ipam.allocations import Allocation, Phase
from homeport.lab import places, sessions
from homeport.lab.objects import Sandbox
from homeport.lab.storing import State
from homeport.model.errors import CniError, NoSuchObject
from homeport.stores.opening import check_whole
from homeport.stores.schema import ALLOCATIONS
from homeport.stores.sqlite import read_allocations


def examine(name: str) -> Report:
    """Of the lab of that name; raises `NoSuchObject` when there is none."""
    where = places.of_lab(name)
    if not sessions.exists(where):
        raise NoSuchObject(f'find lab "{name}": there is none', "start one: homeport lab up -f FILE")
    place = f'lab "{name}"'
    if not where.allocations.exists():
        return report(place, [])
    try:
        check_whole(where.allocations, ALLOCATIONS)
    except CniError as e:
        return report(place, [_damaged(where.allocations, e)])
    state = State(where.state)
    try:
        # Sandboxes first: what has come into one since is not missed.
        sandboxes = state.all(Sandbox)
    finally:
        state.close()
    return report(place, diagnose(name, sandboxes, read_allocations(where.allocations)))


def diagnose(name: str, sandboxes: Iterable[Sandbox], allocations: Iterable[Allocation]) -> Iterator[Diagnosis]:
    """Pure."""
    bound = [one for one in allocations if one.phase is Phase.BOUND]
    held = {(str(one.address), one.holder.container_id) for one in bound if one.holder is not None}
    known = {sandbox.container_id: sandbox for sandbox in sandboxes}
    for sandbox in known.values():
        for attached in sandbox.attachments:
            for address in attached.addresses if _has_ranges(attached.conflist) else ():
                if (address.partition("/")[0], sandbox.container_id) not in held:
                    yield _unguarded(name, sandbox, attached.ifname, address)
    for one in bound:
        if one.holder is not None and one.holder.container_id not in known:
            yield _unaccounted(name, one)


def _has_ranges(conflist: str) -> bool:
    """Whether the network's addresses are of allocations, and not of host-local's files or written down."""
    ipams = (plugin.get("ipam") for plugin in conflists.parse(conflist.encode()).plugins)
    return any(isinstance(ipam, dict) and ipam.get("type") == "whereabouts" for ipam in ipams)


def _unguarded(name: str, sandbox: Sandbox, ifname: str, address: str) -> Diagnosis:
    return Diagnosis(
        id="address-unguarded",
        severity=Severity.ERROR,
        sure=Sure.CERTAIN,
        place=f"{ifname} of pod {sandbox.ref} on node {sandbox.node}",
        found=f"{address}, which no allocation has for it",
        expected="an allocation that is Bound to it",
        why="the next pod may be given the address too",
        run=(f"homeport lab delete --lab {name} pod {sandbox.ref.name}",),
    )


def _unaccounted(name: str, one: Allocation) -> Diagnosis:
    return Diagnosis(
        id="allocation-unaccounted",
        severity=Severity.WARNING,
        sure=Sure.LIKELY,
        place=f"address {one.address}",
        found=f"Bound to {one.slot.ifname} of {one.slot.owner}, whose sandbox is gone",
        expected="a sandbox, or a free address",
        why="it is kept for an interface that is gone; the lab's garbage collection lets it go",
        run=(
            f"homeport who --lab {name} {one.address}",
            f"homeport release --lab {name} {one.address} --force --dry-run",
        ),
    )


def _damaged(path: Path, error: CniError) -> Diagnosis:
    return Diagnosis(
        id="database-damaged",
        severity=Severity.ERROR,
        sure=Sure.CERTAIN,
        place=str(path),
        found=str(error),
        expected="a whole database of this version",
        why="no address of the lab can be given or returned",
        run=("homeport lab down",),
    )
