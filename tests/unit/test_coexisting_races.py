"""Nodes of ours and Whereabouts' take turns, request by request, in many orders, and die at any of them.

What must hold in every order: no address has two users, and none is lost to everybody for good.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from ipaddress import ip_address

import msgspec
import pytest
from tests.stand_ins import START
from tests.stand_ins_objects import Call, Fate, MemoryObjects, MemoryServer
from tests.stand_ins_whereabouts import StorageEngineError, WhereaboutsNode, reconcile

from homeport.ipam.allocations import Allocation, Phase, released
from homeport.ipam.identities import Holder, Owner, PodOwner, Replica, Slot, Workload
from homeport.ipam.ranges import Span
from homeport.model.addresses import IPAddress
from homeport.model.errors import TryAgainLater
from homeport.ports import AllocationStore, AlreadyExists, Conflict, Objects
from homeport.stores.coexisting import CoexistingStore
from homeport.stores.keeping_coexistence import ORPHAN_SECONDS, CoexistenceKeeper
from homeport.stores.memory import MemoryStore
from homeport.stores.whereabouts import POOLS, RESERVATIONS

RANGE = "10.0.0.0/29"
FIRST, LAST = ip_address("10.0.0.1"), ip_address("10.0.0.6")
ORDERS = 150
_PATIENCE_SECONDS = 20.0
WEB = Workload("shop", "StatefulSet", "web")


class Killed(BaseException):
    """The process is gone."""


class Turns:
    """Actors that run one at a time, from one request to the next, in an order drawn from `seed`."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._turn = threading.Condition()
        self._waiting: dict[str, bool] = {}  # by actor: whether it may go on
        self._running: set[str] = set()
        self.errors: list[BaseException] = []

    def take(self) -> None:
        """Called by an actor before each request: waits for its turn."""
        name = threading.current_thread().name
        with self._turn:
            self._waiting[name] = False
            self._turn.notify_all()
            assert self._turn.wait_for(lambda: self._waiting[name], _PATIENCE_SECONDS)
            del self._waiting[name]

    def play(self, actors: Sequence[tuple[str, Callable[[], None]]]) -> None:
        threads = [threading.Thread(target=self._act, args=(name, act), name=name) for name, act in actors]
        self._running = {name for name, _ in actors}
        for thread in threads:
            thread.start()
        with self._turn:
            while self._running:
                assert self._turn.wait_for(self._is_settled, _PATIENCE_SECONDS)
                if self._waiting:
                    self._waiting[self._random.choice(sorted(self._waiting))] = True
                    self._turn.notify_all()
                    assert self._turn.wait_for(lambda: not any(self._waiting.values()), _PATIENCE_SECONDS)
        for thread in threads:
            thread.join(_PATIENCE_SECONDS)
        if self.errors:
            raise self.errors[0]

    def _is_settled(self) -> bool:
        """Everybody who is left waits for a turn."""
        return set(self._waiting) == self._running

    def _act(self, name: str, act: Callable[[], None]) -> None:
        try:
            self.take()
            act()
        except Killed:
            pass
        except BaseException as e:  # noqa: BLE001 -- raised again by `play`
            self.errors.append(e)
        finally:
            with self._turn:
                self._running.discard(name)
                self._turn.notify_all()


class TurnTakingStore(MemoryStore):
    """Our own store, each of its requests a turn as well."""

    turns: Turns

    def get(self, scope: str, address: IPAddress) -> Allocation | None:
        self.turns.take()
        return super().get(scope, address)

    def create(self, allocation: Allocation, *, cause: str) -> Allocation:
        self.turns.take()
        return super().create(allocation, cause=cause)

    def replace(self, allocation: Allocation, *, cause: str) -> Allocation:
        self.turns.take()
        return super().replace(allocation, cause=cause)

    def delete(self, allocation: Allocation, *, cause: str) -> None:
        self.turns.take()
        super().delete(allocation, cause=cause)


