"""Waiting for the file by which the node's default network says that it works. I/O: files."""

from __future__ import annotations

import os
from collections.abc import Callable

from homeport.model.errors import IOFailure, TryAgainLater
from homeport.ports import Clock

WAIT_SECONDS = 45.0
_POLL_SECONDS = 0.1


def is_ready(path: str) -> bool:
    """Whether the indicator is there; raises `IOFailure` when that cannot be told."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as e:
        raise IOFailure(f"look for readiness indicator {path}: {e}") from e
    return True


def await_indicator(path: str, clock: Clock, stopped: Callable[[float], bool]) -> None:
    """Until it is there. Raises `TryAgainLater` after 45 seconds, or as soon as `stopped` says so.

    `stopped(seconds)` waits no longer than that, and returns early and true when the program is ending.
    """
    deadline = clock.monotonic() + WAIT_SECONDS
    while not is_ready(path):
        if clock.monotonic() >= deadline:
            raise TryAgainLater(
                f"wait for readiness indicator: found no file {path} within {WAIT_SECONDS:g} s, expected one of the "
                "default network's"
            )
        if stopped(_POLL_SECONDS):
            raise TryAgainLater(f"wait for readiness indicator {path}: the daemon is stopping")
