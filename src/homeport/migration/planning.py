"""Which allocations Whereabouts' records make. No I/O.

An entry becomes an allocation only where everything that speaks of it agrees: its pool belongs to a network that is
defined, its pod lives and has the address on that interface by its own network-status, and nobody else has it. Where
anything disagrees, it is a conflict, and a person decides.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress

import msgspec

from homeport.cni import documents
from homeport.ipam.allocations import Allocation, Phase
from homeport.ipam.identities import Holder, Owner, PodOwner, Replica, Slot, Workload
from homeport.ipam.objects import Pod, WorkloadState
from homeport.ipam.policies import Policy, retention_for
from homeport.ipam.pools import PoolRange
from homeport.ipam.replicas import replica_of
from homeport.ipam.whereabouts import (
    ForeignPool,
    PoolEntry,
    Reservation,
    is_of_network,
    is_ours,
    reservation_name,
    split_scope,
)
from homeport.migration.facts import Extent, Facts, Import, Network, Origin, Plan, Reason, Skipped
from homeport.model.addresses import IPAddress, MacAddress, parse_mac
from homeport.model.errors import CniError
from homeport.model.names import PodRef
from homeport.multinet import statuses

Found = Import | Skipped


class Doubt(Exception):
    """Nobody can tell whose an entry is; the text says why."""


class _Status(msgspec.Struct, frozen=True):
    name: str = ""
    interface: str = ""
    ips: tuple[str, ...] = ()
    mac: str = ""


class Use(msgspec.Struct, frozen=True):
    """What a pod says of an address: the network's definition, the interface, its MAC."""

    definition: str
    ifname: str
    mac: MacAddress | None


class _Case(msgspec.Struct, frozen=True, kw_only=True):
    """One entry, and what is known of it so far. `networks` are those that give out of its pool; at least one."""

    facts: Facts
    address: IPAddress
    entry: PoolEntry
    networks: tuple[Network, ...]
    scope: str
    origin: Origin

    @property
    def names(self) -> str:
        return ", ".join(n.definition for n in self.networks)

    def imported(self, slot: Slot, holder: Holder | None, why: str) -> Import:
        allocation = Allocation(
            scope=self.scope,
            address=self.address,
            slot=slot,
            phase=Phase.BOUND if holder is not None else Phase.RETAINED,
            holder=holder,
            since=self.facts.now,
        )
        return Import(allocation=allocation, origin=self.origin, why=why)


def plan(facts: Facts, extent: Extent) -> Plan:
    """The whole plan; the same facts give the same."""
    found: list[Found] = [
        Skipped(reason=Reason.CONFLICT, where=text.partition(":")[0], told=text) for text in facts.unreadable
    ]
    for pool in facts.pools:
        found += _of_pool(pool, facts)
    found += _of_reservations(facts)
    imports = sorted((f for f in found if isinstance(f, Import)), key=_order)
    agreed, clashes = _without_clashes(imports, facts)
    taken: list[Import] = []
    left: list[Skipped] = []
    for one in agreed:
        if extent.covers(one.allocation) or one.known is not None:
            taken.append(one)
        else:
            left.append(_skipped(one, Reason.LEFT, one.why))
    skipped = [*(f for f in found if isinstance(f, Skipped)), *clashes, *left]
    return Plan(imports=tuple(taken), skipped=tuple(skipped))


def _of_pool(pool: ForeignPool, facts: Facts) -> Iterator[Found]:
    where = f'IPPool "{pool.name}"'
    for key in pool.unreadable:
        told = f'found key "{key}", which Whereabouts itself does not read, expected a number'
        yield Skipped(reason=Reason.CONFLICT, where=where, told=told)
    networks = _networks_of(pool, facts)
    for address, entry in pool.entries.items():
        if is_ours(entry):
            continue
        try:
            yield _of_entry(pool, address, entry, networks, facts)
        except Doubt as e:
            yield Skipped(reason=Reason.CONFLICT, where=where, told=str(e), address=address)


def _of_entry(
    pool: ForeignPool, address: IPAddress, entry: PoolEntry, networks: tuple[Network, ...], facts: Facts
) -> Found:
    namespace, slash, name = entry.podref.partition("/")
    if not (namespace and slash and name) or "/" in name or not entry.id:
        raise Doubt(f"found {documents.shown(entry.raw)}, expected a container ID and the pod's NAMESPACE/NAME")
    if not networks:
        raise Doubt(f"no NetworkAttachmentDefinition has this range; the entry is of pod {entry.podref}")
    scopes = {_scope_of(n, pool, address) for n in networks}
    if len(scopes) > 1:
        names = ", ".join(n.definition for n in networks)
        raise Doubt(f"the networks {names} disagree on enable_overlapping_ranges, which says what it is unique in")
    if any(address == r.gateway for n in networks for r in n.pool.plain_ranges):
        raise Doubt(f"pod {entry.podref} has the gateway's address, which Homeport gives to nobody")
    scope, ref = scopes.pop(), PodRef(namespace, name)
    case = _Case(
        facts=facts,
        address=address,
        entry=entry,
        networks=networks,
        scope=scope,
        origin=_origin(pool, address, entry, scope, facts),
    )
    pod = facts.pods.get(ref)
    return _of_pod(case, pod) if pod is not None and not pod.finished else _of_no_pod(case, ref, pod)