class World:
    """One server, what is used of it, and clients whose every request is a turn."""

    def __init__(self, seed: int, *, scope: str = "") -> None:
        self.turns = Turns(seed)
        self.random = random.Random(seed)
        self.server = MemoryServer()
        self.inner = TurnTakingStore()
        self.inner.turns = self.turns
        self.scope = scope
        self.used: dict[IPAddress, str] = {}
        self.shared: list[str] = []
        self.losing: list[MemoryObjects] = []

    def client(self, *, dies_after: int | None = None) -> MemoryObjects:
        objects = MemoryObjects(self.server)

        def turn(call: object) -> None:
            if dies_after is not None and len(objects.calls) > dies_after:
                raise Killed
            self.turns.take()

        objects.on_call = turn
        return objects

    def losing_client(self) -> MemoryObjects:
        """One request in eight gets no answer: it was never done, or was done, or is done at a later request's turn."""
        objects = self.client()
        turn = objects.on_call

        def late(call: Call) -> None:
            turn(call)
            if self.random.random() < 0.2:
                objects.land(1)

        def fate(call: Call) -> Fate:
            if call.verb in ("get", "list") or self.random.random() > 0.12:
                return "done"
            return self.random.choice(("before", "after", "later"))

        objects.on_call, objects.fate = late, fate
        self.losing.append(objects)
        return objects

    def use(self, address: IPAddress, who: str) -> None:
        if address in self.used:
            self.shared.append(f"{address}: {self.used[address]} and {who}")
        self.used[address] = who

    def whereabouts_pod(self, n: int, *, leaves: bool = False, overlapping: bool = True) -> Callable[[], None]:
        node = WhereaboutsNode(self.client(), RANGE, overlapping=overlapping)

        def live() -> None:
            try:
                (address,) = node.add(f"w{n}", f"shop/old-{n}")
            except StorageEngineError:
                return
            self.use(address, f"old-{n}")
            if leaves:
                del self.used[address]
                node.delete(f"w{n}")

        return live

    def our_pod(
        self,
        owner: Owner,
        *,
        leaves: bool = False,
        again: bool = False,
        dies_after: int | None = None,
        losing: bool = False,
    ) -> Callable[[], None]:
        client = self.losing_client() if losing else self.client(dies_after=dies_after)
        store = CoexistingStore(self.inner, client)

        def live() -> None:
            with suppress(TryAgainLater):
                live_on()

        def live_on() -> None:
            held = attach(self, store, owner, "1")
            if held is None or not leaves:
                return
            del self.used[held.address]
            left = released(held, at=START + timedelta(hours=1))
            if left is None:
                store.delete(held, cause="DEL")
                return
            store.replace(left, cause="DEL")
            if again:
                attach(self, store, owner, "2")

        return live

    # after the race, when nobody takes turns any more

    def quiet(self) -> CoexistingStore:
        self.turns.take = lambda: None  # type: ignore[method-assign]
        return CoexistingStore(self.inner, MemoryObjects(self.server))

    def come_back(self) -> None:
        """Claims that were broken off are tried again by their nodes: what may be used is, the rest is let go."""
        store = self.quiet()
        for allocation in list(store.all()):
            if allocation.address not in self.used and allocation.phase is Phase.BOUND:
                try:
                    store.confirm(allocation)
                except TryAgainLater:
                    store.delete(allocation, cause="DEL")
                else:
                    self.use(allocation.address, str(allocation.slot.owner))

    def require_consistent(self) -> None:
        """Whoever uses an address has it in the pool, and nobody else does."""
        assert not self.shared, self.shared
        for allocation in self.quiet().all():
            entry = self.entries()[str(int(allocation.address) - int(FIRST) + 1)]
            assert entry["podref"] == ""
        for address, who in self.used.items():
            if who.startswith("old-"):
                assert self.entries()[str(int(address) - int(FIRST) + 1)]["podref"] == f"shop/{who}"

    def entries(self) -> dict[str, dict[str, str]]:
        (pool,) = MemoryObjects(self.server).list(POOLS)
        entries: dict[str, dict[str, str]] = msgspec.json.decode(pool.body)["spec"]["allocations"]
        return entries

    def require_nothing_lost(self) -> None:
        """After the keeper's passes and a run of their reconciler every address without a user can be had again."""
        store = self.quiet()
        time = [0.0]
        keeper = CoexistenceKeeper(store, monotonic=lambda: time[0])
        for _ in range(2):
            keeper.keep()
            time[0] += ORPHAN_SECONDS
        live = {f"shop/{who}": [str(address)] for address, who in self.used.items() if who.startswith("old-")}
        reconcile(MemoryObjects(self.server), live)
        keeper.keep()
        ours = {a.address for a in store.all()}
        free = 6 - len(ours | set(self.used))
        node = WhereaboutsNode(MemoryObjects(self.server), RANGE, overlapping="#" not in self.scope)
        for n in range(free):
            (address,) = node.add(f"z{n}", f"shop/filler-{n}")
            assert address not in ours
            assert address not in self.used
            self.used[address] = f"filler-{n}"
        with pytest.raises(StorageEngineError):
            node.add("last", "shop/last")


