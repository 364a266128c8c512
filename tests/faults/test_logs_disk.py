"""Logs on a disk that is full or read-only: nobody's call fails, and the loss is told."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from homeport.daemon import logs

pytestmark = pytest.mark.root


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], check=True)
    level = logging.getLogger().level
    yield place
    logs.configure(logs.LogOptions(to_stderr=False))
    logging.getLogger().setLevel(level)
    structlog.reset_defaults()
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk(disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(logs.LogOptions(file=str(disk / "x.log"), level="error", to_stderr=False))
    log = structlog.get_logger()
    log.error("first")
    filler = disk / "filler"
    with pytest.raises(OSError, match="No space"):
        filler.write_bytes(b"x" * 100_000)
    for n in range(300):
        log.error("while it is full", n=n, text="." * 50)
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1, "once, not three hundred times"
    assert told[0].startswith(f"homeport: write log {disk}/x.log: [Errno 28] No space left on device")
    filler.unlink()
    log.error("room again")
    kept = (disk / "x.log").read_text().splitlines()
    assert kept[-1].endswith("[error] room again")
    lost = int(kept[-2].split()[0])
    whole = [line for line in kept if "while it is full" in line and line.endswith("." * 50)]
    assert kept[-2] == f"{lost} log lines before this could not be written"
    assert len(whole) + lost == 300
    assert lost > 0


def test_a_read_only_disk(disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    logs.configure(logs.LogOptions(file=str(disk / "new/x.log"), level="error", to_stderr=False))
    structlog.get_logger().error("lost")
    assert "Read-only file system" in capsys.readouterr().err
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    structlog.get_logger().error("kept")
    assert "1 log lines before this could not be written" in (disk / "new/x.log").read_text()


def test_full_while_compressing(disk: Path) -> None:
    """The part stays as it is, and is complete."""
    from homeport.daemon.rotating import RotatingFile

    line = os.urandom(4000).hex().encode() + b"\n"  # 8 KB, which gzip cannot make much smaller
    log = RotatingFile(disk / "x.log", max_bytes=40_000, max_age=None, max_backups=None, compress=True)
    for _ in range(4):
        log.write(os.urandom(4000).hex().encode() + b"\n")
    (disk / "filler").write_bytes(b"x" * 20_000)
    log.write(line)  # 40 KB are full now: the next is put aside, and 12 KB left do not hold its .gz
    log.close()
    parts = [path for _, path in log.parts()]
    assert not list(disk.glob("*.unfinished"))
    assert [part.suffix for part in parts] == [".log"]
    assert parts[0].stat().st_size == 4 * 8001
