"""Keeps the ledger of a `KubernetesStore` as the controller does, but at once whenever somebody reads it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from ipaddress import IPv4Address

from homeport.ipam.allocations import Allocation, Phase
from homeport.ipam.identities import ContainerOwner, Slot
from homeport.model.addresses import IPAddress
from homeport.ports import ApiObject, LedgerEntry, Objects
from homeport.stores.kubernetes.ledger import Chronicle, chunk_body
from homeport.stores.kubernetes.resources import IPALLOCATIONS, IPLEDGERS
from homeport.stores.kubernetes.store import KubernetesStore
from homeport.stores.kubernetes.wire import Record, create_body, decode, decode_record

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_FENCE = "keeper-fence"  # a scope: what comes before its allocation has been told when that is


class Keeper:
    """Watches with `objects` from now on."""

    def __init__(self, objects: Objects, now: Callable[[], datetime]) -> None:
        self._objects, self._now = objects, now
        self._known: dict[str, Record] = {}
        self._chronicle = Chronicle()
        self._entries: list[LedgerEntry] = []
        self._fenced = threading.Event()
        self._chunks = 0
        self._watch = objects.watch(IPALLOCATIONS, on_change=self._changed, on_gone=self._gone)
        assert self._watch.wait_listed(10.0)

    def stop(self) -> None:
        self._watch.stop()

    def flush(self) -> None:
        """Writes a chunk of all that has happened."""
        self._fenced.clear()
        fence = Allocation(
            scope=_FENCE,
            address=IPv4Address("192.0.2.1"),
            slot=Slot(ContainerOwner("fence"), "none", "none"),
            phase=Phase.RETAINED,
            since=_EPOCH,
        )
        made = self._objects.create(IPALLOCATIONS, create_body(fence, cause="fence", changed=_EPOCH, write="fence"))
        assert self._fenced.wait(10.0)
        self._objects.delete(IPALLOCATIONS, made.name)
        if self._entries:
            self._objects.create(IPLEDGERS, chunk_body(self._chunks, self._entries, through=made.version))
            self._chunks += 1
            self._entries.clear()

    def _changed(self, stored: ApiObject) -> None:
        after = decode_record(stored)
        if after.allocation.scope == _FENCE:
            self._fenced.set()
            return
        self._note(self._chronicle.changed(self._known.get(stored.name), after))
        self._known[stored.name] = after

    def _gone(self, stored: ApiObject) -> None:
        if decode(stored).scope != _FENCE:
            self._note(self._chronicle.gone(self._known.pop(stored.name), now=self._now()))

    def _note(self, entry: LedgerEntry | None) -> None:
        if entry is not None:
            self._entries.append(entry)


class KeptStore(KubernetesStore):
    """Whose ledger has every change that was answered before it is read."""

    def __init__(self, objects: Objects, keeper: Keeper, now: Callable[[], datetime]) -> None:
        super().__init__(objects, now=now)
        self._keeper = keeper

    def ledger(
        self, *, address: IPAddress | None = None, since: datetime | None = None, until: datetime | None = None
    ) -> Iterable[LedgerEntry]:
        self._keeper.flush()
        return super().ledger(address=address, since=since, until=until)