def _of_pod(case: _Case, pod: Pod) -> Import:
    use = _the_use(pod, case.address, case.entry)
    network = next((n for n in case.networks if n.definition == use.definition), None)
    if network is None:
        raise Doubt(f"pod {pod.ref} has it of network {use.definition}, but the pool is of {case.names}")
    policy = network.pool.policy
    replica = replica_of(pod, policy.kinds) if policy is not None else None
    owner: Owner = replica or PodOwner(pod.ref.namespace, pod.ref.name, pod.uid)
    holder = Holder(
        container_id=case.entry.id, ifname=use.ifname, netns_path="", node=pod.node, pod_uid=pod.uid, mac=use.mac
    )
    why = f"pod {pod.ref}{f' on node {pod.node}' if pod.node else ''} has it"
    made = case.imported(Slot(owner, network.pool.network, use.ifname), holder, why)
    if replica is None or policy is None:
        return made
    state = case.facts.workloads.get(replica.workload)
    if state is None:  # it was deleted, and left its pods
        uid = pod.owner.uid if pod.owner is not None else ""
        state = WorkloadState(workload=replica.workload, uid=uid, replicas=0, annotations=pod.annotations)
    kept = msgspec.structs.replace(_kept(made.allocation, policy, state), mac=use.mac)
    return msgspec.structs.replace(made, allocation=kept, why=f"{why}; kept for this replica")


def _of_no_pod(case: _Case, ref: PodRef, pod: Pod | None) -> Found:
    """A replica that is wanted and just has no pod keeps the address; anybody else's is nobody's."""
    told = f"pod {ref} has finished" if pod is not None else f"there is no pod {ref}"
    replica = _replica_named(ref, case.facts)
    if replica is None or pod is not None or not case.entry.ifname:
        where = f'IPPool "{case.origin.pool}"'
        return Skipped(reason=Reason.NO_POD, where=where, told=told, address=case.address)
    sticky = [(n.pool, policy) for n in case.networks if (policy := n.pool.policy) is not None]
    if len(sticky) != 1:
        raise Doubt(f"{told}; replica {replica} may have it of one of {case.names}")
    pool, policy = sticky[0]
    slot = Slot(replica, pool.network, case.entry.ifname)
    made = case.imported(slot, None, f"{told} now; retained for replica {replica}")
    kept = _kept(made.allocation, policy, case.facts.workloads[replica.workload])
    return msgspec.structs.replace(made, allocation=kept)


def _kept(allocation: Allocation, policy: Policy, state: WorkloadState) -> Allocation:
    """A replica's, with what its workload asks for."""
    try:
        retention = retention_for(policy, state.workload, state.annotations)
    except CniError as e:
        raise Doubt(e.msg) from e
    return msgspec.structs.replace(allocation, retention=retention, workload_uid=state.uid)


def _replica_named(ref: PodRef, facts: Facts) -> Replica | None:
    """The replica of a StatefulSet that a pod of this name would be, if it is wanted."""
    name, _, ordinal = ref.name.rpartition("-")
    workload = Workload(ref.namespace, "StatefulSet", name)
    state = facts.workloads.get(workload)
    if state is None or not (ordinal.isascii() and ordinal.isdigit()) or str(int(ordinal)) != ordinal:
        return None
    return Replica(workload, int(ordinal)) if state.wants(int(ordinal)) and not state.deleting else None


def _networks_of(pool: ForeignPool, facts: Facts) -> tuple[Network, ...]:
    """The networks that give out of this pool: one of their ranges is the pool's, or has the slice that it is of."""
    return tuple(n for n in facts.networks if any(_is_of_range(pool, n, r, facts) for r in n.pool.ranges))


def _is_of_range(pool: ForeignPool, network: Network, pooled: PoolRange, facts: Facts) -> bool:
    network_name, subnet = split_scope(pooled.scope)[0], pooled.range.subnet
    if pool.prefix == network_name:
        return subnet == pool.subnet
    slices = [s for s in facts.slices if s.network in (network_name, network.pool.network)]
    return pool.base.ip in subnet and is_of_network(pool, network_name, slices)


def _scope_of(network: Network, pool: ForeignPool, address: IPAddress) -> str:
    """The scope of the network's range that the address is of, that of the pool's very range first."""
    ranges = [r for r in network.pool.ranges if address in r.range.subnet]
    return min(ranges, key=lambda r: r.range.subnet != pool.subnet).scope


