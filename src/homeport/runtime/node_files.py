"""The node's own state as small files: read whole, replaced whole. I/O: files.

They hold network secrets at times, so they are for root alone. Not synced to disk: after a power cut the containers are
gone too, and what is left of a file then is told from a good one by whoever decodes it. A file has one writer at a
time; what a writer that was killed had begun lies beside the file, and goes with the next write or with the file.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from pathlib import Path

from homeport.model.errors import CniError, IOFailure, StoreFull

_DIR_MODE = 0o700
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_FULL = (errno.ENOSPC, errno.EDQUOT)


def read(path: Path) -> bytes | None:
    """The contents; None only when there is no such file."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as e:
        raise _refused(f"read {path}", e) from e


def replace(path: Path, contents: bytes, *, mode: int = 0o600) -> None:
    """Writes it with its directories. The old one stays whole when this raises `IOFailure` or `StoreFull`."""
    try:
        path.parent.mkdir(mode=_DIR_MODE, parents=True, exist_ok=True)
        begun = _begun(path)
        begun.unlink(missing_ok=True)
        try:
            with open(os.open(begun, _NEW, 0o600), "wb") as file:
                os.fchmod(file.fileno(), mode)
                file.write(contents)
            os.replace(begun, path)
        except BaseException:
            with contextlib.suppress(OSError):
                begun.unlink()
            raise
    except OSError as e:
        raise _refused(f"write {path}", e) from e


def remove(path: Path) -> None:
    """Idempotent."""
    try:
        _begun(path).unlink(missing_ok=True)
        path.unlink(missing_ok=True)
    except NotADirectoryError:
        return
    except OSError as e:
        raise _refused(f"remove {path}", e) from e


def rename(path: Path, to: Path) -> None:
    """Whatever was at `to` is gone; success when there is nothing at `path`."""
    try:
        os.replace(path, to)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as e:
        raise _refused(f"rename {path} to {to}", e) from e


def names(directory: Path) -> tuple[str, ...]:
    """Regular files, sorted, but for those whose name begins with a dot; none when there is no such directory."""
    try:
        with os.scandir(directory) as found:
            return tuple(sorted(e.name for e in found if e.name[0] != "." and e.is_file(follow_symlinks=False)))
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except OSError as e:
        raise _refused(f"list {directory}", e) from e


def _begun(path: Path) -> Path:
    """Where its next contents are written, a name that is never too long."""
    return path.with_name(f".{hashlib.blake2b(os.fsencode(path.name), digest_size=8).hexdigest()}.new")


def _refused(action: str, error: OSError) -> CniError:
    kind = StoreFull if error.errno in _FULL else IOFailure
    return kind(f"{action}: {os.strerror(error.errno or 0)}")
