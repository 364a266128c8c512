"""DELs that were answered but are not done yet (R10): a directory of files. I/O: that directory.

A file is a request of `framing`, byte for byte, named CONTAINER-IFNAME-RANDOM.del. The shim writes one when the
daemon is away, the daemon when it answered before the API server did. The name is for people; the content counts.
A file is there until its DEL is done; one that cannot be read is set aside as NAME.bad, for nobody may forget it.
"""

from __future__ import annotations

import errno
import os
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from homeport.daemon import framing
from homeport.daemon.calls import Call
from homeport.daemon.framing import BadFrame
from homeport.model.errors import CniError, IOFailure, StoreFull, TryAgainLater

SUFFIX = ".del"
BAD_SUFFIX = ".bad"
UNFINISHED_PREFIX = ".tmp-"
MAX_ENTRIES = 10_000
_NAME_BYTES = 128  # of a container ID in a file name, which may have 255
_WRITING_SECONDS = 60  # nobody writes for longer: the writer of an older unfinished file was killed
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One DEL that waits, and the name of its file."""

    name: str
    call: Call


class Journal:
    """The directory at `path`; safe for any number of threads. `report` hears of each file set aside."""

    def __init__(self, path: str | Path, *, report: Callable[[str, CniError], object]) -> None:
        self.path = Path(path)
        self._report = report
        self._known: dict[str, Call] = {}  # files already read: they never change
        self._reading = threading.Lock()

    def open(self) -> None:
        """Makes the directory, for its owner alone, and removes what a writer that was killed had not yet accepted."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.chmod(0o700)
            for unfinished in self.path.glob(f"{UNFINISHED_PREFIX}*"):
                with suppress(FileNotFoundError):  # its writer has just finished
                    if time.time() - unfinished.stat().st_mtime > _WRITING_SECONDS:
                        unfinished.unlink()
        except OSError as e:
            raise _failure(f"open journal {self.path}", e) from e

    def entries(self) -> tuple[Entry, ...]:
        """Those that wait, in the order of their names."""
        with self._reading:
            return self._read_all()

    def of(self, container_id: str) -> tuple[Entry, ...]:
        """Those of one container."""
        return tuple(entry for entry in self.entries() if entry.call.container_id == container_id)

    def write(self, call: Call) -> None:
        """Returns when the entry is on the disk. Raises `StoreFull`, `TryAgainLater` at MAX_ENTRIES, or `IOFailure`."""
        frame = framing.encode_request(call)
        stem = f"{call.container_id[:_NAME_BYTES]}-{call.environ.get('CNI_IFNAME', '')[:15]}".replace("/", "_")
        action = f"write journal entry of container {call.container_id}"
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)  # somebody may have tidied it away
            if len(os.listdir(self.path)) >= MAX_ENTRIES:
                raise TryAgainLater(f"{action}: found {MAX_ENTRIES} entries in {self.path}, expected fewer")
            self._store(f"{stem}-{secrets.token_hex(8)}{SUFFIX}", frame)
        except OSError as e:
            raise _failure(action, e) from e

    def remove(self, entry: Entry) -> None:
        """After its DEL is done; one that is already gone is success."""
        try:
            (self.path / entry.name).unlink(missing_ok=True)
        except OSError as e:
            raise _failure(f"remove journal entry {entry.name}", e) from e

    def holds(self, entry: Entry) -> bool:
        """Whether it still waits: somebody else may have carried it out."""
        try:
            os.stat(self.path / entry.name)
        except FileNotFoundError:
            return False
        except OSError as e:
            raise _failure(f"look for journal entry {entry.name}", e) from e
        return True

    def _read_all(self) -> tuple[Entry, ...]:
        try:
            names = [
                name
                for name in os.listdir(self.path)
                if name.endswith(SUFFIX) and not name.startswith(UNFINISHED_PREFIX)
            ]
        except FileNotFoundError:
            names = []
        except OSError as e:
            raise _failure(f"list journal {self.path}", e) from e
        found: dict[str, Call] = {}
        for name in names:
            call = self._known.get(name) or self._read(name)
            if call is not None:
                found[name] = call
        self._known = found
        return tuple(Entry(name=name, call=found[name]) for name in sorted(found))

    def _read(self, name: str) -> Call | None:
        """None when it is gone by now, or was set aside."""
        path = self.path / name
        try:
            with open(path, "rb") as file:
                frame = file.read(framing.MAX_REQUEST_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as e:
            raise _failure(f"read journal entry {path}", e) from e
        try:
            call = framing.decode_request(frame)
            if call.command != "DEL" or not call.container_id:
                raise BadFrame(f'found {call.command or "nothing"} of "{call.container_id}", expected DEL')
        except BadFrame as e:
            self._set_aside(path, e)
            return None
        return call

    def _set_aside(self, path: Path, error: CniError) -> None:
        aside = path.with_name(path.name + BAD_SUFFIX)
        try:
            path.rename(aside)
        except OSError as e:
            raise _failure(f"set aside journal entry {path}", e) from e
        self._report(str(aside), error)

    def _store(self, name: str, frame: bytes) -> None:
        unfinished = self.path / f"{UNFINISHED_PREFIX}{name}"
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with open(os.open(unfinished, flags, 0o600), "wb") as file:
                file.write(frame)
                file.flush()
                os.fsync(file.fileno())
            unfinished.rename(self.path / name)
        except OSError:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
            raise
        directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _failure(action: str, error: OSError) -> CniError:
    kind = StoreFull if error.errno in _FULL else IOFailure
    return kind(f"{action}: {os.strerror(error.errno or 0)}")
