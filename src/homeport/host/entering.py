"""Opening things inside a network namespace. Changes the calling thread's namespace while it works.

setns(2), network_namespaces(7), nsfs in namespaces(7). This file is also a program: run by path, it is the helper
that opens sockets and files for a process with threads, and hands the descriptors over (SCM_RIGHTS in unix(7)).
It starts in some milliseconds because it needs nothing but a few modules of the standard library, and must stay so:
no import from the package. A socket, and an open file of /proc/sys/net, belong to the namespace they were opened in.

A request is one datagram, fields joined by NUL: `socket NETNS FAMILY TYPE PROTOCOL`, `open NETNS PATH FLAGS` or
`create PATH`; with it comes the socket to answer on. The answer is one datagram: `0` with the descriptor, if any, or
the errno as digits and a word for what failed (`enter`, `do`).
"""

from __future__ import annotations

import ctypes
import os
import select
import socket
import sys
from collections.abc import Callable
from typing import TypeVar

CLONE_NEWNET = 0x40000000
MS_BIND = 0x1000
OWN = "/proc/thread-self/ns/net"

T = TypeVar("T")
_libc = ctypes.CDLL(None, use_errno=True)


class CannotEnter(OSError):
    """The namespace itself was the trouble, not what should have been done inside it."""


def _checked(result: int, *names: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), *names)


def enter(path: str) -> None:
    """Moves the calling thread into the namespace at `path`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            _checked(_libc.setns(descriptor, CLONE_NEWNET), path)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise CannotEnter(error.errno, os.strerror(error.errno or 0), path) from error


def inside(path: str, action: Callable[[], T]) -> T:
    """Runs `action` in the namespace at `path`, and brings the thread back whatever happens."""
    home = os.open(OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        enter(path)
        try:
            return action()
        finally:
            _checked(_libc.setns(home, CLONE_NEWNET))
    finally:
        os.close(home)


def create(path: str) -> None:
    """Makes a namespace and pins it at `path`, which must not exist; leaves nothing behind on failure."""
    os.makedirs(os.path.dirname(path) or ".", mode=0o755, exist_ok=True)
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
    home = os.open(OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _checked(_libc.unshare(CLONE_NEWNET))
        try:
            _checked(_libc.mount(OWN.encode(), os.fsencode(path), None, MS_BIND, None), path)
        finally:
            _checked(_libc.setns(home, CLONE_NEWNET))
    except OSError:
        os.unlink(path)
        raise
    finally:
        os.close(home)


def unpin(path: str) -> None:
    """Detaches the topmost mount at `path`; raises EINVAL when nothing is mounted there."""
    detach = 2  # MNT_DETACH
    _checked(_libc.umount2(os.fsencode(path), detach), path)


# --- the helper --------------------------------------------------------------------------------------------------


def _perform(fields: list[str]) -> int | None:
    """Does one request; returns the descriptor to hand over, which the caller closes.

    It comes back each time: a process that stayed in a namespace would keep it alive.
    """
    match fields:
        case ["socket", netns, family, kind, protocol]:
            return inside(netns, lambda: socket.socket(int(family), int(kind), int(protocol)).detach())
        case ["open", netns, path, flags]:
            return inside(netns, lambda: os.open(path, int(flags) | os.O_CLOEXEC))
        case ["create", path]:
            create(path)
            return None
        case _:
            raise OSError(22, "unknown request")


def _answer(fields: list[str]) -> tuple[bytes, list[int]]:
    try:
        descriptor = _perform(fields)
    except CannotEnter as error:
        return f"{error.errno}\0enter".encode(), []
    except OSError as error:
        return f"{error.errno}\0do".encode(), []
    return b"0\0", [] if descriptor is None else [descriptor]


def serve(channel: socket.socket, parent: int) -> None:
    """Answers until the other end is closed or the process behind the pidfd `parent` has ended.

    Both, because a child the parent forked may hold its end of the channel open. PR_SET_PDEATHSIG would not do: it
    fires when the *thread* that started us ends.
    """
    waiting = select.poll()
    waiting.register(channel, select.POLLIN)
    waiting.register(parent, select.POLLIN)
    while True:
        ready = [descriptor for descriptor, _ in waiting.poll()]
        if parent in ready:
            return
        request, sent, _, _ = socket.recv_fds(channel, 65536, 1, socket.MSG_CMSG_CLOEXEC)
        if not request:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fileno=sent[0]) as asker:
            answer, descriptors = _answer(request.decode(errors="surrogateescape").split("\0"))
            try:
                socket.send_fds(asker, [answer], descriptors)
            except OSError:
                continue  # whoever asked is gone
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
