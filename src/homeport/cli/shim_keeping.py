"""A DEL that no daemon answered becomes a file of the journal, in Python. I/O: that file, the process's signal mask."""

from __future__ import annotations

import contextlib
import os
import signal

from homeport.cli.shim_settings import (
    INVALID_ENVIRONMENT,
    TRY_AGAIN_LATER,
    Failure,
    Settings,
    shown,
    strerror,
    variable,
)

_CONTAINER_ID_MAX = 218  # what a file name has room for, beside interface, random part and ends
_IFNAME_MAX = 15
_WORD = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")


def keep_for_later(settings: Settings, frame: bytes, failure: Failure) -> str:
    """Keeps a DEL that the daemon did not answer; `failure` says why it did not. What to tell whoever reads stderr."""
    container_id, ifname = variable(b"CNI_CONTAINERID", b""), variable(b"CNI_IFNAME", b"")
    if wrong := _unfit(container_id, ifname):
        raise Failure(INVALID_ENVIRONMENT, wrong, failure.msg)
    random = os.urandom(8).hex().encode()
    at = shown(settings.journal)
    try:
        with _Step("open"):
            directory = os.open(settings.journal, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _store(directory, b".tmp-" + random, b"%b-%b-%b.del" % (container_id, ifname, random), frame)
        finally:
            os.close(directory)
    except _StepFailed as e:
        details = f"keep the DEL in {at}: {e.step}: {strerror(e.number)}"
        raise Failure(TRY_AGAIN_LATER, failure.msg, details) from e
    return f"{failure.msg}; kept the DEL in {at}\n"


def _unfit(container_id: bytes, ifname: bytes) -> str:
    """What keeps the two from being part of a file's name, or nothing."""
    # CNI SPEC 1.1.0 §2: "must start with an alphanumeric character, optionally followed by any combination of one or
    # more alphanumeric characters, underscore (), dot (.) or hyphen (-)"; and no longer than a file's name allows.
    fits = 0 < len(container_id) <= _CONTAINER_ID_MAX and container_id[0] in _WORD
    if not fits or not _WORD.issuperset(container_id.translate(None, b"_.-")):
        return (
            f"CNI_CONTAINERID: found {shown(container_id)}, expected a letter or digit, then letters, digits, "
            f'"_", "." or "-", at most {_CONTAINER_ID_MAX}'
        )
    # What the kernel takes as a link's name, less what is not ASCII.
    fits = 0 < len(ifname) <= _IFNAME_MAX and ifname not in (b".", b"..")
    if not fits or any(not 0x20 < byte < 0x7F or byte in b"/:" for byte in ifname):
        return (
            f"CNI_IFNAME: found {shown(ifname)}, "
            'expected 1 to 15 ASCII characters without "/", ":" or blanks, and not "." or ".."'
        )
    return ""


def _store(directory: int, temporary: bytes, name: bytes, frame: bytes) -> None:
    """Whole or not at all: a signal in between would leave the temporary file, so signals wait."""
    before = signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    try:
        with _Step("create a file"):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            descriptor = os.open(temporary, flags, 0o600, dir_fd=directory)
        try:
            _write(descriptor, frame)
            with _Step("rename"):
                os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        except _StepFailed:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=directory)
            raise
        with _Step("fsync the directory"):
            os.fsync(directory)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _write(descriptor: int, frame: bytes) -> None:
    left = memoryview(frame)
    try:
        with _Step("write"):
            while left:
                left = left[os.write(descriptor, left) :]
        with _Step("fsync"):
            os.fsync(descriptor)
    finally:
        with _Step("close"):
            os.close(descriptor)


class _StepFailed(Exception):
    """An OSError, and what was being done; `number` is its errno."""

    def __init__(self, step: str, number: int) -> None:
        super().__init__(step, number)
        self.step = step
        self.number = number


class _Step:
    """Turns the OSErrors of a block into `_StepFailed`."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, OSError):
            raise _StepFailed(self._name, error.errno or 0) from error
