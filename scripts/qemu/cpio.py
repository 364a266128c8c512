"""Writes the archive a kernel unpacks at boot: cpio "newc", Documentation/driver-api/early-userspace/buffer-format.rst.

I/O: reads what is added, writes one stream. Needs no root: owners are written as 0 and device nodes are plain entries.
The same entries give the same bytes.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

DIRECTORY_MODE = stat.S_IFDIR | 0o755


class Archive:
    """An open archive. Paths are absolute and mean themselves: parents and link targets are added with them."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._written: set[str] = {"/"}
        self._inode = 0

    def directory(self, path: str) -> None:
        """`path` and its missing parents; one that is there already stays as it is."""
        if path not in self._written:
            self.directory(os.path.dirname(path))
            self._entry(path, DIRECTORY_MODE)

    def symlink(self, path: str, target: str) -> None:
        self.directory(os.path.dirname(path))
        self._entry(path, stat.S_IFLNK | 0o777, target.encode())

    def character_device(self, path: str, major: int, minor: int) -> None:
        self.directory(os.path.dirname(path))
        self._entry(path, stat.S_IFCHR | 0o600, device=(major, minor))

    def file(self, path: str, content: bytes, *, mode: int = 0o644, mtime: int = 0) -> None:
        self.directory(os.path.dirname(path))
        self._entry(path, stat.S_IFREG | mode, content, mtime)

    def copy(self, path: str | Path) -> None:
        """A file, link or directory (without what is in it) of this machine, under its own name.

        Links on the way and a link's target are added too. Modification times are kept: Python's caches need them.
        """
        real = self._resolve(str(path))
        if real in self._written:
            return
        found = os.stat(real)
        if stat.S_ISDIR(found.st_mode):
            self.directory(real)
        else:
            content = Path(real).read_bytes()
            self.file(real, content, mode=stat.S_IMODE(found.st_mode) | 0o444, mtime=int(found.st_mtime))

    def tree(self, top: Path, *, without: frozenset[str]) -> None:
        """Everything below `top` but entries whose name or path (relative to `top`) is in `without`, sorted."""
        self.copy(top)
        for folder, names, files in os.walk(top):
            here = Path(folder)
            names[:] = sorted(n for n in names if not {n, str((here / n).relative_to(top))} & without)
            self.copy(here)
            for name in sorted({*files, *(n for n in names if (here / n).is_symlink())} - without):
                if (here / name).exists():  # not a link to nowhere, not an editor's file that just went away
                    self.copy(here / name)

    def close(self) -> None:
        """Ends the archive; another may follow in the same file, on a 4-byte boundary."""
        self._entry("/TRAILER!!!", 0)

    def _resolve(self, path: str) -> str:
        """The real path of `path`, each link on the way added as a link."""
        done, todo, hops = "/", [p for p in os.path.normpath(path).split("/") if p], 0
        while todo:
            here = os.path.join(done, todo.pop(0))
            if not os.path.islink(here):
                done = here
                continue
            if (hops := hops + 1) > 40:
                raise OSError(f'resolve "{path}": too many symbolic links')
            target = os.readlink(here)
            if here not in self._written:
                self.symlink(here, target)
            joined = os.path.normpath(os.path.join(done, target))
            done, todo = "/", [*(p for p in joined.split("/") if p), *todo]
        return done

    def _entry(
        self, path: str, mode: int, content: bytes = b"", mtime: int = 0, device: tuple[int, int] = (0, 0)
    ) -> None:
        self._written.add(path)
        self._inode += 1
        name = path.lstrip("/").encode() + b"\0"
        fields = (self._inode, mode, 0, 0, 1, mtime, len(content), 0, 0, *device, len(name), 0)
        header = b"070701" + b"".join(b"%08X" % f for f in fields) + name
        for part in (header, content):
            self._stream.write(part + b"\0" * (-len(part) % 4))
