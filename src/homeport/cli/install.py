"""`homeport install`: executables in a directory that runtimes search. I/O: files below the directory."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from homeport.cli import executables, output
from homeport.cli.executables import Executable, Kind
from homeport.daemon.calls import META_PLUGIN
from homeport.model.errors import IOFailure, StoreFull
from homeport.plugins import registry

_SHIM = "homeport"
_MODE = 0o755
_OURS_MAX = 4 * 1024 * 1024  # bytes; nothing of ours is larger, and a foreign program may be huge


class Placed(msgspec.Struct, frozen=True, kw_only=True):
    """One executable, and what became of it: created, updated, replaced (it was not ours) or unchanged."""

    plugin: str
    path: str
    action: str
    kind: Kind


def install(
    bin_dir: Annotated[
        Path, typer.Option(help="Directory in which the runtime looks for CNI plugins.", file_okay=False)
    ] = Path("/opt/cni/bin"),
    plugin: Annotated[
        list[str] | None,
        typer.Option(
            help="A plugin to install; may be given several times. All by default; with --shim, none.",
            autocompletion=lambda: sorted({*registry.MODULES, *META_PLUGIN}),
        ),
    ] = None,
    shim: Annotated[
        bool,
        typer.Option(
            "--shim", help="Place the shim, which hands calls to homeportd: as `homeport` and as each --plugin."
        ),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace executables that are not Homeport's.")] = False,
    form: Annotated[output.Format, typer.Option("-o", "--output", help="How to print.")] = output.Format.TABLE,
) -> None:
    """Place the CNI plugins as executables of their own names. Doing it again changes nothing."""
    if shim:
        wanted = [executables.shim(name) for name in _shim_names(plugin or [])]
    else:
        wanted = [executables.launcher(name) for name in _plugin_names(plugin or [])]
    placed = _place_all(bin_dir, wanted, force=force)
    rows = [(one.plugin, one.path, one.action) for one in placed]
    output.show(form, placed, headers=("plugin", "path", "action"), rows=rows)
    if any(one.kind == "python-shim" for one in placed):
        typer.echo(
            f"homeport: found no native shim at {executables.native_path()}: placed the one in Python, which starts "
            "slower and needs this Python; `make shim` builds the native one where there is a C compiler",
            err=True,
        )


def _plugin_names(asked: list[str]) -> tuple[str, ...]:
    for name in asked:
        if name in META_PLUGIN:
            raise typer.BadParameter(f'"{name}" is the meta-plugin, which runs in homeportd: --shim places it')
        if name not in registry.MODULES:
            known = ", ".join(sorted(registry.MODULES))
            raise typer.BadParameter(f'"{name}" is not a plugin of Homeport: expected one of {known}')
    return tuple(dict.fromkeys(asked or sorted(registry.MODULES)))


def _shim_names(asked: list[str]) -> tuple[str, ...]:
    for name in asked:
        if name not in registry.MODULES and name not in META_PLUGIN:
            known = ", ".join(sorted({*registry.MODULES, *META_PLUGIN}))
            raise typer.BadParameter(f'"{name}" is no plugin that homeportd runs: expected one of {known}')
    return tuple(dict.fromkeys([_SHIM, *asked]))


def _place_all(bin_dir: Path, wanted: list[Executable], *, force: bool) -> list[Placed]:
    """Every file is looked at before the first is written, so that a refusal leaves the directory as it was."""
    standing = {one.plugin: _contents(bin_dir / one.plugin) for one in wanted}
    foreign = [name for name, found in standing.items() if found is not None and not executables.is_ours(found)]
    if foreign and not force:
        files = ", ".join(str(bin_dir / name) for name in foreign)
        raise IOFailure(f"install plugins: found files that are not Homeport's: {files}", "--force replaces them")
    placed = []
    for one in wanted:
        path, found = bin_dir / one.plugin, standing[one.plugin]
        if found is None:
            action = "created"
        elif not executables.is_ours(found):
            action = "replaced"
        else:
            action = "unchanged" if found == one.contents and _mode(path) == _MODE else "updated"
        if action != "unchanged":
            _place(path, one.contents)
        placed.append(Placed(plugin=one.plugin, path=str(path), action=action, kind=one.kind))
    return placed


def _contents(path: Path) -> bytes | None:
    """What the file holds, None when there is none. A symbolic link is looked at, not followed: it holds nothing."""
    try:
        if path.is_symlink() or path.stat().st_size > _OURS_MAX:
            return b""
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as e:
        raise _failure("read", path, e) from e


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode & 0o777
    except OSError as e:
        raise _failure("read", path, e) from e


def _place(path: Path, contents: bytes) -> None:
    """Whole or not at all: a runtime may start the plugin at any moment."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=".homeport-", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(contents)
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
