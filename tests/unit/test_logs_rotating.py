"""Log files: put aside when full, compressed, removed by number and age; no line lost on the way."""

from __future__ import annotations

import fcntl
import gzip
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from homeport.daemon.rotating import MAX_LINE_BYTES, RotatingFile

WaitUntil = Callable[..., None]
START = datetime(2026, 3, 4, 5, 6, 7, 89000, tzinfo=UTC)


def opened(
    path: Path,
    *,
    max_bytes: int = 1000,
    max_age: timedelta | None = None,
    max_backups: int | None = None,
    compress: bool = False,
    now: Callable[[], datetime] = lambda: START,
) -> RotatingFile:
    return RotatingFile(path, max_bytes=max_bytes, max_age=max_age, max_backups=max_backups, compress=compress, now=now)


def contents(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


def test_a_file_and_its_directories_are_made(tmp_path: Path) -> None:
    log = opened(tmp_path / "a/b/x.log")
    log.write(b"one\n")
    log.write(b"two\n")
    assert (tmp_path / "a/b/x.log").read_bytes() == b"one\ntwo\n"
    assert (tmp_path / "a/b/x.log").stat().st_mode & 0o777 == 0o600


def test_an_existing_file_is_continued(tmp_path: Path) -> None:
    (tmp_path / "x.log").write_bytes(b"before\n")
    opened(tmp_path / "x.log").write(b"now\n")
    assert (tmp_path / "x.log").read_bytes() == b"before\nnow\n"


def test_a_full_file_is_put_aside_under_lumberjacks_name(tmp_path: Path) -> None:
    log = opened(tmp_path / "x.log", max_bytes=10)
    for line in (b"12345678\n", b"next\n", b"more\n", b"third\n"):
        log.write(line)
    assert names(tmp_path) == ["x-2026-03-04T05-06-07.089.log", "x-2026-03-04T05-06-07.090.log", "x.log"]
    assert (tmp_path / "x-2026-03-04T05-06-07.089.log").read_bytes() == b"12345678\n"
    assert (tmp_path / "x-2026-03-04T05-06-07.090.log").read_bytes() == b"next\nmore\n"
    assert (tmp_path / "x.log").read_bytes() == b"third\n"


def test_parts_are_compressed(tmp_path: Path, wait_until: WaitUntil) -> None:
    log = opened(tmp_path / "x.log", max_bytes=10, compress=True)
    log.write(b"12345678\n")
    log.write(b"next\n")
    part = tmp_path / "x-2026-03-04T05-06-07.089.log.gz"
    wait_until(lambda: names(tmp_path) == [part.name, "x.log"])
    assert contents(part) == b"12345678\n"
    assert part.stat().st_mode & 0o777 == 0o600


def test_a_compression_cut_short_is_done_by_the_next_process(tmp_path: Path, wait_until: WaitUntil) -> None:
    (tmp_path / "x-2026-03-04T05-06-07.089.log").write_bytes(b"old\n")
    (tmp_path / "x-2026-03-04T05-06-07.089.log.gz.unfinished").write_bytes(b"\x1f\x8b half")
    opened(tmp_path / "x.log", compress=True).write(b"new\n")
    wait_until(lambda: names(tmp_path) == ["x-2026-03-04T05-06-07.089.log.gz", "x.log"])
    assert contents(tmp_path / "x-2026-03-04T05-06-07.089.log.gz") == b"old\n"


def test_parts_too_many_or_too_old_are_removed_and_nothing_else(tmp_path: Path, wait_until: WaitUntil) -> None:
    others = ["x-notes.log", "x-2026-99-99T05-06-07.089.log", "y-2020-03-04T05-06-07.089.log", "x.log.1"]
    for name in others:
        (tmp_path / name).touch()
    for day in (1, 2, 3, 4):
        (tmp_path / f"x-2026-03-{day:02d}T00-00-00.000.log.gz").touch()
    opened(tmp_path / "x.log", max_backups=2).write(b"a\n")
    wait_until(lambda: len(names(tmp_path)) == len(others) + 3)
    assert [n for n in names(tmp_path) if n not in others] == [
        "x-2026-03-03T00-00-00.000.log.gz",
        "x-2026-03-04T00-00-00.000.log.gz",
        "x.log",
    ]
    opened(tmp_path / "x.log", max_age=timedelta(days=1)).write(b"a\n")
    wait_until(lambda: len(names(tmp_path)) == len(others) + 2)
    assert set(others) < set(names(tmp_path))
    assert (tmp_path / "x-2026-03-04T00-00-00.000.log.gz").exists()


def test_a_file_somebody_moved_or_deleted_is_made_anew(tmp_path: Path) -> None:
    log = opened(tmp_path / "x.log")
    log.write(b"one\n")
    (tmp_path / "x.log").rename(tmp_path / "moved")
    log.write(b"two\n")
    (tmp_path / "x.log").unlink()
    log.write(b"three\n")
    assert (tmp_path / "moved").read_bytes() == b"one\n"
    assert (tmp_path / "x.log").read_bytes() == b"three\n"


def test_a_long_line_is_cut(tmp_path: Path) -> None:
    opened(tmp_path / "x.log").write(b"x" * 200_000 + b"\n")
    written = (tmp_path / "x.log").read_bytes()
    assert len(written) == MAX_LINE_BYTES
    assert written.endswith(b"x ...(cut)\n")


def test_what_is_no_regular_file_is_never_put_aside() -> None:
    log = opened(Path("/dev/null"), max_bytes=1)
    for _ in range(3):
        log.write(b"line\n")
    assert Path("/dev/null").is_char_device()


def test_where_it_cannot_be_put_aside_lines_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_self: Path, _target: Path) -> None:
        raise PermissionError(13, "no")

    monkeypatch.setattr(Path, "rename", refuse)
    log = opened(tmp_path / "x.log", max_bytes=10)
    for _ in range(3):
        log.write(b"12345678\n")
    assert (tmp_path / "x.log").read_bytes() == b"12345678\n" * 3


