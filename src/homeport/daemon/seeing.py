"""What the API server says of this node's allocations, as a watch tells it. I/O: the watch."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from homeport.ipam.allocations import Allocation
from homeport.model.errors import DecodeFailure
from homeport.ports import ApiObject, Objects, Place, Watching
from homeport.stores.kubernetes import names, wire
from homeport.stores.kubernetes.resources import IPALLOCATIONS

log = structlog.get_logger("homeport.daemon")


class Seen:
    """The allocations that this node holds, or held last. What it says was true a while ago, and proves nothing.

    Written by the watch's thread, read by any. `on_news` hears of each that has changed, or with None has gone, from
    that thread, and must not wait.
    """

    def __init__(self, objects: Objects, node: str, *, on_news: Callable[[Place, Allocation | None], None]) -> None:
        self._objects = objects
        self._node = node
        self._on_news = on_news
        self._known: dict[str, Allocation] = {}
        self._unreadable: set[str] = set()
        self._watching: Watching | None = None

    def start(self) -> None:
        self._watching = self._objects.watch(
            IPALLOCATIONS,
            labels={names.NODE: names.node_label(self._node)},
            on_change=self._changed,
            on_gone=self._gone,
        )

    def stop(self) -> None:
        if self._watching is not None:
            self._watching.stop()

    def is_listed(self) -> bool:
        """Whether all there was has been told once."""
        return self._watching is not None and self._watching.wait_listed(0)

    def get(self, place: Place) -> Allocation | None:
        """None where there is none, or none of this node any more, or none that can be read."""
        return self._known.get(names.allocation_name(*place))

    def all(self) -> tuple[Allocation, ...]:
        return tuple(self._known.copy().values())

    @property
    def unreadable(self) -> int:
        """How many of this node's allocations cannot be read, as somebody has written nonsense into them."""
        return len(self._unreadable)

    def _changed(self, stored: ApiObject) -> None:
        try:
            found = wire.decode(stored)
        except DecodeFailure as e:
            self._known.pop(stored.name, None)
            if stored.name not in self._unreadable:
                self._unreadable.add(stored.name)
                log.error("an allocation cannot be read, and stays as it is", name=stored.name, error=str(e))
            return
        self._unreadable.discard(stored.name)
        self._known[stored.name] = found
        self._on_news((found.scope, found.address), found)

    def _gone(self, stored: ApiObject) -> None:
        self._unreadable.discard(stored.name)
        former = self._known.pop(stored.name, None)
        if former is not None:
            self._on_news((former.scope, former.address), None)
