"""What is to be looked at: allocations and workloads, each once however often it was named. No I/O.

Watches put in, one thread takes out. Nothing here is lost knowledge: a full pass looks at everything anyway.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from homeport.ipam.identities import Workload


class Agenda:
    """In the order they were named first."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._allocations: dict[str, None] = {}
        self._workloads: dict[Workload, None] = {}
        self._woken = False

    def add_allocations(self, names: Iterable[str]) -> None:
        """By the names of their objects."""
        with self._changed:
            self._allocations.update(dict.fromkeys(names))
            self._wake()

    def add_workloads(self, workloads: Iterable[Workload]) -> None:
        """Whose maps are to be looked at."""
        with self._changed:
            self._workloads.update(dict.fromkeys(workloads))
            self._wake()

    def wake(self) -> None:
        """Something else is to be done."""
        with self._changed:
            self._wake()

    def take_allocations(self, most: int) -> list[str]:
        with self._changed:
            taken = [name for name, _ in zip(self._allocations, range(most), strict=False)]
            for name in taken:
                del self._allocations[name]
            return taken

    def take_workloads(self, most: int) -> list[Workload]:
        with self._changed:
            taken = [workload for workload, _ in zip(self._workloads, range(most), strict=False)]
            for workload in taken:
                del self._workloads[workload]
            return taken

    def has_allocations(self) -> bool:
        return bool(self._allocations)

    def has_workloads(self) -> bool:
        return bool(self._workloads)

    def wait(self, seconds: float) -> bool:
        """Until something is put in, or was since the last wait; False when `seconds` passed before."""
        with self._changed:
            woken = self._changed.wait_for(lambda: self._woken, max(0.0, seconds))
            self._woken = False
            return woken

    def _wake(self) -> None:
        self._woken = True
        self._changed.notify_all()
