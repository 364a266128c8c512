"""SIGINT and SIGTERM at places where work can be undone. I/O: signal handlers of the process.

An exception raised between any two instructions could leave a link made and not yet noted, or a child started and not
yet known. So the first signal only becomes a byte to read, and is acted on where a program waits for another; work
of our own is done in milliseconds and goes on to its end.
"""

from __future__ import annotations

import os
import signal


def defer() -> int:
    """From now on the first SIGINT or SIGTERM is a byte, its number, on the descriptor returned; the next raises."""
    read, write = os.pipe()
    for descriptor in (read, write):
        os.set_blocking(descriptor, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _note)
    return read


def _note(_number: int, _frame: object) -> None:
    """The byte is written by the interpreter itself; whoever sends a second signal does not want to wait."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _exit)


def _exit(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)
