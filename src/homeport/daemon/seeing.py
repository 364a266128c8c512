"""What the API server says of this node's allocations, as a watch tells it. I/O: the watch."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import structlog

from homeport.ipam.allocations import Allocation
from homeport.model.errors import DecodeFailure
from homeport.ports import ApiObject, Objects, Place, Watching
from homeport.stores.kubernetes import names, wire
from homeport.stores.kubernetes.resources import IPALLOCATIONS

log = structlog.get_logger("homeport.daemon")

OnNews = Callable[[Place, Allocation | None], None]

_RENEW_SECONDS = (240.0, 360.0)  # at random, so that not every node comes at once
_LIST_SECONDS = 5.0
_AT_HAND = "0"  # the version that the API server has in memory: an old one only puts off a suspicion


class Seen:
    """The allocations that this node holds, or held last. What it says was true a while ago, and proves nothing.

    Read by any thread. `on_news` hears of each that has changed, or with None has gone, from the watch's thread, and
    must not wait. A watch says nothing of a database that was set back: therefore it is begun anew now and then.
    """

    def __init__(self, objects: Objects, node: str, *, on_news: OnNews) -> None:
        self._objects = objects
        self._node = node
        self._on_news = on_news
        self._view: _View | None = None
        self._renew_at = -math.inf

    def start(self, now: float) -> None:
        """`now` is on the clock's monotonic scale, as for `renew`."""
        self._view = self._begin(now)

    def renew(self, now: float) -> None:
        """Begins anew when it is time to, or the API server was away: its database may have been set back.

        What was known stays until the new watch has told all there is.
        """
        if now < self._renew_at and not (self._view is not None and self._view.watching.was_away()):
            return
        former, view = self._view, self._begin(now)
        if not view.watching.wait_listed(_LIST_SECONDS):
            view.watching.stop()
            return
        self._view = view
        if former is not None:
            former.watching.stop()

    def is_listed(self) -> bool:
        """Whether all there was has been told once."""
        return self._view is not None and self._view.watching.wait_listed(0)

    def get(self, place: Place) -> Allocation | None:
        """None where there is none, or none of this node any more, or none that can be read."""
        return self._view.known.get(names.allocation_name(*place)) if self._view is not None else None

    def all(self) -> tuple[Allocation, ...]:
        return tuple(self._view.known.copy().values()) if self._view is not None else ()

    @property
    def unreadable(self) -> int:
        """How many of this node's allocations cannot be read, as somebody has written nonsense into them."""
        return len(self._view.unreadable) if self._view is not None else 0

    def _begin(self, now: float) -> _View:
        self._renew_at = now + random.uniform(*_RENEW_SECONDS)  # noqa: S311 -- spreads load, keeps no secret
        return _View(self._objects, self._node, self._on_news)


class _View:
    """One watch and what it told, written by its thread alone."""

    def __init__(self, objects: Objects, node: str, on_news: OnNews) -> None:
        self.known: dict[str, Allocation] = {}
        self.unreadable: set[str] = set()
        self._on_news = on_news
        self.watching: Watching = objects.watch(
            IPALLOCATIONS,
            labels={names.NODE: names.node_label(node)},
            on_change=self._changed,
            on_gone=self._gone,
            since=_AT_HAND,
        )

    def _changed(self, stored: ApiObject) -> None:
        try:
            found = wire.decode(stored)
        except DecodeFailure as e:
            self.known.pop(stored.name, None)
            if stored.name not in self.unreadable:
                self.unreadable.add(stored.name)
                log.error("an allocation cannot be read, and stays as it is", name=stored.name, error=str(e))
            return
        self.unreadable.discard(stored.name)
        self.known[stored.name] = found
        self._on_news((found.scope, found.address), found)

    def _gone(self, stored: ApiObject) -> None:
        self.unreadable.discard(stored.name)
        former = self.known.pop(stored.name, None)
        if former is not None:
            self._on_news((former.scope, former.address), None)
