"""Files that a person names: manifests, directories of them, standard input."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from homeport.model.errors import CniError, DecodeFailure, IOFailure

STDIN = "-"
STDIN_NAME = "<stdin>"
SUFFIXES = (".yaml", ".yml", ".json", ".conf", ".conflist")
_MAX_BYTES = 32 * 1024 * 1024


def read_all(files: Iterable[str]) -> tuple[dict[str, str], list[CniError]]:
    """Texts by name, in order; what could not be read does not keep the rest from being checked."""
    texts: dict[str, str] = {}
    problems: list[CniError] = []
    for given in files:
        try:
            for name, path in _found(given):
                try:
                    texts[name] = _read(name, path)
                except CniError as e:
                    problems.append(e)
        except CniError as e:
            problems.append(e)
    return texts, problems


def _found(given: str) -> list[tuple[str, Path | None]]:
    """The files that an argument names; of a directory those with a manifest's suffix, hidden ones left out."""
    path = Path(given)
    if given == STDIN:
        return [(STDIN_NAME, None)]
    if not path.is_dir():
        return [(given, path)]
    below: list[Path] = []
    for root, directories, names in os.walk(path, onerror=_refuse):
        directories[:] = sorted(d for d in directories if not d.startswith("."))
        below += [Path(root, n) for n in sorted(names) if n.endswith(SUFFIXES) and not n.startswith(".")]
    if not below:
        raise IOFailure(f'read directory "{given}": found no manifest, expected files named *{", *".join(SUFFIXES)}')
    return [(str(p), p) for p in below]


def _refuse(error: OSError) -> None:
    raise IOFailure(f'read directory "{error.filename}": {os.strerror(error.errno or 0)}') from error


def _read(name: str, path: Path | None) -> str:
    try:
        if path is None:
            raw = _bounded(sys.stdin.buffer)
        else:
            with path.open("rb") as file:
                raw = _bounded(file)
    except OSError as e:
        raise IOFailure(f'read "{name}": {e.strerror}') from e
    if len(raw) > _MAX_BYTES:
        raise IOFailure(f'read "{name}": found more than {_MAX_BYTES >> 20} MiB, expected manifests')
    try:
        return raw.decode()
    except UnicodeDecodeError as e:
        byte = raw[e.start]
        raise DecodeFailure(f'read "{name}": found byte 0x{byte:02x} at {e.start}, expected UTF-8 text') from e


def _bounded(file: IO[bytes]) -> bytes:
    return file.read(_MAX_BYTES + 1)
