"""The daemon's place on a node: its socket, and the lock that lets one daemon at a time serve. I/O: files, sockets.

A new daemon binds a socket of its own and renames it over the old one's at once, so that there is always somebody to
connect to; callers wait in its queue until the old daemon has finished its calls and lets go of the lock.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from homeport.model.errors import IOFailure

SOCKET_NAME = "homeport.sock"
UPSTREAM_NAME = "multus.sock"
LOCK_NAME = "lock"
_QUEUE = 4096  # callers that wait to be accepted; the kernel has a limit of its own, net.core.somaxconn
_PATH_BYTES = 107  # of a unix socket's address, unix(7)


class Inode(msgspec.Struct, frozen=True):
    """Which file it is, whatever it is called."""

    device: int
    number: int


class Socket(msgspec.Struct, frozen=True):
    """A listening socket and the file that leads to it."""

    listener: socket.socket
    path: Path
    inode: Inode

    def is_in_place(self) -> bool:
        """Whether the path leads here, and not to another daemon's socket or nowhere."""
        return _inode(self.path) == self.inode

    def is_gone(self) -> bool:
        """Whether the path leads nowhere."""
        return _inode(self.path) is None

    def remove(self) -> None:
        """Takes the file, and the link to it, away unless another daemon has put its own there."""
        with suppress(FileNotFoundError), _only_one_in(self.path.parent):
            if self.is_in_place():
                self.path.unlink()
                self.path.with_name(UPSTREAM_NAME).unlink()


def bind(directory: Path) -> Socket:
    """A new socket in `directory`, in the place of whatever was there; `multus.sock` leads to it too."""
    path = directory / SOCKET_NAME
    if len(os.fsencode(path)) + len(".new") > _PATH_BYTES:
        raise IOFailure(f'key "socketDir": found {directory}, too long for the path of a socket')
    try:
        _make_private(directory)
        with _only_one_in(directory):
            return _bind(path)
    except OSError as e:
        raise IOFailure(f"open socket {path}: {os.strerror(e.errno or 0)}") from e


def take_over(descriptor: int, path: Path, inode: Inode) -> Socket:
    """The socket that this process already had, before it became another program."""
    os.set_inheritable(descriptor, False)
    return Socket(socket.socket(fileno=descriptor), path, inode)


def lock(state_dir: Path, keep_waiting: Callable[[int], bool]) -> int | None:
    """The descriptor that holds the lock of `state_dir`, which is made where it is missing.

    While another daemon has it, `keep_waiting` is called with that daemon's process ID (0: unknown), and has to wait
    itself; None when it says no.
    """
    path = state_dir / LOCK_NAME
    try:
        _make_private(state_dir)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        while not _try_lock(descriptor):
            if not keep_waiting(_holder(descriptor)):
                os.close(descriptor)
                return None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except OSError as e:
        raise IOFailure(f"lock {path}: {os.strerror(e.errno or 0)}") from e
    return descriptor


def _bind(path: Path) -> Socket:
    unfinished = path.with_name(path.name + ".new")
    unfinished.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(os.fspath(unfinished))
        unfinished.chmod(0o600)
        listener.listen(_QUEUE)
        inode = _inode(unfinished)
        assert inode is not None, "just bound"
        unfinished.rename(path)
        _link(path.with_name(UPSTREAM_NAME))
    except OSError:
        listener.close()
        raise
    return Socket(listener, path, inode)


def _link(path: Path) -> None:
    """Upstream's name for the same socket: connect(2) follows links."""
    unfinished = path.with_name(path.name + ".new")
    unfinished.unlink(missing_ok=True)
    unfinished.symlink_to(SOCKET_NAME)
    unfinished.rename(path)


def _make_private(directory: Path) -> None:
    """Makes the directory for its owner alone, or takes one in which nobody else can rename what is ours."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = directory.stat()
    if found.st_uid not in (0, os.geteuid()):
        raise IOFailure(f"use directory {directory}: found it owned by user {found.st_uid}, expected {os.geteuid()}")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise IOFailure(
            f"use directory {directory}: found mode {stat.S_IMODE(found.st_mode):o}, expected its owner alone to write"
        )


@contextmanager
def _only_one_in(directory: Path) -> Iterator[None]:
    """Keeps other daemons from renaming or removing in `directory` meanwhile."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(descriptor: int) -> int:
    text = os.pread(descriptor, 32, 0).strip()
    return int(text) if text.isdigit() else 0


def _inode(path: Path) -> Inode | None:
    """Of what is at `path`; None when nothing is."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    return Inode(found.st_dev, found.st_ino)
