"""What must hold after every step, from the API server's objects and the simulated kernels alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.protocol.machines import Container, Stage
from tests.stand_ins_server import Change

from homeport.ipam.allocations import Allocation, Phase
from homeport.ipam.identities import PodOwner, Replica, Slot
from homeport.ipam.replicas import replica_of
from homeport.model.addresses import IPAddress
from homeport.ports import ApiObject
from homeport.stores.kubernetes.resources import IPALLOCATIONS
from homeport.stores.kubernetes.wire import decode, decode_record

if TYPE_CHECKING:
    from tests.protocol.simulation import Simulation


class Broken(AssertionError):
    """A rule of docs/identity.md does not hold."""


def slot_of(container: Container, network: str = "multustest") -> Slot:
    """Of a container's interface."""
    pod = container.pod
    owner = replica_of(pod) or PodOwner(pod.ref.namespace, pod.ref.name, pod.uid)
    return Slot(owner, network, container.attachment.ifname)


class Laws:
    """Reads every change once, in its order."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._read = 0
        self.step = 0
        self._kept: dict[tuple[Slot, int], IPAddress] = {}  # by family: what an ADD answered, while it is allocated
        self._wanted_since: dict[Replica, int] = {}
        self._operators: set[int] = set()  # versions that an operator's acts made
        self._hurt: set[IPAddress] = set()  # an operator deleted their allocations: two may use them since
        self._forced: set[IPAddress] = set()  # passed on by R8 since a node's object was removed: an operator's word
        self.answers = 0

    def check(self) -> None:
        """After a step."""
        self.step += 1
        self._note_wanted()
        history = self._simulation.server.history
        for change in history[self._read :]:
            if change.key[0] == IPALLOCATIONS:
                self._changed(change)
        self._read = len(history)
        self._no_address_has_two_users()

    def by_operator(self) -> None:
        """What changed since the last check was an operator's doing: whom it hurts is not our fault."""
        news = self._simulation.server.history[self._read :]
        self._operators |= {change.version for change in news}
        self._hurt |= {a.address for change in news if (a := _decoded(change.before)) is not None}

    def answered(self, container: Container, addresses: tuple[IPAddress, ...]) -> None:
        """R2: a slot that has an allocation gets exactly that."""
        self.check()
        self.answers += 1
        slot = slot_of(container)
        if not isinstance(slot.owner, Replica):
            return
        stored = self.stored()
        for address in addresses:
            if address not in stored or stored[address].slot != slot:
                continue  # deleted by hand meanwhile
            kept = self._kept.setdefault((slot, address.version), address)
            if kept != address:
                raise Broken(f"R2: {slot} had {kept}, which is still its own, and was answered {address}")

    def _no_address_has_two_users(self) -> None:
        users: dict[IPAddress, Container] = {}
        for address, container in self._simulation.users():
            other = users.setdefault(address, container)
            if other is not container and address not in self._hurt:
                raise Broken(
                    f"R1: {address} is in use by {other.name} on {other.node} and {container.name} on {container.node}"
                )

    def _changed(self, change: Change) -> None:
        before, after = _decoded(change.before), _decoded(change.after)
        if before is None:
            return
        if after is None or after.slot != before.slot:
            kept = (before.slot, before.address.version)
            if self._kept.get(kept) == before.address:
                del self._kept[kept]
        if change.version in self._operators:
            return
        if before.holder is not None and _said(change) == f"node {before.holder.node} is gone":
            self._forced.add(before.address)
        for address, container in self._simulation.users():
            if address in self._forced:
                continue
            if address == before.address and _is_good(before, container) and not _is_good(after, container):
                raise Broken(f"R12: {address} was taken from {container.name} while it uses it: {_said(change)}")
        if after is None and isinstance(before.slot.owner, Replica):
            self._was_unwanted(before, before.slot.owner, change)

    def _was_unwanted(self, before: Allocation, replica: Replica, change: Change) -> None:
        """A replica's address is only free once nobody wanted it, at some time since the pass that frees it began."""
        assert change.before is not None
        cause = decode_record(change.before).cause
        if "other addresses now" in cause or cause.startswith(("replaced by", "undone")):
            return
        since = self._wanted_since.get(replica)
        oldest_pass = min(self._simulation.passes_began.values(), default=self.step)
        if since is not None and since < oldest_pass:
            raise Broken(f"R12: {before.address} of {replica} was released while it is wanted: {_said(change)}")

    def _note_wanted(self) -> None:
        world = self._simulation.world
        wanted = {Replica(w, n) for w, state in world.workloads.items() for n in range(9) if state.wants(n)}
        wanted |= {r for pod in world.pods.values() if (r := replica_of(pod)) is not None}
        for replica in [r for r in self._wanted_since if r not in wanted]:
            del self._wanted_since[replica]
        for replica in wanted:
            self._wanted_since.setdefault(replica, self.step)

    # --- once all is quiet ---

    def settled(self) -> None:
        """Everybody who uses an address holds it, everybody who holds one is there, and no node has more to say."""
        users = dict(self._simulation.users())
        stored = self.stored()
        for address, container in users.items():
            present = stored.get(address)
            if address in self._hurt | self._forced:
                continue  # made again by its node, unless that has lost its claims, or a stranger was faster
            if self._simulation.nodes[container.node].is_forgetful and _is_good(present, container):
                continue  # bound locally, and then the node lost its claims: P15
            if present is None or not present.is_held_by(container.name, container.attachment.ifname):
                raise Broken(f"{container.name} uses {address}, of which is stored: {present}")
        pods = {pod.uid for pod in self._simulation.world.pods.values()}
        for allocation in stored.values():
            if allocation.holder is None or allocation.address in users or allocation.holder.pod_uid in pods:
                continue  # a pod whose sandbox is gone may come back to it
            raise Broken(f"{allocation.address} is still held by {allocation.holder.container_id}: {allocation}")
        for node in self._simulation.nodes.values():
            rows = node.daemon.store.claims.all() if node.daemon is not None else ()
            for row in rows:
                holder = row.allocation.holder
                if row.is_pending or (row.place[1] not in users and (holder is None or holder.pod_uid not in pods)):
                    raise Broken(f"{node.name} still has a row {row}")

    def nothing_is_left(self) -> None:
        """No pod, no workload: no object of ours."""
        self.settled()
        left = [f"{key[0].plural} {key[2]}" for key in self._simulation.server.objects if key[0].plural in _OF_PODS]
        if left:
            raise Broken(f"left over: {', '.join(left)}")

    def stored(self) -> dict[IPAddress, Allocation]:
        """All allocations the API server has, each found under its own name only."""
        found = [o for key, o in self._simulation.server.objects.items() if key[0] == IPALLOCATIONS]
        allocations = [decode(o) for o in found]
        stored = {a.address: a for a in allocations}
        assert len(stored) == len(allocations)
        return stored


_OF_PODS = ("ipallocations", "ipslots")


def _decoded(stored: ApiObject | None) -> Allocation | None:
    return None if stored is None else decode(stored)


def _is_good(stored: Allocation | None, container: Container) -> bool:
    """Whether the address is its pod's, as far as the API server knows."""
    return (
        stored is not None
        and stored.phase is Phase.BOUND
        and stored.slot == slot_of(container)
        and stored.holder is not None
        and stored.holder.pod_uid == container.pod.uid
        and container.stage is not Stage.GONE
    )


def _said(change: Change) -> str:
    last = change.after or change.before
    assert last is not None
    return decode_record(last).cause or "no cause given"
