"""Files and the clock: only a positive "not there" is None."""

from __future__ import annotations

import os
from datetime import UTC, timedelta
from pathlib import Path

import pytest

from homeport.host.clocks import SystemClock
from homeport.host.files import LocalFiles
from homeport.model.errors import IOFailure


def test_reads_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"\0\xff")
    (tmp_path / "a").touch()
    assert LocalFiles().read(tmp_path / "b") == b"\0\xff"
    assert LocalFiles().list(str(tmp_path)) == ("a", "b")


def test_absent_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert LocalFiles().read(tmp_path / "nothing") is None
    assert LocalFiles().read(tmp_path / "file" / "below") is None
    assert LocalFiles().list(tmp_path / "nothing") is None


def test_unreadable_is_not_absent(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(IOFailure, match="is a directory") as failure:
        LocalFiles().read(tmp_path)
    assert failure.value.details == "EISDIR"
    with pytest.raises(IOFailure, match="not a directory"):
        LocalFiles().list(tmp_path / "file")
    os.symlink("loop", tmp_path / "loop")
    with pytest.raises(IOFailure, match="too many levels of symbolic links"):
        LocalFiles().read(tmp_path / "loop")


def test_clock_is_utc_and_goes_forward() -> None:
    clock = SystemClock()
    before, start = clock.now(), clock.monotonic()
    clock.sleep(0.001)
    assert before.tzinfo is UTC
    assert before.utcoffset() == timedelta(0)
    assert clock.monotonic() >= start + 0.001