def attach(world: World, store: AllocationStore, owner: Owner, container: str) -> Allocation | None:
    """As the claiming loop does it: its own address, else the lowest free one, until one is had or none is left."""
    slot = Slot(owner, "net", "net1")
    holder = Holder(
        container_id=f"{owner}-{container}", ifname="net1", netns_path="", node="n1", pod_uid=f"{owner}-{container}"
    )
    at = START + timedelta(microseconds=world.random.randrange(1_000_000_000))
    for own in store.of_slot(slot):
        bound = msgspec.structs.replace(own, phase=Phase.BOUND, holder=holder, since=at)
        try:
            held = store.replace(bound, cause="returned")
        except (Conflict, TryAgainLater):
            return None
        world.use(held.address, str(owner))
        return held
    refused: set[IPAddress] = set()
    while True:
        candidates = store.lowest_free(world.scope, Span(FIRST, LAST), [Span(a, a) for a in refused])
        if not candidates:
            return None
        wanted = Allocation(
            scope=world.scope, address=candidates[0], slot=slot, phase=Phase.BOUND, holder=holder, since=at
        )
        try:
            held = store.create(wanted, cause="allocated")
        except AlreadyExists:
            refused.add(candidates[0])
            continue
        world.use(held.address, str(owner))
        return held


def made_pool(objects: Objects) -> None:
    body = {"metadata": {"name": "10.0.0.0-29"}, "spec": {"range": RANGE, "allocations": {}}}
    objects.create(POOLS, body, namespace="kube-system")


def pod(n: int) -> PodOwner:
    return PodOwner("shop", f"new-{n}", f"uid-{n}")


@pytest.mark.parametrize("seed", range(ORDERS))
def test_many_for_few_addresses(seed: int) -> None:
    """Four of theirs and four of ours for six addresses; half of each leave again."""
    world = World(seed)
    made_pool(MemoryObjects(world.server))
    actors = [(f"w{n}", world.whereabouts_pod(n, leaves=n % 2 == 0)) for n in range(4)]
    actors += [(f"h{n}", world.our_pod(pod(n), leaves=n % 2 == 0)) for n in range(4)]
    world.turns.play(actors)
    world.require_consistent()
    assert len(world.used) <= 4
    world.require_nothing_lost()


@pytest.mark.parametrize("seed", range(ORDERS))
def test_where_the_pool_alone_decides(seed: int) -> None:
    world = World(seed, scope=f"#{RANGE}")
    actors = [(f"w{n}", world.whereabouts_pod(n, overlapping=False, leaves=n == 0)) for n in range(3)]
    actors += [(f"h{n}", world.our_pod(pod(n), leaves=n == 0)) for n in range(3)]
    world.turns.play(actors)
    world.require_consistent()
    assert MemoryObjects(world.server).list(RESERVATIONS) == []
    world.require_nothing_lost()


