"""Keeping what this node's interfaces hold and what the API server says of it the same. I/O: through what it is given.

docs/identity.md R12, E26; docs/protocol.md P3, P14, P15, P20. A watch may suspect, only a live answer proves. What an
interface that is up holds is never freed here: a store that says otherwise is put right, or the conflict is reported.
What is let go, is so on the proof of R8: its pod is gone, and so is its network namespace, which this node alone sees.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from functools import partial
from typing import Literal, get_args

import msgspec
import structlog

from homeport.cni import versions
from homeport.daemon.seeing import Seen
from homeport.ipam.allocations import Allocation, released
from homeport.ipam.holdings import Agreed, Contested, Restore, decide_held
from homeport.ipam.identities import ContainerOwner, Holder, PodOwner, Replica
from homeport.ipam.moving import HolderFacts
from homeport.ipam.retention import LetGo, decide_bound
from homeport.model.addresses import IPAddress
from homeport.model.errors import CniError, TryAgainLater
from homeport.model.names import PodRef
from homeport.ports import Cluster, Conflict, Event, Objects, Place
from homeport.runtime.caching import ResultCache
from homeport.stores.claims import HeldClaim, State
from homeport.stores.nodes import NodeStore

log = structlog.get_logger("homeport.daemon")

ROUND_SECONDS = 10.0
_SETTLED = timedelta(seconds=5)  # a claim's age from which the watch is expected to have told of it

Repair = Literal["restored", "adopted", "released", "quarantined", "returned"]
REPAIRS: tuple[Repair, ...] = get_args(Repair)


def recorded_addresses(results: ResultCache, netns_exists: Callable[[str], bool]) -> frozenset[IPAddress]:
    """What the namespaces of this node have, by the results of ADD that are kept.

    Raises `CniError` when one cannot be read, since that one may be of any address.
    """
    found, unreadable = results.all()
    if unreadable:
        raise unreadable[0]
    kept = [entry for entry in found if entry.netns_path and netns_exists(entry.netns_path)]
    return frozenset(ip.address.ip for entry in kept for ip in entry.decoded_result(versions.CURRENT).ips)


def recorded_netns(results: ResultCache, container_id: str, ifname: str) -> str | None:
    """The namespace that an interface was made in, by the result of its ADD; None where none is kept.

    Raises `CniError` when one of the container's cannot be read, and none of the others says it.
    """
    found, unreadable = results.of_container(container_id)
    paths = [entry.netns_path for entry in found if entry.key.ifname == ifname and entry.netns_path]
    if not paths and unreadable:
        raise unreadable[0]
    return paths[0] if paths else None


class Holding:
    """The node `node`'s. `go_through` is to be called about every ROUND_SECONDS, by one thread, and when `wake` is.

    `netns_exists` raises `CniError` when it cannot tell; `recorded` is `recorded_addresses` of this node. `count` hears
    of what was put right; `conflicts` is how many addresses of running interfaces are somebody else's in the store.
    `netns_of` is `recorded_netns` of this node.
    """

    def __init__(
        self,
        store: NodeStore,
        objects: Objects,
        cluster: Cluster,
        *,
        node: str,
        netns_exists: Callable[[str], bool],
        recorded: Callable[[], Collection[IPAddress]],
        emit: Callable[[Event], None],
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        count: Callable[[Repair], None] = lambda _repair: None,
        netns_of: Callable[[str, str], str | None] = lambda _container_id, _ifname: None,
    ) -> None:
        self.seen = Seen(objects, node, on_news=self._heard)
        self.wake: Callable[[], None] = lambda: None
        self._store, self._claims, self._remote = store, store.claims, store.remote
        self._cluster, self._node = cluster, node
        self._netns_exists, self._recorded = netns_exists, recorded
        self._emit, self._now, self._monotonic, self._count = emit, now, monotonic, count
        self._netns_of = netns_of
        self._contested: dict[Place, Allocation] = {}
        self._troubles: dict[Place, str] = {}  # told already, each as long as it lasts
        self._is_away = False

    @property
    def conflicts(self) -> int:
        return len(self._contested)

    def start(self) -> None:
        """Begins to watch; the watch ends with the objects'."""
        self.seen.start(self._monotonic())

    def go_through(self) -> None:
        """Looks at every claim, and at everything the store says this node holds. One that cannot be judged does not
        keep the others waiting; while nobody answers, all wait for the next round.
        """
        self.seen.renew(self._monotonic())
        if not self.seen.is_listed():
            return
        try:
            self._go_through()
        except TryAgainLater as e:
            if not self._is_away:
                log.warning("addresses are compared with the API server later", error=str(e))
            self._is_away = True
        else:
            self._is_away = False

    def _go_through(self) -> None:
        claims = {claim.place: claim for claim in self._claims.all()}
        for known in (self._contested, self._troubles):
            for place in [place for place in known if place not in claims and self.seen.get(place) is None]:
                del known[place]
        for claim in claims.values():
            if claim.is_held:
                self._attempt(claim.place, partial(self._keep, claim))
        for seen in self.seen.all():
            place = (seen.scope, seen.address)
            if seen.holder is not None and seen.holder.node == self._node and self._claims.find(*place) is None:
                self._attempt(place, partial(self._account_for, seen, seen.holder))

    def _heard(self, place: Place, seen: Allocation | None) -> None:
        claim = self._claims.find(*place)
        if claim is not None and claim.state is State.BOUND and (seen is None or not claim.is_of(seen)):
            self.wake()

    def _attempt(self, place: Place, action: Callable[[], None]) -> None:
        """Raises `TryAgainLater` alone: then the others could not be compared either."""
        try:
            action()
        except Conflict:
            return  # somebody is at work on it: the next round sees what came of that
        except TryAgainLater:
            raise
        except CniError as e:
            if self._troubles.get(place) != str(e):
                self._troubles[place] = str(e)
                log.error("cannot compare an address with the API server", address=str(place[1]), error=str(e))
            return
        self._troubles.pop(place, None)

    # --- what we have a claim of ---

    def _keep(self, claim: HeldClaim) -> None:
        holder = claim.allocation.holder
        if holder is None or not holder.netns_path or timedelta() <= self._now() - claim.at < _SETTLED:
            return
        if not self._netns_exists(holder.netns_path):
            self._let_go_claim(claim, holder)
            return
        if claim.state is not State.BOUND or claim.undelivered:
            return  # on its way
        seen = self.seen.get(claim.place)
        if seen is not None and claim.is_of(seen) and seen.version == claim.allocation.version:
            self._contested.pop(claim.place, None)
            return
        outcome = decide_held(claim.allocation, self._remote.get(*claim.place))
        if self._claims.find(*claim.place) is not claim:
            return  # it has been let go meanwhile, and what was found may be what came of that
        match outcome:
            case Agreed(present):
                self._contested.pop(claim.place, None)
                self._claims.swap(claim, msgspec.structs.replace(claim, allocation=present))
            case Restore(over, why):
                # Without its pod, only force can have taken it: whoever has used that is answerable (R8).
                if not self._facts(claim.allocation, holder, netns_exists=True).pod_gone:
                    self._restore(claim, over, why)
            case Contested(by):
                self._report_conflict(claim, by)

    def _restore(self, claim: HeldClaim, over: int, why: str) -> None:
        """Through the store's deliveries: a release that comes now is told after it, whichever of them is slower."""
        if not self._store.restore(claim, over=over, cause=f"restored: {why} while its interface is up"):
            return
        self._contested.pop(claim.place, None)
        self._repaired("restored", claim.allocation, why)
        slot = claim.allocation.slot
        self._tell(
            claim.allocation,
            "AllocationRestored",
            f"the allocation of {claim.allocation.address} {why} while {slot.ifname} on {slot.network} has it:"
            " made again as it was",
        )

    def _report_conflict(self, claim: HeldClaim, by: Allocation) -> None:
        """Once for each other holder. Nothing is freed: both may be in use (E26)."""
        known = self._contested.get(claim.place)
        self._contested[claim.place] = by
        if known is not None and (known.slot, known.holder) == (by.slot, by.holder):
            return
        where = f" on node {by.holder.node}" if by.holder is not None else ""
        mine = claim.allocation
        log.error("two holders of one address", address=str(mine.address), here=str(mine.slot), other=str(by.slot))
        self._tell(
            mine,
            "AddressConflict",
            f"{mine.address} of {mine.slot.ifname} on {mine.slot.network} is {by.phase.value} in the cluster for"
            f" {by.slot.owner}{where}: both may be using it; nothing was released",
        )

    def _let_go_claim(self, claim: HeldClaim, holder: Holder) -> None:
        """A namespace that is gone took its interface along. Should a DEL come yet, it finds nothing to do (R7)."""
        cause = self._proof(claim.allocation, holder)
        if cause is not None and self._store.let_go(claim, cause=cause):
            self._repaired("released", claim.allocation, cause)

    # --- what the store says we have, and we know nothing of ---

    def _account_for(self, seen: Allocation, holder: Holder) -> None:
        if not holder.netns_path:
            self._complete(seen, holder)
            return
        is_up = self._netns_exists(holder.netns_path)
        cause = None if is_up else self._proof(seen, holder)
        if not is_up and cause is None:
            return
        present = self._remote.get(seen.scope, seen.address)  # what was seen may have been let go since
        if present is None or present.slot != seen.slot or not present.is_held_by(holder.container_id, holder.ifname):
            return
        if cause is None:
            found = HeldClaim(allocation=present, state=State.BOUND, cause="found in the cluster", at=self._now())
            if self._claims.swap(None, found):
                self._repaired("adopted", present, "no record of it on this node")
            return
        left = released(present, at=self._now())
        if left is None:
            self._remote.delete(present, cause=cause)
        else:
            self._remote.replace(left, cause=cause)
        self._repaired("released", present, cause)

    def _complete(self, seen: Allocation, holder: Holder) -> None:
        """Notes the namespace of an interface that another program made, and whose allocation was taken over from it.
        What this node keeps no result of stays as it is (R12).
        """
        path = self._netns_of(holder.container_id, holder.ifname)
        present = self._remote.get(seen.scope, seen.address) if path is not None else None
        if path is None or present is None or present.holder != holder or present.slot != seen.slot:
            return
        known = msgspec.structs.replace(holder, netns_path=path)
        noted = self._remote.replace(msgspec.structs.replace(present, holder=known), cause="namespace noted")
        self._account_for(noted, known)

    # --- facts ---

    def _proof(self, allocation: Allocation, holder: Holder) -> str | None:
        """Why a holder whose namespace is gone is proven gone; None while it is not, or another namespace of this node
        has its address by what ADD has left here.
        """
        outcome = decide_bound(allocation, self._facts(allocation, holder, netns_exists=False))
        if not isinstance(outcome, LetGo) or allocation.address in self._recorded():
            return None
        return outcome.cause

    def _facts(self, allocation: Allocation, holder: Holder, *, netns_exists: bool) -> HolderFacts:
        """With the API server's own word on the holder's pod, where there is one and its UID is known."""
        owner = allocation.slot.owner
        if isinstance(owner, ContainerOwner) or not holder.pod_uid:
            return HolderFacts(netns_exists=netns_exists)
        pod = self._cluster.pod_now(_pod_of(owner))
        gone = pod is None or not pod.is_known_as(holder.pod_uid)
        return HolderFacts(
            netns_exists=netns_exists, pod_gone=gone, pod_finished=pod is not None and not gone and pod.finished
        )

    # --- telling ---

    def _repaired(self, what: Repair, allocation: Allocation, why: str) -> None:
        self._count(what)
        log.warning(
            "repaired an allocation",
            what=what,
            address=str(allocation.address),
            owner=str(allocation.slot.owner),
            reason=why,
        )

    def _tell(self, allocation: Allocation, reason: str, message: str) -> None:
        owner, holder = allocation.slot.owner, allocation.holder
        if isinstance(owner, ContainerOwner) or holder is None:
            return
        self._emit(Event(pod=_pod_of(owner), pod_uid=holder.pod_uid, reason=reason, message=message, warning=True))


def _pod_of(owner: Replica | PodOwner) -> PodRef:
    return owner.pod if isinstance(owner, Replica) else PodRef(owner.namespace, owner.name)
