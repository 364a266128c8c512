"""Network namespaces: what is at a path, making and unpinning them, and opening things inside them.

network_namespaces(7), ioctl_nsfs(2). `Entrance` has two forms: `DirectEntrance` enters and comes back by itself, for
programs of one thread that live too shortly to start a child; `helping.HelperEntrance` lets a child do it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from homeport.host import entering, errors, uapi
from homeport.model.errors import InvalidNetns


class Entrance(Protocol):
    """Opens things in the namespace at a path. Raises `CannotEnter`, or the OSError of the opening itself."""

    def open_socket(self, netns: str, family: int, kind: int, protocol: int) -> socket.socket: ...
    def open_file(self, netns: str, path: str, flags: int) -> int:
        """A descriptor of a file as that namespace sees it (below /proc/sys/net)."""

    def create(self, path: str) -> None: ...
    def close(self) -> None: ...


class DirectEntrance:
    """Enters with the calling thread, and comes back."""

    def open_socket(self, netns: str, family: int, kind: int, protocol: int) -> socket.socket:
        return entering.inside(netns, lambda: socket.socket(family, kind, protocol))

    def open_file(self, netns: str, path: str, flags: int) -> int:
        return entering.inside(netns, lambda: os.open(path, flags | os.O_CLOEXEC))

    def create(self, path: str) -> None:
        entering.create(path)

    def close(self) -> None:
        """Holds nothing."""


def open_namespace(path: str) -> int:
    """A descriptor of the namespace; raises `InvalidNetns` when there is none at `path`. It keeps it alive."""
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise InvalidNetns(f"network namespace {path}: found no regular file, expected a namespace's")
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise errors.namespace_refused(path, error) from error
    try:
        if fcntl.ioctl(descriptor, uapi.NS_GET_NSTYPE) == uapi.CLONE_NEWNET:
            return descriptor
        refusal = InvalidNetns(f"network namespace {path}: found a namespace of another kind")
    except OSError as error:
        refusal = InvalidNetns(f"network namespace {path}: found a plain file", errors.explain(error.errno or 0))
    os.close(descriptor)
    raise refusal


def exists(path: str) -> bool:
    """Whether a network namespace is pinned at `path`; anything else that is there is an error."""
    try:
        os.stat(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ESRCH):
            return False
        raise errors.namespace_refused(path, error) from error
    os.close(open_namespace(path))
    return True


@contextmanager
def locked(path: str) -> Iterator[None]:
    """An exclusive flock(2) on the namespace's own file, which is one however many paths lead to it."""
    descriptor = open_namespace(path)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            raise errors.refused(f"lock network namespace {path}", error.errno or 0) from error
        yield
    finally:
        os.close(descriptor)


def same(one: str, other: str) -> bool:
    """Whether both paths lead to the same namespace; False when either leads nowhere."""
    try:
        first, second = os.stat(one), os.stat(other)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise errors.namespace_refused(one, error) from error
    return os.path.samestat(first, second)


def delete(path: str) -> None:
    """Unpins the namespace at `path` and removes the file; success when it is not there.

    What is no namespace is left alone, but for an empty file: that is the place of a pin long gone.
    """
    try:
        while _is_pinned(path):  # pins may be stacked
            entering.unpin(path)
    except OSError as error:
        raise errors.refused(f"unpin network namespace {path}", error.errno or 0) from error
    try:
        left = os.lstat(path)
        if not stat.S_ISREG(left.st_mode) or left.st_size:
            raise InvalidNetns(f"delete network namespace {path}: found something else at this path")
        os.unlink(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise errors.file_refused(f"remove {path}", error) from error


def _is_pinned(path: str) -> bool:
    try:
        os.close(open_namespace(path))
    except InvalidNetns:
        return False
    return True
