"""`ports.Files` on the machine's file system."""

from __future__ import annotations

import builtins
import os
import stat
from pathlib import Path

from homeport.host import errors
from homeport.model.errors import IOFailure


class LocalFiles:
    """Reads what is really there; everything but "no such file" is an error."""

    def read(self, path: str | Path) -> bytes | None:
        try:
            return Path(path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise errors.file_refused(f"read {path}", error) from error
        except ValueError as error:  # a NUL in the path
            raise IOFailure(f"read {str(path)!r}: {error}") from error

    def list(self, path: str | Path) -> tuple[str, ...] | None:
        try:
            found: builtins.list[str] = os.listdir(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise errors.file_refused(f"list {path}", error) from error
        return tuple(sorted(found))

    def append(self, path: str | Path, text: str, *, max_bytes: int) -> None:
        try:
            _make_room(Path(path), max_bytes)
            with open(path, "a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
        except OSError as error:
            raise errors.file_refused(f"append to {path}", error) from error
        except ValueError as error:
            raise IOFailure(f"append to {str(path)!r}: {error}") from error


def _make_room(path: Path, max_bytes: int) -> None:
    try:
        found = path.stat()
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return
    if stat.S_ISREG(found.st_mode) and found.st_size > max_bytes:  # never a terminal or a pipe
        path.replace(f"{path}.1")
