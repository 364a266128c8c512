"""A plan and what then happens: the addresses that whereabouts hands out, in the plan's order, are the plan's."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from ipaddress import ip_address
from typing import Any

import msgspec
from hypothesis import event, given, settings
from hypothesis import strategies as st
from tests.stand_ins import StandingClock, World, attachment_of, netconf, shells_on

from homeport.ipam.identities import Replica, Workload
from homeport.ipam.planning import Ask, Crowd, Demand, Plan, make_plan
from homeport.ipam.pools import Pool, parse_pool
from homeport.ipam.ranges import Range
from homeport.ipam.reservations import Reservation, reservations_of
from homeport.model.addresses import IPAddress
from homeport.model.errors import CniError
from homeport.plugins import whereabouts
from homeport.ports import AlreadyExists
from homeport.stores.memory import MemoryStore

V4 = {"range": "10.0.0.0/28"}
RANGES: list[Mapping[str, Any]] = [
    V4,
    {**V4, "range_start": "10.0.0.4", "range_end": "10.0.0.9"},
    {**V4, "exclude": ["10.0.0.2", "10.0.0.8/30"], "gateway": "10.0.0.1"},
    {**V4, "ipRanges": [{"range": "fd00::/123", "exclude": ["fd00::1/128"]}]},
    {**V4, "ipRanges": [{"range": "10.0.1.0/29"}, {"range": "10.0.0.0/28", "range_start": "10.0.0.8"}]},
    {**V4, "ipRanges": [V4]},
    {"ipRanges": [{"range": "fd00::/124"}, {"range": "10.0.0.4-10.0.0.7/28"}], "network_name": "blue"},
]
MAPPED = ["10.0.0.5", "10.0.0.6", "10.0.0.4", "10.0.0.7"]


class Sets(msgspec.Struct, frozen=True):
    """A StatefulSet: so many replicas from that ordinal, of which some had run before."""

    name: str
    replicas: int
    start: int
    before: tuple[int, ...]
    mapped: int  # entries of its map, 0 for none


sets = st.builds(
    Sets,
    st.just(""),
    st.integers(0, 5),
    st.sampled_from([0, 0, 3]),
    st.lists(st.integers(0, 7), unique=True, max_size=3).map(tuple),
    st.sampled_from([0, 0, 0, 2, 4]),
)


class Trial:
    """One network of a cluster, and its controller's reservations."""

    def __init__(self, ipam: Mapping[str, Any]) -> None:
        self.world = World()
        self.clock = StandingClock()
        self.store = MemoryStore(now=self.clock.now)
        self.conf = netconf(ipam)
        self.pool: Pool = parse_pool(ipam, network="multustest")
        self._containers = 0

    def replica(self, workload: Workload, ordinal: int) -> list[IPAddress] | None:
        """The replica's new pod; None when its ADD fails."""
        return self._add(attachment_of(self.world.start(workload, ordinal), self._container()))

    def stranger(self, name: str) -> list[IPAddress] | None:
        return self._add(attachment_of(self.world.start_stranger(name), self._container()))

    def mapped(self, workloads: list[Workload]) -> list[Reservation]:
        """What all maps ask for; a map that cannot be right asks for nothing."""
        found: list[Reservation] = []
        for workload in workloads:
            with suppress(CniError):
                found += reservations_of(self.pool, self.world.workloads[workload], ifname="net1")
        return found

    def reserve(self, workloads: list[Workload]) -> None:
        """As the controller does, which has no need to be asked."""
        for reservation in self.mapped(workloads):
            try:
                self.store.create(reservation.allocation(self.clock.now()), cause="reserved by a map")
            except AlreadyExists:
                continue

    def _add(self, attachment: Any) -> list[IPAddress] | None:
        shells = shells_on("n1", self.store, world=self.world, clock=self.clock)
        try:
            with shells.host.operation():
                return [ip.address.ip for ip in whereabouts.add(self.conf, attachment, shells).ips]
        except CniError as error:
            event(type(error).__name__)
            return None

    def _container(self) -> str:
        self._containers += 1
        return f"c{self._containers}"

    def ask(self) -> Ask:
        return Ask(network="multustest", ifname="net1", pool=self.pool)


def planned(plan: Plan, replica: Replica) -> list[IPAddress] | None:
    """None where the plan says that ADD fails."""
    lines = [line for line in plan.lines if line.slot.owner == replica]
    if any(line.address is None for line in lines):
        return None
    return [line.address.ip for line in lines if line.address is not None]


@settings(deadline=None)
@given(
    st.sampled_from(RANGES),
    st.sampled_from(["ordinal", "ordinal", "lowest"]),
    st.lists(sets, min_size=1, max_size=3),
    st.integers(0, 4),
    st.integers(0, 4),
    st.booleans(),
)
def test_a_plan_comes_true(
    ipam: Mapping[str, Any], order: str, wanted: list[Sets], strangers: int, crowd: int, annotated: bool
) -> None:
    usable = [r for r in parse_pool(ipam, network="n").plain_ranges if ip_address(MAPPED[0]) in r]
    named = [msgspec.structs.replace(one, name=f"set{n}") for n, one in enumerate(wanted)]
    maps = {f"ns/{one.name}": mapped_of(one, n, usable) for n, one in enumerate(named) if one.mapped}
    sticky: dict[str, Any] = {"order": order} if annotated else {"order": order, "replicas": maps}
    try:
        trial = Trial({**ipam, "sticky": sticky})
    except CniError:  # an address in two maps, which the network itself refuses
        event("refused")
        return
    workloads = []
    for one in named:
        entries = maps.get(f"ns/{one.name}")
        notes = {}
        if annotated and entries is not None:
            notes = {"homeport.dev/addresses": msgspec.json.encode({"multustest": entries}).decode()}
        workloads.append(trial.world.scale(one.name, one.replicas, start=one.start, annotations=notes))
    for number in range(strangers):
        trial.stranger(f"early-{number}")
    for one, workload in zip(named, workloads, strict=True):
        for ordinal in one.before:
            trial.replica(workload, ordinal)
    demands = [
        Demand(replica=Replica(workload, ordinal), state=trial.world.workloads[workload], asks=(trial.ask(),))
        for one, workload in zip(named, workloads, strict=True)
        for ordinal in range(one.start, one.start + one.replicas)
    ]
    many = Crowd(workload=Workload("ns", "Deployment", "many"), count=crowd, asks=(trial.ask(),))
    reservations = trial.mapped(workloads)
    plan = make_plan(demands, [many], tuple(trial.store.all()), at=trial.clock.now(), reservations=reservations)
    trial.reserve(workloads)
    for demand in demands:
        got = trial.replica(demand.replica.workload, demand.replica.ordinal)
        assert got == planned(plan, demand.replica), (str(demand.replica), plan.lines)
        assert (got is None) <= bool(plan.clashes), "who gets no address is a clash"
    got_by_crowd = [trial.stranger(f"many-{number}") for number in range(crowd)]
    found = {address for addresses in got_by_crowd for address in addresses or ()}
    spans = [span for line in plan.crowds for span in line.spans]
    if None not in got_by_crowd:
        assert sum(span.size for span in spans) == len(found)
        assert all(any(address in span for span in spans) for address in found)
    else:
        assert any("many" in clash for clash in plan.clashes)


def mapped_of(one: Sets, number: int, usable: list[Range]) -> list[str]:
    """The map's entries; of every second set they are the first set's, which is a clash where both run."""
    shift = number % 2
    return [text for text in MAPPED[shift : shift + one.mapped] if any(ip_address(text) in r for r in usable)]
