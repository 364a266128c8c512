"""The shim's exchange with homeportd, in Python. I/O: a unix socket; `homeport.daemon.framing` says what goes over it.

`_socket` is CPython's own C module; what the module `socket` puts around it takes half as long to load as the whole
interpreter does to start.
"""

from __future__ import annotations

import _socket
import errno
import select
import struct
import time

from homeport.cli.shim_settings import IO_FAILURE, TRY_AGAIN_LATER, Failure, Settings, shown, strerror, wait_for

MAGIC = b"HPR1"

_HEADER_SIZE = 12
_STDOUT_MAX = 4 * 1024 * 1024
_PIECE = 65536  # bytes of one read
_FIRST_PAUSE_SECONDS = 0.01
_LONGEST_PAUSE_SECONDS = 0.1


class _Missing(Exception):
    """Nobody read the request to its end, so it was not carried out: another try is harmless. `number` is an errno."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def call_daemon(settings: Settings, frame: bytes) -> tuple[int, bytes]:
    """Exit code and answer; a missing daemon is tried again until it has been missing for `connect_seconds`."""
    missing_until = None
    step = _FIRST_PAUSE_SECONDS
    while True:
        try:
            peer = _connect(settings)
            try:
                return _exchange(peer, settings, frame)
            finally:
                peer.close()
        except _Missing as missing:
            now = time.monotonic()
            missing_until = now + settings.connect_seconds if missing_until is None else missing_until
            until = min(missing_until, settings.deadline)
            if now >= until:
                at = settings.at_socket("connect to homeportd at ")
                reason = f"found nobody for {settings.connect_text} s: {strerror(missing.number)}"
                raise Failure(TRY_AGAIN_LATER, f"{at}: {reason}") from missing
        time.sleep(min(step, until - now))
        step = min(step * 2, _LONGEST_PAUSE_SECONDS)


def _connect(settings: Settings) -> _socket.socket:
    """One try, which waits only while the daemon's queue is full."""
    left = settings.deadline - time.monotonic()
    if left <= 0:
        raise settings.late()
    peer = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        patience = struct.pack("ll", int(left), int(left % 1 * 1_000_000) or 1)
        peer.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, patience)
        peer.connect(settings.socket_path)
    except OSError as e:
        peer.close()
        if e.errno in (errno.ENOENT, errno.ECONNREFUSED):
            raise _Missing(e.errno) from e
        if e.errno == errno.EAGAIN:
            raise settings.late() from e
        at = settings.at_socket("connect to homeportd at ")
        raise Failure(IO_FAILURE, f"{at}: {strerror(e.errno)}") from e
    return peer


def _exchange(peer: _socket.socket, settings: Settings, frame: bytes) -> tuple[int, bytes]:
    has_request = _send(peer, settings, frame)
    header = _receive(peer, settings, _HEADER_SIZE, may_be_missing=True, has_request=has_request)
    code, size = int.from_bytes(header[4:8], "big"), int.from_bytes(header[8:], "big")
    wrong = ""
    if header[:4] != MAGIC:
        wrong = f"found {shown(header[:4])}, expected {shown(MAGIC)}"
    elif code > 255:
        wrong = f"found exit code {code}, expected at most 255"
    elif size > _STDOUT_MAX:
        wrong = f"found a length of {size} bytes, expected at most {_STDOUT_MAX}"
    if wrong:
        raise Failure(TRY_AGAIN_LATER, f"{settings.at_socket('read the answer of homeportd at ')}: {wrong}")
    return code, _receive(peer, settings, size, may_be_missing=False, has_request=has_request)


def _send(peer: _socket.socket, settings: Settings, frame: bytes) -> bool:
    """Whether all was sent. A peer that hung up early may still have said why: the answer is read in any case."""
    left = memoryview(frame)
    while left:
        try:
            left = left[peer.send(left, _socket.MSG_NOSIGNAL | _socket.MSG_DONTWAIT) :]
        except BlockingIOError:
            if not wait_for(peer.fileno(), select.POLLOUT, settings.deadline):
                raise settings.late() from None
        except (BrokenPipeError, ConnectionResetError):
            return False
        except OSError as e:
            at = settings.at_socket("send the request to homeportd at ")
            raise Failure(TRY_AGAIN_LATER, f"{at}: {strerror(e.errno)}") from e
    return True


def _receive(peer: _socket.socket, settings: Settings, size: int, *, may_be_missing: bool, has_request: bool) -> bytes:
    """Exactly `size` bytes."""
    pieces: list[bytes] = []
    got = 0
    while got < size:
        if not wait_for(peer.fileno(), select.POLLIN, settings.deadline):
            raise settings.late()
        left_unread = not has_request
        try:
            piece = peer.recv(min(size - got, _PIECE), _socket.MSG_DONTWAIT)
        except BlockingIOError:
            continue
        except OSError as e:
            piece = b""
            # Linux says ECONNRESET exactly when the peer left bytes of ours unread (unix_release_sock).
            left_unread = left_unread or e.errno == errno.ECONNRESET
        if not piece and left_unread and may_be_missing and not got:
            raise _Missing(errno.ECONNRESET)
        if not piece:
            at = settings.at_socket("read the answer of homeportd at ")
            raise Failure(TRY_AGAIN_LATER, f"{at}: found its end after {got} bytes, expected {size}")
        pieces.append(piece)
        got += len(piece)
    return b"".join(pieces)
