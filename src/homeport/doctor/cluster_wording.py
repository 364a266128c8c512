"""How doctor says what it saw from afar. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

_TOLD = 5  # names of one finding; the others are counted


def first_of(words: Sequence[str]) -> str:
    """The first few, and how many there are besides."""
    more = f" and {len(words) - _TOLD} more" if len(words) > _TOLD else ""
    return ", ".join(words[:_TOLD]) + more


def long(span: timedelta) -> str:
    """To a person: 45 s, 12 min, 3 h, 5 d."""
    seconds = int(span.total_seconds())
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def controller_logs(namespace: str) -> str:
    """The command that shows what the leader said."""
    return f"kubectl -n {namespace} logs deployment/homeport-controller"
