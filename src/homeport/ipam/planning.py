"""Every replica's address on every network before anything runs, and what would be in the way. No I/O.

The plan makes the decisions that the nodes will make (`ipam.deciding`), against what is allocated now and what was
planned before, in the order given. Where the outcome hangs on who starts first it says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

import msgspec

from homeport.ipam import foreseeing, rooms
from homeport.ipam.allocations import Allocation, Phase
from homeport.ipam.boards import PlanBoard
from homeport.ipam.deciding import AlreadyHeld, Create, Examine, Exhausted, Take, Taken, Want
from homeport.ipam.foreseeing import Foreseen
from homeport.ipam.identities import Holder, PodOwner, Replica, Slot, Workload
from homeport.ipam.moving import Wait
from homeport.ipam.objects import WorkloadState
from homeport.ipam.pools import Pool
from homeport.ipam.ranges import Span, merge_spans
from homeport.ipam.reservations import Reservation
from homeport.ipam.rooms import Fit, Room, Surge
from homeport.ipam.wants import wants_of
from homeport.model.addresses import IPAddress, IPInterface
from homeport.model.errors import CniError

_NOBODY = Holder(container_id="", ifname="", netns_path="", node="")


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What one interface is to have: addresses of `pool`, and those that are `fixed`.

    `wire` names the link it is on: what is fixed on one wire must differ. `unknown` says who else gives the address,
    where neither we nor the configuration do.
    """

    network: str
    ifname: str
    pool: Pool | None = None
    fixed: tuple[IPInterface, ...] = ()
    wire: str = ""
    unknown: str = ""


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """One replica, and its interfaces in order."""

    replica: Replica
    state: WorkloadState
    asks: tuple[Ask, ...]