def test_no_descriptor_is_left(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    log = opened(tmp_path / "x.log", max_bytes=10, compress=True, max_backups=3)
    for _ in range(20):
        log.write(b"12345678\n")
    log.close()
    assert len(os.listdir("/proc/self/fd")) == before


WRITER = """
import sys
from datetime import timedelta
from homeport.daemon.rotating import RotatingFile
log = RotatingFile(sys.argv[1], max_bytes=3000, max_age=None, max_backups=None, compress=True)
for n in range(int(sys.argv[3])):
    log.write(f"{sys.argv[2]}-{n} {'.' * 40}\\n".encode())
log.close()
"""


def test_two_processes_lose_no_line_to_rotation_or_compression(tmp_path: Path) -> None:
    count = 1500
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "x.log"), name, str(count)]) for name in "ab"
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    opened(tmp_path / "x.log", compress=True).close()
    found = b"".join(contents(tmp_path / name) for name in names(tmp_path) if not name.endswith(".unfinished"))
    lines = found.splitlines()
    assert len(names(tmp_path)) > 30
    assert {line.split()[0].decode() for line in lines} == {f"{w}-{n}" for w in "ab" for n in range(count)}
    assert len(lines) == 2 * count, "and none twice"
    assert all(re.fullmatch(rb"[ab]-\d+ \.{40}", line) for line in lines)


def someone_waits_for(path: Path) -> bool:
    """Whether a lock on the file is held and another asked for: `1: -> FLOCK ... MAJOR:MINOR:INODE` in proc(5)."""
    inode = f":{path.stat().st_ino} "
    return any("-> FLOCK" in line and inode in line for line in Path("/proc/locks").read_text().splitlines())


def test_a_part_that_another_process_still_writes_to_is_not_compressed(tmp_path: Path, wait_until: WaitUntil) -> None:
    part = tmp_path / "x-2026-03-04T05-06-07.089.log"
    with open(part, "ab", buffering=0) as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        other.write(b"one\n")
        log = opened(tmp_path / "x.log", compress=True)
        log.write(b"elsewhere\n")
        wait_until(lambda: someone_waits_for(part))
        other.write(b"two\n")
    wait_until(lambda: not part.exists())
    assert contents(Path(f"{part}.gz")) == b"one\ntwo\n"
    log.close()


def test_a_line_never_goes_to_a_file_that_was_put_aside_meanwhile(tmp_path: Path, wait_until: WaitUntil) -> None:
    log = opened(tmp_path / "x.log")
    log.write(b"one\n")
    with open(tmp_path / "x.log", "ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        writer = threading.Thread(target=log.write, args=(b"two\n",))
        writer.start()
        wait_until(lambda: someone_waits_for(tmp_path / "x.log"))
        (tmp_path / "x.log").rename(tmp_path / "x-2026-03-04T05-06-07.089.log")
    writer.join()
    assert (tmp_path / "x.log").read_bytes() == b"two\n"
    assert (tmp_path / "x-2026-03-04T05-06-07.089.log").read_bytes() == b"one\n"


def test_threads_of_one_process_share_a_handler(tmp_path: Path) -> None:
    import logging

    from homeport.daemon import logs

    handler = logs._ToFile(logs.LogOptions(file=str(tmp_path / "x.log")))
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.Logger("own", logging.INFO)
    logger.addHandler(handler)

    def write(name: str) -> None:
        for n in range(300):
            logger.info("%s-%d", name, n)

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    handler.close()
    assert sorted((tmp_path / "x.log").read_text().split()) == sorted(f"{w}-{n}" for w in "abcd" for n in range(300))
