"""A node's store over one in memory that can be away, slow, or lose its answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import msgspec

from homeport.ipam.allocations import Allocation, Phase, released
from homeport.ipam.identities import Holder, Owner, PodOwner, Replica, Slot, Workload
from homeport.model.addresses import IPAddress, MacAddress
from homeport.stores.claims import Claims, State
from homeport.stores.memory import MemoryStore
from homeport.stores.nodes import NodeStore

WEB_0 = Replica(Workload("ns", "StatefulSet", "web"), 0)
POD = PodOwner("ns", "p", "u1")
ADDRESS = ip_address("10.0.0.1")
MAC = MacAddress("0a:58:0a:00:00:01")
START = datetime(2026, 1, 1, tzinfo=UTC)
WRITES = ("create", "replace", "delete")


class Remote(MemoryStore):
    """Refuses what `refuse` says: None to carry it out. `asked` are the names of the calls. An error of `lose` is
    raised after a write was carried out.
    """

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.refuse: Callable[[str], Exception | None] = lambda _name: None
        self.lose: Exception | None = None

    def away(self, error: Exception | None) -> None:
        self.refuse = lambda _name: error

    def get(self, scope: str, address: IPAddress) -> Allocation | None:
        self._ask("get")
        return super().get(scope, address)

    def of_slot(self, slot: Slot, *, likely: Sequence[Any] = ()) -> tuple[Allocation, ...]:
        self._ask("of_slot")
        return super().of_slot(slot, likely=likely)

    def lowest_free(self, *args: Any, **more: Any) -> tuple[IPAddress, ...]:
        self._ask("lowest_free")
        return super().lowest_free(*args, **more)

    def create(self, allocation: Allocation, *, cause: str) -> Allocation:
        self._ask("create")
        return self._answered(super().create(allocation, cause=cause))

    def replace(self, allocation: Allocation, *, cause: str) -> Allocation:
        self._ask("replace")
        return self._answered(super().replace(allocation, cause=cause))

    def delete(self, allocation: Allocation, *, cause: str) -> None:
        self._ask("delete")
        super().delete(allocation, cause=cause)
        self._answered(allocation)

    def _ask(self, name: str) -> None:
        self.asked.append(name)
        error = self.refuse(name)
        if error is not None:
            raise error

    def _answered(self, made: Allocation) -> Allocation:
        if self.lose is not None:
            raise self.lose
        return made


class Node:
    """A `NodeStore` that can be started again. Time passes by hand (`at`, and `passed` seconds); `woken` counts its
    wishes to deliver.
    """

    def __init__(self, folder: Path) -> None:
        self.remote = Remote()
        self.at = START
        self.passed = 0.0
        self.woken = 0
        self.troubles: list[str] = []
        self._path = folder / "state" / "claims.db"
        self._claims: Claims | None = None
        self.restart()

    def restart(self) -> None:
        self.close()
        self._claims = Claims(self._path)
        self.store = NodeStore(
            self.remote,
            self._claims,
            node="n1",
            now=lambda: self.at,
            monotonic=lambda: self.passed,
            wake=self._wake,
            on_trouble=lambda _claim, reason: self.troubles.append(reason),
        )

    def close(self) -> None:
        if self._claims is not None:
            self._claims.close()

    def _wake(self) -> None:
        self.woken += 1

    def states(self) -> list[State]:
        return [claim.state for claim in self.store.claims.all()]

    def bound(self, owner: Owner = WEB_0, container_id: str = "c1") -> Allocation:
        return self.store.create(wanted(owner, container_id), cause="allocated")

    def let_go(self, allocation: Allocation) -> None:
        left = released(allocation, at=self.at)
        if left is None:
            self.store.delete(allocation, cause="DEL")
        else:
            self.store.replace(left, cause="DEL")

    def take(self, previous: Allocation, container_id: str, pod_uid: str = "u1") -> Allocation:
        return self.store.replace(
            msgspec.structs.replace(previous, phase=Phase.BOUND, holder=holder(container_id, pod_uid)), cause="returned"
        )

    def of_slot(self, owner: Owner = WEB_0) -> tuple[Allocation, ...]:
        return self.store.of_slot(Slot(owner, "net", "net1"), likely=[("", ADDRESS)])

    def there(self) -> Allocation | None:
        """What the store behind has."""
        return MemoryStore.get(self.remote, "", ADDRESS)


def holder(container_id: str, pod_uid: str = "u1", node: str = "n1") -> Holder:
    return Holder(container_id=container_id, ifname="net1", netns_path="/run/netns/x", node=node, pod_uid=pod_uid)


def wanted(owner: Owner, container_id: str = "c1") -> Allocation:
    return Allocation(
        scope="",
        address=ADDRESS,
        slot=Slot(owner, "net", "net1"),
        phase=Phase.BOUND,
        holder=holder(container_id),
        since=START,
    )


def container_of(allocation: Allocation | None) -> str | None:
    return allocation.holder.container_id if allocation is not None and allocation.holder is not None else None
