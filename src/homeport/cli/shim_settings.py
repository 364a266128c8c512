"""What its environment tells the shim in Python, and how it says what went wrong. I/O: the environment, the clock."""

from __future__ import annotations

import errno
import os
import select
import time

INVALID_ENVIRONMENT, IO_FAILURE, DECODE_FAILURE, TRY_AGAIN_LATER = 4, 5, 6, 11  # CNI SPEC 1.1.0 §5 "Error"

_SHOWN_MAX = 256  # bytes of a value that a message quotes
_SOCKET_PATH_MAX = 107


class Failure(Exception):
    """What becomes the CNI error object."""

    def __init__(self, code: int, msg: str, details: str = "") -> None:
        super().__init__(msg)
        self.code = code
        self.msg = msg
        self.details = details


class Settings:
    """Where a call goes and how long it may take; the texts are the variables' own, for messages."""

    def __init__(self) -> None:
        self.socket_path = variable(b"HOMEPORT_SOCKET", b"/run/homeport/homeport.sock")
        self.journal = variable(b"HOMEPORT_JOURNAL", b"/var/lib/homeport/journal")
        if len(self.socket_path) > _SOCKET_PATH_MAX:
            raise Failure(
                INVALID_ENVIRONMENT,
                f"HOMEPORT_SOCKET: found a path of {len(self.socket_path)} bytes, expected at most {_SOCKET_PATH_MAX}",
            )
        self.connect_text, self.connect_seconds = _seconds(b"HOMEPORT_CONNECT_SECONDS", b"5", least=0)
        self.timeout_text, self.timeout_seconds = _seconds(b"HOMEPORT_TIMEOUT_SECONDS", b"90", least=0.001)
        self.deadline = time.monotonic() + self.timeout_seconds

    def at_socket(self, words: str) -> str:
        return words + shown(self.socket_path)

    def late(self) -> Failure:
        at = self.at_socket("call homeportd at ")
        return Failure(TRY_AGAIN_LATER, f"{at}: found no answer within {self.timeout_text} s")


def variable(name: bytes, otherwise: bytes) -> bytes:
    """An empty variable counts as absent."""
    return os.environb.get(name) or otherwise


def _seconds(name: bytes, otherwise: bytes, *, least: float) -> tuple[str, float]:
    """Digits, and a fraction of up to three digits: the text and its value."""
    text = variable(name, otherwise)
    whole, dot, fraction = text.partition(b".")
    is_number = whole.isdigit() and len(whole.lstrip(b"0")) <= 6
    if is_number and (not dot or (fraction.isdigit() and len(fraction) <= 3)) and float(text) >= least:
        return text.decode(), float(text)
    expected = "seconds such as 0.5 or 90, above 0" if least else "seconds such as 0, 0.5 or 90"
    raise Failure(INVALID_ENVIRONMENT, f"{name.decode()}: found {shown(text)}, expected {expected}")


def wait_for(descriptor: int, events: int, deadline: float) -> bool:
    """Until the descriptor is ready or broken, which the read or write that follows tells; false at the deadline."""
    left = deadline - time.monotonic()
    if left <= 0:
        return False
    poll = select.poll()
    poll.register(descriptor, events)
    return bool(poll.poll(left * 1000))


def shown(value: bytes) -> str:
    """A value of somebody else's, in quotation marks, cut when long; what is not UTF-8 becomes U+FFFD."""
    return f'"{value[:_SHOWN_MAX].decode(errors="replace")}{"..." if len(value) > _SHOWN_MAX else ""}"'


def strerror(number: int | None) -> str:
    """The kernel's words for an errno; a descriptor that was closed from the start has plainer ones."""
    return "it is closed" if number == errno.EBADF else os.strerror(number or 0)
