"""Network namespaces: what is at a path, making and unpinning them, and opening things inside them.

network_namespaces(7), ioctl_nsfs(2). `Entrance` has two forms. `HelperEntrance` asks a child process to do it, so
that no thread of ours ever changes its namespace; `DirectEntrance` enters and comes back by itself, for programs
of one thread that live too shortly to start a child.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from homeport.host import entering, errors, uapi
from homeport.model.errors import InvalidNetns, IOFailure


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


class HelperEntrance:
    """Asks a child process; safe for any number of threads, and starts a new child when the last one died."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._channel: socket.socket | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def open_socket(self, netns: str, family: int, kind: int, protocol: int) -> socket.socket:
        descriptor = self._ask(netns, "socket", netns, str(int(family)), str(int(kind)), str(protocol))
        return socket.socket(family, kind, protocol, fileno=descriptor)

    def open_file(self, netns: str, path: str, flags: int) -> int:
        return self._ask(netns, "open", netns, path, str(flags))

    def create(self, path: str) -> None:
        self._ask(path, "create", path)

    def close(self) -> None:
        with self._lock:
            self._stop()

    def _ask(self, path: str, *fields: str) -> int:
        """The descriptor answered, or -1 where the request has none."""
        request = "\0".join(fields).encode(errors="surrogateescape")
        with self._lock:
            answer, descriptors = self._exchange(request)
            if not answer and fields[0] != "create":  # opening can be repeated; a creation may have happened
                answer, descriptors = self._exchange(request)
        if not answer:
            raise IOFailure(f"namespace helper: died while it handled {fields[0]} for {path}")
        code, _, stage = answer.partition(b"\0")
        if code != b"0":
            kind = entering.CannotEnter if stage == b"enter" else OSError
            raise kind(int(code), os.strerror(int(code)), path)
        return descriptors[0] if descriptors else -1

    def _exchange(self, request: bytes) -> tuple[bytes, list[int]]:
        """One request to a running helper; an empty answer when it died."""
        channel = self._running()
        try:
            channel.send(request)
            answer, descriptors, _, _ = socket.recv_fds(channel, 64, 1, socket.MSG_CMSG_CLOEXEC)
        except (BrokenPipeError, ConnectionResetError):
            answer, descriptors = b"", []
        if not answer:
            self._stop()
        return answer, descriptors

    def _running(self) -> socket.socket:
        if self._channel is not None and self._owner == os.getpid():  # after a fork the helper is the parent's
            return self._channel
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent = os.pidfd_open(os.getpid())
        try:
            argv = [sys.executable, "-I", "-S", entering.__file__, str(theirs.fileno()), str(parent)]
            self._child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), parent),
                start_new_session=True,  # a Ctrl-C at the terminal is for us, not for it
            )
        except OSError as error:
            ours.close()
            raise IOFailure(f"namespace helper: start {sys.executable}", errors.explain(error.errno or 0)) from error
        finally:
            theirs.close()
            os.close(parent)
        self._channel, self._owner = ours, os.getpid()
        return ours

    def _stop(self) -> None:
        if self._channel is not None:
            self._channel.close()
        if self._child is not None and self._owner == os.getpid():
            self._child.wait()  # it ends at the end of file, which it has just been given
        self._channel = self._child = None


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
    """Unpins what is at `path` and removes the file; success when it is not there.

    A file that is no namespace is removed only when it is empty: then it is the place of a pin long gone.
    """
    try:
        while True:  # pins may be stacked
            entering.unpin(path)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno == errno.ENOTDIR:
            return
        if error.errno != errno.EINVAL:  # EINVAL: no mount is left
            raise errors.refused(f"unpin network namespace {path}", error.errno or 0) from error
    try:
        left = os.lstat(path)
        if not stat.S_ISREG(left.st_mode) or left.st_size:
            raise InvalidNetns(f"delete network namespace {path}: found something else at this path")
        os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise errors.file_refused(f"remove {path}", error) from error
