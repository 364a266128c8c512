"""`homeport install`: the plugins as executables in a directory that runtimes search.

Each is a launcher of a few lines; the code stays where Homeport is installed. I/O: files below the directory.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from homeport.cli import output
from homeport.model.errors import IOFailure, StoreFull
from homeport.plugins import registry

_MARK = "# A CNI plugin of Homeport, written by `homeport install`."
_SHEBANG_MAX = 127  # bytes that kernels before 5.1 read of the first line
_MODE = 0o755
_PACKAGES = ("homeport", "msgspec")
_HEAD = 1024


class Launcher(msgspec.Struct, frozen=True, kw_only=True):
    """One executable, and what became of it: created, updated, replaced (it was not ours) or unchanged."""

    plugin: str
    path: str
    action: str


def install(
    bin_dir: Annotated[
        Path, typer.Option(help="Directory in which the runtime looks for CNI plugins.", file_okay=False)
    ] = Path("/opt/cni/bin"),
    plugin: Annotated[
        list[str] | None,
        typer.Option(
            help="A plugin to install; may be given several times. All by default.",
            autocompletion=lambda: sorted(registry.MODULES),
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace executables that are not Homeport's.")] = False,
    form: Annotated[output.Format, typer.Option("-o", "--output", help="How to print.")] = output.Format.TABLE,
) -> None:
    """Place the CNI plugins as executables of their own names. Doing it again changes nothing."""
    names = tuple(dict.fromkeys(plugin or sorted(registry.MODULES)))
    for name in names:
        if name not in registry.MODULES:
            known = ", ".join(sorted(registry.MODULES))
            raise typer.BadParameter(f'"{name}" is not a plugin of Homeport: expected one of {known}')
    launchers = _write(bin_dir, names, force=force)
    rows = [(launcher.plugin, launcher.path, launcher.action) for launcher in launchers]
    output.show(form, launchers, headers=("plugin", "path", "action"), rows=rows)


def _write(bin_dir: Path, names: tuple[str, ...], *, force: bool) -> list[Launcher]:
    """Every file is looked at before the first is written, so that a refusal leaves the directory as it was."""
    standing = {name: _head(bin_dir / name) for name in names}
    foreign = [name for name, head in standing.items() if head is not None and not _is_ours(head)]
    if foreign and not force:
        files = ", ".join(str(bin_dir / name) for name in foreign)
        raise IOFailure(f"install plugins: found files that are not Homeport's: {files}", "--force replaces them")
    launchers = []
    for name in names:
        path, text, head = bin_dir / name, _launcher(name), standing[name]
        if head is None:
            action = "created"
        elif not _is_ours(head):
            action = "replaced"
        else:
            action = "unchanged" if _is_up_to_date(path, text) else "updated"
        if action != "unchanged":
            _place(path, text)
        launchers.append(Launcher(plugin=name, path=str(path), action=action))
    return launchers


def _launcher(name: str) -> bytes:
    """A script that finds its packages by itself, since `site` takes time to find them.

    msgspec does without typing_extensions on the Python versions we run on, and loading it takes a tenth of the start.
    """
    folders = list(dict.fromkeys(_folder(package) for package in _PACKAGES))
    return (
        f"{_shebang(sys.executable)}\n{_MARK}\n"
        f"import sys\n\n"
        f"sys.path += {folders!r}\n"
        f'sys.modules["typing_extensions"] = None  # spares its import\n\n'
        f"from homeport.cli.plugin import main\n\n"
        f"main({name!r})\n"
    ).encode()


def _shebang(interpreter: str) -> str:
    """`#!` takes neither a long path nor one with blanks; a shell does, in words that Python reads as a string."""
    line = f"#!{interpreter} -IS"
    if len(line.encode()) <= _SHEBANG_MAX and not any(c.isspace() for c in interpreter):
        return line
    quoted = interpreter.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$").replace("`", "\\`")
    return f"#!/bin/sh\n'''exec' \"{quoted}\" -IS \"$0\" \"$@\"\n' '''"


def _folder(package: str) -> str:
    spec = find_spec(package)
    if spec is None or not spec.origin:
        raise IOFailure(f'install plugins: found no package "{package}", expected it where Homeport is installed')
    return str(Path(spec.origin).resolve().parent.parent)


def _head(path: Path) -> bytes | None:
    """The first bytes of the file, None when there is none. A symbolic link is looked at, not followed."""
    try:
        if path.is_symlink():
            return b""
        with path.open("rb") as file:
            return file.read(_HEAD)
    except FileNotFoundError:
        return None
    except OSError as e:
        raise _failure("read", path, e) from e


def _is_ours(head: bytes) -> bool:
    return _MARK.encode() in head.splitlines()


def _is_up_to_date(path: Path, text: bytes) -> bool:
    try:
        return path.read_bytes() == text and path.stat().st_mode & 0o777 == _MODE
    except OSError as e:
        raise _failure("read", path, e) from e


def _place(path: Path, text: bytes) -> None:
    """Whole or not at all: a runtime may start the plugin at any moment."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=".homeport-", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)
            os.fchmod(file.fileno(), _MODE)
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as e:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        raise _failure("write", path, e) from e


def _failure(verb: str, path: Path, error: OSError) -> IOFailure | StoreFull:
    kind = StoreFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else IOFailure
    return kind(f"{verb} {path}: {os.strerror(error.errno or 0)}")