class Crowd(msgspec.Struct, frozen=True, kw_only=True):
    """Pods without an identity: `count` at rest, and what `surge` says while they are replaced.

    `theirs` are allocations that pods of it have now.
    """

    workload: Workload
    count: int
    surge: Surge = Surge()
    asks: tuple[Ask, ...]
    theirs: tuple[Allocation, ...] = ()


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One address of one replica; None where it gets none, or none that we know. `how` says why it is that one.

    `kept`: nobody else can have it, whoever starts first.
    """

    slot: Slot
    address: IPInterface | None
    how: str
    kept: bool = True


class CrowdLine(msgspec.Struct, frozen=True, kw_only=True):
    """What a crowd would have on one interface if it started now."""

    workload: Workload
    network: str
    ifname: str
    spans: tuple[Span, ...]
    how: str


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """`clashes` come true in whatever order things start; `notes` only in some."""

    lines: tuple[Line, ...]
    crowds: tuple[CrowdLine, ...]
    rooms: tuple[Room, ...]
    fits: tuple[Fit, ...]
    clashes: tuple[str, ...]
    notes: tuple[str, ...]


def make_plan(
    demands: Sequence[Demand],
    crowds: Sequence[Crowd],
    allocated: Sequence[Allocation],
    *,
    at: datetime,
    reservations: Sequence[Reservation] = (),
    clashes: Sequence[str] = (),
) -> Plan:
    """Replicas first, in the order given, then crowds. `allocated` is all that is allocated now.

    `reservations` are what all maps ask for, `clashes` those that were found before: pods that cannot start whatever is
    allocated.
    """
    planner = _Planner(allocated, at, clashes)
    planner.reserve(reservations)
    for demand in demands:
        for ask in demand.asks:
            planner.place(demand, ask)
    for crowd in crowds:
        for ask in crowd.asks:
            planner.gather(crowd, ask)
    return planner.plan(demands, crowds)


class _Planner:
    """The plan as far as it is made."""

    def __init__(self, allocated: Sequence[Allocation], at: datetime, clashes: Sequence[str]) -> None:
        self._at = at
        self._now = frozenset((a.scope, a.address) for a in allocated)
        self._board = PlanBoard(allocated)
        self._fixed: dict[tuple[str, IPAddress], str] = {}
        # The slots of each map: of one interface of a workload on a network.
        self._entries: dict[tuple[Workload, str, str], set[Slot]] = {}
        self._numbered: set[tuple[str, IPAddress]] = set()  # planned for the replica whose number it is
        self._surges: dict[rooms.Key, int] = {}
        self._exhausted: set[rooms.Key] = set()  # a clash has said it
        self._lines: list[Line] = []
        self._crowds: list[CrowdLine] = []
        self._clashes: dict[str, None] = dict.fromkeys(clashes)
        self._notes: dict[str, None] = {}

    # --- replicas ---

    def reserve(self, reservations: Sequence[Reservation]) -> None:
        """What maps give is kept before anything starts."""
        for reservation in reservations:
            slot = reservation.slot
            assert slot.workload is not None
            self._entries.setdefault((slot.workload, slot.network, slot.ifname), set()).add(slot)
            present = self._board.get(reservation.scope, reservation.address)
            if present is None:
                self._board.put(reservation.allocation(self._at))
            elif present.slot != slot and not self._is_now(present):
                self._clash(f"{reservation.address} is mapped both to {present.slot.owner} and to {slot.owner}")

    def place(self, demand: Demand, ask: Ask) -> None:
        """The addresses of one interface of a replica; the first that it cannot have ends it."""
        slot = Slot(demand.replica, ask.network, ask.ifname)
        for fixed in ask.fixed:
            self._fix(ask, fixed, str(demand.replica))
            self._line(slot, fixed, "given in full")
        if ask.pool is None:
            if not ask.fixed:
                self._line(slot, None, ask.unknown)
            return
        try:
            wants = wants_of(
                ask.pool,
                slot,
                _NOBODY,
                state=demand.state,
                workload_uid=demand.state.uid,
                avoid=[a.ip for a in ask.fixed],
            )
        except CniError as error:
            self._fail(slot, error.msg)
            return
        known = self._board.of_slot(slot)
        earlier: list[tuple[str, IPAddress]] = []
        for want in wants:
            held = foreseeing.held_for(ask.pool, known, earlier)
            address = self._place(foreseeing.next_want(want, earlier), held, demand)
            if address is None:
                return
            earlier.append((want.scope, address))

    def _place(self, want: Want, held: Allocation | None, demand: Demand) -> IPAddress | None:
        """The address of one range."""
        outcome = foreseeing.foresee(want, held, self._board)
        match outcome:
            case Create(address=address):
                how = self._how_created(want, address, demand.state)
                line = Line(slot=want.slot, address=want.range.interface(address), how=how, kept=want.mapped == address)
                previous = None
            case Take(previous=previous):
                address = previous.address
                how = self._how_taken(want, previous)
                line = Line(slot=want.slot, address=want.range.interface(address), how=how)
            case AlreadyHeld(allocation=previous) | Examine(allocation=previous):
                address = previous.address
                line = Line(slot=want.slot, address=want.range.interface(address), how=self._how_held(want, previous))
            case _:
                self._fail(want.slot, refusal(want, outcome))
                return None
        self._lines.append(line)
        self._board.put(want.bound(previous, address, self._at))
        return address

    def _how_created(self, want: Want, address: IPAddress, state: WorkloadState) -> str:
        if address == want.mapped:
            return "mapped"
        if address == want.preferred:
            self._numbered.add((want.scope, address))
            return numbered(want, state)
        if want.preferred is None:
            return "lowest free"
        owner, present = want.slot.owner, self._board.get(want.scope, want.preferred)
        if present is None:
            return f"lowest free: {want.preferred} is kept for another"
        if self._is_now(present):
            by = f"{want.preferred} is {present.phase.value} for {present.slot.owner}"
            self._clash(f"{owner} cannot have its number: {by}")
            return f"lowest free: {by}"
        if (want.scope, want.preferred) in self._numbered:
            self._clash(f"{present.slot.owner} and {owner} both come to {want.preferred}: who starts first has it")
        elif present.phase is not Phase.RESERVED:
            self._clash(f"{owner} cannot have its number: {want.preferred} goes to {present.slot.owner}")
        return f"lowest free: {want.preferred} is planned for {present.slot.owner}"

    def _how_taken(self, want: Want, previous: Allocation) -> str:
        if not self._is_now(previous):
            return "mapped"
        since = f"{previous.phase.value} for {_whose(previous, want)} since {previous.since:%Y-%m-%d %H:%M} UTC"
        return f"mapped; {since}" if previous.address == want.mapped else since

    def _how_held(self, want: Want, held: Allocation) -> str:
        if held.holder is not None:
            return f"has it now on {held.holder.node}"
        since = f"Quarantined since {held.since:%Y-%m-%d %H:%M} UTC"
        self._notes[f"{want.slot.owner} waits while a stranger answers for {held.address}: {since}"] = None
        return since

    def _fail(self, slot: Slot, why: str) -> None:
        self._line(slot, None, why)
        self._clash(f"{slot.owner} gets no address on {slot.network}/{slot.ifname}: {why}")

    # --- the others ---

    def gather(self, crowd: Crowd, ask: Ask) -> None:
        """The addresses of one interface of a crowd's pods."""
        name = written(crowd.workload)
        for fixed in ask.fixed:
            self._fix(ask, fixed, name)
            if crowd.count + crowd.surge.of(crowd.count) > 1:
                self._clash(f"{fixed.ip} is given to every pod of {name}")
            self._crowd_line(crowd, ask, [fixed.ip], "given in full")
        if ask.pool is None:
            if not ask.fixed:
                self._crowd_line(crowd, ask, [], ask.unknown)
            return
        slot = Slot(PodOwner(crowd.workload.namespace, crowd.workload.name, ""), ask.network, ask.ifname)
        for want in wants_of(ask.pool, slot, _NOBODY, avoid=[a.ip for a in ask.fixed]):
            self._gather(crowd, ask, want)

    def _gather(self, crowd: Crowd, ask: Ask, want: Want) -> None:
        """The addresses of one range."""
        theirs = [
            a.address
            for a in crowd.theirs
            if (a.scope, a.slot.network, a.slot.ifname) == (want.scope, ask.network, ask.ifname)
            and a.address in want.range.span
        ]
        found = theirs[: crowd.count]
        while len(found) < crowd.count:
            outcome = foreseeing.foresee(want, None, self._board)
            if not isinstance(outcome, Create):
                self._clash(
                    f"{written(crowd.workload)} finds {len(found)} of {crowd.count} addresses: "
                    + refusal(want, outcome)
                )
                self._exhausted.add((want.scope, want.range.span))
                break
            self._board.put(want.bound(None, outcome.address, self._at))
            found.append(outcome.address)
        key = (want.scope, want.range.span)
        self._surges[key] = self._surges.get(key, 0) + crowd.surge.of(crowd.count)
        free = "free, from the slice of its node" if ask.pool is not None and ask.pool.slice_prefix else "lowest free"
        self._crowd_line(crowd, ask, found, f"{free}; {len(theirs)} theirs now" if theirs else free)
        self._note_race(crowd, want, new=len(found) - len(theirs))

    def _note_race(self, crowd: Crowd, want: Want, *, new: int) -> None:
        """Who takes the lowest may be before a replica whose number is nobody's yet."""
        open_ = [line for line in self._lines if not line.kept and line.address and line.address.ip in want.range]
        if new > 0 and open_:
            owner, address = open_[0].slot.owner, open_[0].address
            assert address is not None
            self._notes[
                f"{written(crowd.workload)} takes the lowest free of {want.range.span}: started before {owner}, it "
                f"may have {address.ip}; a map keeps it from others"
            ] = None

    # --- the whole ---

    def plan(self, demands: Sequence[Demand], crowds: Sequence[Crowd]) -> Plan:
        asked = [*(d.asks for d in demands), *(c.asks for c in crowds)]
        pools = {id(ask.pool): ask.pool for asks in asked for ask in asks if ask.pool is not None}
        found = rooms.rooms_of(pools.values(), self._now, self._board.present.keys(), self._surges)
        for key, room in found.items():
            if room.left < 0 and key not in self._exhausted:
                left = room.left + room.surge
                self._notes[
                    f"replacing pods at once takes up to {room.surge} more of {room.span}, which has {left} left: "
                    "it then goes by fewer at a time, or waits"
                ] = None
        return Plan(
            lines=tuple(self._lines),
            crowds=tuple(self._crowds),
            rooms=tuple(found.values()),
            fits=tuple(self._fits(demands, crowds, found)),
            clashes=tuple(self._clashes),
            notes=tuple(self._notes),
        )

    def _fits(
        self, demands: Sequence[Demand], crowds: Sequence[Crowd], found: Mapping[rooms.Key, Room]
    ) -> Iterator[Fit]:
        """Of workloads whose replicas are all on the same networks; of others nobody knows what one more asks for."""
        of_workload: dict[Workload, list[Demand]] = {}
        for demand in demands:
            of_workload.setdefault(demand.replica.workload, []).append(demand)
        for workload, replicas in of_workload.items():
            asks = replicas[0].asks
            if any(demand.asks != asks for demand in replicas):
                continue
            interfaces = [
                rooms.Interface(ask.pool, len(self._entries.get((workload, ask.network, ask.ifname), ())) or None)
                for ask in asks
                if ask.pool is not None
            ]
            if interfaces:
                yield rooms.fit_of(written(workload), len(replicas), interfaces, found)
        for crowd in crowds:
            interfaces = [rooms.Interface(ask.pool) for ask in crowd.asks if ask.pool is not None]
            if interfaces:
                yield rooms.fit_of(written(crowd.workload), crowd.count, interfaces, found, crowd.surge)

    def _fix(self, ask: Ask, address: IPInterface, owner: str) -> None:
        other = self._fixed.setdefault((ask.wire, address.ip), owner)
        if other != owner:
            self._clash(f"{address.ip} is given to both {other} and {owner}")

    def _line(self, slot: Slot, address: IPInterface | None, how: str) -> None:
        self._lines.append(Line(slot=slot, address=address, how=how))

    def _crowd_line(self, crowd: Crowd, ask: Ask, addresses: Sequence[IPAddress], how: str) -> None:
        spans = merge_spans(Span(a, a) for a in addresses)
        line = CrowdLine(workload=crowd.workload, network=ask.network, ifname=ask.ifname, spans=spans, how=how)
        self._crowds.append(line)

    def _clash(self, text: str) -> None:
        self._clashes[text] = None

    def _is_now(self, allocation: Allocation) -> bool:
        return (allocation.scope, allocation.address) in self._now


def numbered(want: Want, state: WorkloadState | None = None) -> str:
    """The arithmetic of R4, for a replica's want that prefers an address."""
    assert isinstance(want.slot.owner, Replica)
    ordinal, start = want.slot.owner.ordinal, state.ordinals_start if state is not None else 0
    number = f"{ordinal} - {start} = {ordinal - start}" if start else str(ordinal)
    return f"number {number} of {want.range.span}"


def refusal(want: Want, outcome: Foreseen) -> str:
    """Why the want is not served."""
    match outcome:
        case Wait(reason=reason):
            return reason
        case Taken(by=by):
            return f"{by.address} is {by.phase.value} for {by.slot.owner}"
        case Exhausted():
            return f"all {want.range.usable} addresses of {want.range.span} are taken"
    raise AssertionError(outcome)


def written(workload: Workload) -> str:
    """As a person writes it: `deployment/visitor`, with the namespace where it is not the usual one."""
    name = f"{workload.kind.lower()}/{workload.name}"
    return name if workload.namespace == "default" else f"{workload.namespace}/{name}"


def _whose(previous: Allocation, want: Want) -> str:
    return "it" if previous.slot == want.slot else str(previous.slot.owner)