def _the_use(pod: Pod, address: IPAddress, entry: PoolEntry) -> Use:
    uses = uses_of(pod, address)
    if not uses:
        raise Doubt(
            f"pod {pod.ref} lives, but its network-status does not have {address}: it is starting, or the entry is old"
        )
    fitting = [u for u in uses if entry.ifname in ("", u.ifname)]
    if len(fitting) != 1:
        found = ", ".join(f'"{u.ifname}"' for u in uses)
        raise Doubt(f'pod {pod.ref} has it on {found} by its network-status, the pool has "{entry.ifname}"')
    return fitting[0]


def uses_of(pod: Pod, address: IPAddress) -> list[Use]:
    """What the pod's network-status says of an address; raises `Doubt` for one that cannot be read."""
    at = f'annotation "{statuses.ANNOTATION}" of pod {pod.ref}'
    text = pod.annotations.get(statuses.ANNOTATION, "")
    if not text.strip():
        return []
    try:
        listed = documents.convert(documents.decode(text.encode(), at), tuple[_Status, ...], at=at)
    except CniError as e:
        raise Doubt(e.msg) from e
    return [Use(s.name, s.interface, _mac(s.mac)) for s in listed if str(address) in s.ips]


def _mac(text: str) -> MacAddress | None:
    with suppress(ValueError):
        return parse_mac(text)
    return None


def _origin(pool: ForeignPool, address: IPAddress, entry: PoolEntry, scope: str, facts: Facts) -> Origin:
    """Raises `Doubt` when the reservation of the address is another pod's."""
    key = pool.key(address)
    if key is None:
        raise Doubt(f"{address} cannot be written into this pool, although it stands there")
    network_name, subnet = split_scope(scope)
    name = reservation_name(network_name, address)
    reserved = facts.reservations.get(name) if subnet is None else None
    if reserved is None:
        return Origin(pool=pool.name, key=key, entry=entry.raw)
    if reserved.podref != entry.podref:
        raise Doubt(f"the pool has it for pod {entry.podref}, but its reservation is of {reserved.podref}")
    told = {"podref": reserved.podref, **({"ifname": reserved.ifname} if reserved.ifname else {})}
    return Origin(pool=pool.name, key=key, entry=entry.raw, reserved=told)


def _of_reservations(facts: Facts) -> Iterator[Skipped]:
    """Reservations of an address that no pool has: somebody alive may use it, or nobody does."""
    by_name: dict[str, IPAddress] = {}
    for pool in facts.pools:
        networks = _networks_of(pool, facts)
        network_names = {"", pool.prefix} | {split_scope(r.scope)[0] for n in networks for r in n.pool.ranges}
        by_name |= {reservation_name(n, a): a for n in network_names for a in pool.entries}
    for reservation in facts.reservations.values():
        if reservation.name in by_name or is_ours(reservation):
            continue
        yield _of_lone(reservation, facts)


def _of_lone(reservation: Reservation, facts: Facts) -> Skipped:
    where = f'OverlappingRangeIPReservation "{reservation.name}"'
    namespace, _, name = reservation.podref.partition("/")
    pod = facts.pods.get(PodRef(namespace, name))
    if pod is None or pod.finished:
        told = f"no pool has it, and there is no living pod {reservation.podref}"
        return Skipped(reason=Reason.NO_POD, where=where, told=told)
    told = f"no pool has it, but pod {reservation.podref} lives and may use it"
    return Skipped(reason=Reason.CONFLICT, where=where, told=told)


def _without_clashes(imports: Sequence[Import], facts: Facts) -> tuple[list[Import], list[Skipped]]:
    """What agrees with everything else, marked where our store has it already; and what does not."""
    by_place: dict[tuple[str, IPAddress], list[Import]] = defaultdict(list)
    for one in imports:
        by_place[one.allocation.scope, one.allocation.address].append(one)
    present = {(a.scope, a.address): a for a in facts.present}
    agreed: list[Import] = []
    clashes: list[Skipped] = []
    for place, group in by_place.items():
        known = present.get(place)
        if len(group) > 1:
            told = " and ".join(f'"{i.origin.pool}" for {i.allocation.slot}' for i in group)
            clashes.append(_skipped(group[0], Reason.CONFLICT, f"pools {told} have it"))
        elif known is not None and known.slot != group[0].allocation.slot:
            clashes.append(
                _skipped(group[0], Reason.CONFLICT, f"it is {known.phase.value} for {known.slot} in our own store")
            )
        else:
            agreed.append(msgspec.structs.replace(group[0], known=known))
    return agreed, clashes


def _skipped(found: Import, reason: Reason, told: str) -> Skipped:
    where = f'IPPool "{found.origin.pool}"'
    return Skipped(reason=reason, where=where, told=told, address=found.allocation.address)


def _order(found: Import) -> tuple[str, int, int]:
    allocation = found.allocation
    return allocation.scope, allocation.address.version, int(allocation.address)
