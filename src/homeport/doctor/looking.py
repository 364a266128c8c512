"""A look that may fail: what it finds, or why nothing is known. I/O: whatever it is given does."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from homeport.doctor.cluster_facts import Seen, Unseen
from homeport.model.errors import CniError

T = TypeVar("T")


def looked(look: Callable[[], T]) -> Seen[T]:
    """`Unseen` with the reason for a look that raises `CniError`."""
    try:
        return look()
    except CniError as e:
        return Unseen(str(e))
