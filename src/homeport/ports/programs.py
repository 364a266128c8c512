"""Other programs, files and time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol

import msgspec


class Completed(msgspec.Struct, frozen=True):
    """A finished child. `returncode` is negative for a signal."""

    returncode: int
    stdout: bytes
    stderr: bytes


class Exec(Protocol):
    """Starting a foreign plugin."""

    def find(self, name: str, path: Sequence[str]) -> str | None:
        """The first regular executable file `name` (no `/` in it) along `path`."""

    def run(
        self, executable: str, *, env: Mapping[str, str], stdin: bytes, timeout_seconds: float, netns: str | None = None
    ) -> Completed: ...


class Files(Protocol):
    """Small configuration files, and logs."""

    def read(self, path: str | Path) -> bytes | None:
        """None only for ENOENT/ENOTDIR; anything else raises `IOFailure`."""

    def list(self, path: str | Path) -> tuple[str, ...] | None:
        """The names in a directory, sorted; None only when it does not exist."""

    def append(self, path: str | Path, text: str, *, max_bytes: int) -> None:
        """Adds to a log, made with its directories. One larger than `max_bytes` is renamed PATH.1 before."""


class Clock(Protocol):
    """Time, as an argument."""

    def now(self) -> datetime:
        """UTC, timezone-aware."""

    def monotonic(self) -> float:
        """Seconds, for deadlines."""

    def sleep(self, seconds: float) -> None: ...
