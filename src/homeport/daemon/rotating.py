"""A log file that is put aside when it is full, and its old parts. I/O: files, and a thread that compresses.

lumberjack's rules, which Multus's users know: `daemon.log` becomes `daemon-2026-11-23T09-15-00.123.log` (UTC) and then
`.log.gz`; parts beyond `max_backups` and older than `max_age` are removed.

Several processes may write to one file, as the old daemon and the new do while one takes over. Every line is one
append under flock(2) on the file, and a part is compressed only under the same lock, after its name has changed: so no
line ends in a file that is being thrown away. A file moved or deleted by somebody else (logrotate) is opened anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import os
import re
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

MAX_LINE_BYTES = 64 * 1024
_CUT = b" ...(cut)\n"
_STAMP = "%Y-%m-%dT%H-%M-%S"
_JOIN_SECONDS = 5.0


def _utc_now() -> datetime:
    return datetime.now(UTC)


class RotatingFile:
    """Not safe for several threads of one process by itself: its handler's lock is what keeps them apart.

    `max_bytes` 0 never rotates; `max_age` and `max_backups` None keep every part. Made with its directories, mode 0600,
    at the first line.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        max_bytes: int,
        max_age: timedelta | None,
        max_backups: int | None,
        compress: bool,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self.path = Path(path)
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._max_backups = max_backups
        self._compress = compress
        self._now = now
        self._descriptor: int | None = None
        self._torn = False
        self._tidying: threading.Thread | None = None
        self._scheduling = threading.Lock()
        self._untidy = self._tidied = False
        self._part = re.compile(
            rf"{re.escape(self.path.stem)}-(\d{{4}}-\d\d-\d\dT\d\d-\d\d-\d\d)\.(\d{{3}}){re.escape(self.path.suffix)}(\.gz)?"
        )

    def write(self, line: bytes) -> None:
        """Appends it whole, cut when longer than MAX_LINE_BYTES. Raises OSError; the next line is tried as if new."""
        if self._tidying is None:  # an earlier process may have ended before it was done
            self._tidy_in_background()
        if len(line) > MAX_LINE_BYTES:
            line = line[: MAX_LINE_BYTES - len(_CUT)] + _CUT
        with self._locked() as descriptor:
            if self._is_full(descriptor, len(line)):
                self._put_aside()
                full = descriptor
            else:
                self._append(descriptor, line)
                return
        self._tidy_in_background()
        with self._locked() as descriptor:  # of the new file, or the full one where it could not be put aside
            if descriptor != full:
                self._torn = False
            self._append(descriptor, line)

    def close(self) -> None:
        """Waits a little for a compression under way."""
        self._close_descriptor()
        if self._tidying is not None:
            self._tidying.join(_JOIN_SECONDS)

    def parts(self) -> list[tuple[datetime, Path]]:
        """The parts put aside, newest first."""
        found = []
        for name in os.listdir(self.path.parent):
            if match := self._part.fullmatch(name):
                with contextlib.suppress(ValueError):  # digits that are no date: somebody else's file
                    at = datetime.strptime(match[1], _STAMP).replace(tzinfo=UTC)
                    found.append((at + timedelta(milliseconds=int(match[2])), self.path.parent / name))
        return sorted(found, reverse=True)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        """The descriptor of the file that bears the name now, locked."""
        while True:
            descriptor = self._open()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            try:
                if self._is_current(descriptor):
                    yield descriptor
                    return
            finally:
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            self._close_descriptor()  # put aside, moved or deleted by somebody else meanwhile

    def _open(self) -> int:
        if self._descriptor is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
            self._descriptor = os.open(self.path, flags, 0o600)
            self._torn = False
        return self._descriptor

    def _close_descriptor(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _is_current(self, descriptor: int) -> bool:
        ours = os.fstat(descriptor)
        try:
            named = os.stat(self.path)
        except FileNotFoundError:
            return False
        return (ours.st_dev, ours.st_ino) == (named.st_dev, named.st_ino)

    def _is_full(self, descriptor: int, coming: int) -> bool:
        found = os.fstat(descriptor)
        if not self._max_bytes or not stat.S_ISREG(found.st_mode):  # a terminal or a pipe is nobody's to rename
            return False
        return found.st_size > 0 and found.st_size + coming > self._max_bytes

    def _append(self, descriptor: int, line: bytes) -> None:
        if self._torn:
            line = b"\n" + line
        written = os.write(descriptor, line)
        self._torn = written < len(line)
        if self._torn:
            raise OSError(28, os.strerror(28), str(self.path))  # ENOSPC: what a short write to a file means

    def _put_aside(self) -> None:
        """Renames the full file, whose lock is held. Where that fails, lines go on into the full one."""
        at = self._now()
        while True:
            stamp = f"{at.strftime(_STAMP)}.{at.microsecond // 1000:03d}"
            part = self.path.with_name(f"{self.path.stem}-{stamp}{self.path.suffix}")
            if not part.exists() and not Path(f"{part}.gz").exists():
                break
            at += timedelta(milliseconds=1)
        with contextlib.suppress(OSError):
            self.path.rename(part)

    def _tidy_in_background(self) -> None:
        with self._scheduling:
            self._untidy = True
            if self._tidying is None or self._tidied:
                self._tidied = False
                self._tidying = threading.Thread(target=self._tidy, name="log-tidying", daemon=True)
                self._tidying.start()

    def _tidy(self) -> None:
        """Until there is nothing left to do; what fails waits for the next rotation."""
        while True:
            with self._scheduling:
                if not self._untidy:
                    self._tidied = True
                    return
                self._untidy = False
            with contextlib.suppress(OSError):
                self._tidy_parts()

    def _tidy_parts(self) -> None:
        """Removes parts that are too many or too old, compresses the rest."""
        oldest = self._now() - self._max_age if self._max_age is not None else None
        for n, (at, part) in enumerate(self.parts()):
            too_many = self._max_backups is not None and n >= self._max_backups
            with contextlib.suppress(OSError):
                if too_many or (oldest is not None and at < oldest):
                    part.unlink()
                elif self._compress and part.suffix != ".gz":
                    _compress(part)


def _compress(part: Path) -> None:
    """PART.gz in place of PART, complete or not at all. Another process doing the same waits, and finds it done."""
    packed, unfinished = Path(f"{part}.gz"), Path(f"{part}.gz.unfinished")
    with open(part, "rb") as source:
        fcntl.flock(source, fcntl.LOCK_EX)
        if not part.exists():
            return
        try:
            descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with open(descriptor, "wb") as target, gzip.GzipFile(filename="", fileobj=target, mode="wb") as zipped:
                shutil.copyfileobj(source, zipped)
            unfinished.replace(packed)
        except OSError:
            unfinished.unlink(missing_ok=True)
            raise
        part.unlink()
