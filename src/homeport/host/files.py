"""`ports.Files` on the machine's file system."""

from __future__ import annotations

import builtins
import os
from pathlib import Path

from homeport.host import errors


class LocalFiles:
    """Reads what is really there; everything but "no such file" is an error."""

    def read(self, path: str | Path) -> bytes | None:
        try:
            return Path(path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise errors.file_refused(f"read {path}", error) from error

    def list(self, path: str | Path) -> tuple[str, ...] | None:
        try:
            found: builtins.list[str] = os.listdir(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise errors.file_refused(f"list {path}", error) from error
        return tuple(sorted(found))
