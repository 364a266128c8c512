"""Looks that may fail, and checks that need what they see. I/O: whatever `looked` is given does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from homeport.doctor.cluster_facts import Seen, Unseen
from homeport.doctor.findings import Diagnosis
from homeport.model.errors import CniError

T = TypeVar("T")


def looked(look: Callable[[], T]) -> Seen[T]:
    """`Unseen` with the reason for a look that raises `CniError`."""
    try:
        return look()
    except CniError as e:
        return Unseen(str(e))


def when(check: Callable[..., Iterator[Diagnosis]], *needed: Any) -> Iterator[Diagnosis]:
    """What the check finds, where everything it asks about was seen."""
    if not any(isinstance(value, Unseen) for value in needed):
        yield from check(*needed)
