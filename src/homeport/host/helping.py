"""Entering namespaces by proxy: a child process of one thread does it, so that no thread of ours ever does.

The child runs `entering` as a program, which also says how the two talk. It is started at the first need, again
when it died, and ends by itself when this process does.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading

from homeport.host import entering, errors
from homeport.model.errors import IOFailure


class HelperEntrance:
    """Asks a child process; safe for any number of threads, and starts a new child when the last one died."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._channel: socket.socket | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._dead: socket.socket | None = None  # open as long as threads may still be about to use it

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
        """One request to a running helper; an empty answer when it died.

        Each has a socket of its own for the answer. Many threads that waited for each other's would spend more time on
        waking up in turn than the helper on its work.
        """
        with self._lock:
            channel = self._running()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            try:
                with theirs:
                    socket.send_fds(channel, [request], [theirs.fileno()])
                answer, descriptors, _, _ = socket.recv_fds(ours, 64, 1, socket.MSG_CMSG_CLOEXEC)
            except (BrokenPipeError, ConnectionResetError):
                answer, descriptors = b"", []
        if not answer:
            self._bury(channel)
        return answer, descriptors

    def _bury(self, channel: socket.socket) -> None:
        """After the helper at the other end of `channel` has died; another thread may have seen that already."""
        with self._lock:
            if self._channel is channel:
                self._channel = None
                self._stop()
                self._dead = channel

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
        for channel in (self._channel, self._dead):
            if channel is not None:
                channel.close()
        if self._child is not None and self._owner == os.getpid():
            self._child.wait()  # it ends at the end of file, which it has just been given
        self._channel = self._child = self._dead = None