@pytest.mark.parametrize("seed", range(ORDERS))
def test_before_there_is_a_pool(seed: int) -> None:
    """Their first ADD makes it while we claim by reservations alone. Nobody shares; one of theirs may fail."""
    world = World(seed)
    actors = [(f"w{n}", world.whereabouts_pod(n)) for n in range(2)]
    actors += [(f"h{n}", world.our_pod(pod(n))) for n in range(3)]
    world.turns.play(actors)
    assert not world.shared, world.shared
    world.require_nothing_lost()


@pytest.mark.parametrize("seed", range(ORDERS))
def test_a_replica_that_comes_and_goes_keeps_its_address(seed: int) -> None:
    world = World(seed)
    made_pool(MemoryObjects(world.server))
    actors = [(f"w{n}", world.whereabouts_pod(n, leaves=n == 0)) for n in range(3)]
    actors += [(f"web-{n}", world.our_pod(Replica(WEB, n), leaves=True, again=True)) for n in range(2)]
    world.turns.play(actors)
    world.require_consistent()
    ours = list(world.quiet().all())
    assert sorted(str(a.slot.owner) for a in ours) == ["shop/web-0", "shop/web-1"]
    assert all(a.phase is Phase.BOUND for a in ours)


@pytest.mark.parametrize("seed", range(ORDERS))
def test_a_node_of_ours_that_dies_at_any_request_leaves_a_leak_at_most(seed: int) -> None:
    world = World(seed)
    made_pool(MemoryObjects(world.server))
    actors = [(f"w{n}", world.whereabouts_pod(n, leaves=n == 0)) for n in range(2)]
    actors += [
        (f"h{n}", world.our_pod(pod(n), leaves=True, dies_after=random.Random(seed + n).randrange(12)))
        for n in range(3)
    ]
    actors += [("h9", world.our_pod(pod(9)))]
    world.turns.play(actors)
    world.come_back()
    world.require_consistent()
    world.require_nothing_lost()


@pytest.mark.parametrize("seed", range(ORDERS))
def test_requests_without_an_answer(seed: int) -> None:
    """What a claim was not told of is not used before it is confirmed; what comes late takes nothing from anybody."""
    world = World(seed)
    made_pool(MemoryObjects(world.server))
    actors = [(f"w{n}", world.whereabouts_pod(n, leaves=n == 0)) for n in range(3)]
    actors += [(f"h{n}", world.our_pod(pod(n), leaves=n < 2, losing=True)) for n in range(4)]
    world.turns.play(actors)
    assert not world.shared, world.shared
    world.come_back()
    for client in world.losing:
        client.land()
    kept = CoexistenceKeeper(world.quiet()).keep()
    assert kept.contested == ()
    world.require_consistent()
    world.require_nothing_lost()


@pytest.mark.parametrize("seed", range(ORDERS))
def test_the_keeper_gets_in_nobody_s_way(seed: int) -> None:
    world = World(seed)
    made_pool(MemoryObjects(world.server))
    keeper = CoexistenceKeeper(CoexistingStore(world.inner, world.client()), monotonic=lambda: 0.0)

    def keep() -> None:
        for _ in range(3):
            keeper.keep()

    actors: list[tuple[str, Callable[[], None]]] = [("keeper", keep), ("w0", world.whereabouts_pod(0))]
    actors += [(f"h{n}", world.our_pod(pod(n), leaves=n < 2)) for n in range(3)]
    actors += [("web", world.our_pod(Replica(WEB, 0), leaves=True, again=True))]
    world.turns.play(actors)
    world.require_consistent()
    world.require_nothing_lost()
