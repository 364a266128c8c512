"""What `homeport install` places: launchers of single plugins, and the shim. I/O: reads the installation.

A launcher is a few lines that start one plugin; the code stays where Homeport is installed. The shim is a program that
hands the call to homeportd: the native one stands alone, the one in Python is a launcher as well.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import msgspec

import homeport
from homeport.model.errors import IOFailure

Kind = Literal["launcher", "shim", "python-shim"]

_MARK = b"# A CNI plugin of Homeport, written by `homeport install`."
_NATIVE_MARK = b"\nhomeport-shim: hands a CNI call"  # of its --help
_SHEBANG_MAX = 127  # bytes that kernels before 5.1 read of the first line
_PACKAGES = ("homeport", "msgspec")


class Executable(msgspec.Struct, frozen=True, kw_only=True):
    """A file to be placed under the plugin's name."""

    plugin: str
    kind: Kind
    contents: bytes


def launcher(plugin: str) -> Executable:
    """A script that finds its packages by itself, since `site` takes time to find them.

    msgspec does without typing_extensions on the Python versions we run on, and loading it takes a tenth of the start.
    """
    lines = (
        'sys.modules["typing_extensions"] = None  # spares its import',
        "",
        "from homeport.cli.plugin import main",
        "",
        f"main({plugin!r})",
    )
    return Executable(plugin=plugin, kind="launcher", contents=_script(_PACKAGES, lines))


def shim(plugin: str) -> Executable:
    """The native shim of this machine type, or the one in Python where there is none."""
    path = native_path()
    try:
        return Executable(plugin=plugin, kind="shim", contents=path.read_bytes())
    except FileNotFoundError:
        return python_shim(plugin)
    except OSError as e:
        raise IOFailure(f"read {path}: {os.strerror(e.errno or 0)}") from e


def python_shim(plugin: str) -> Executable:
    """The shim that needs no compiler, but this installation and its interpreter."""
    lines = ("", "from homeport.cli.shim import main", "", "main()")
    return Executable(plugin=plugin, kind="python-shim", contents=_script(("homeport",), lines))


def native_path() -> Path:
    """Where `make shim` and the wheel put the native shim of this machine type."""
    return Path(homeport.__file__).parent / "_native" / f"homeport-shim-{os.uname().machine}"


def is_ours(contents: bytes) -> bool:
    """Whether some installation of Homeport wrote this."""
    if contents.startswith(b"\x7fELF"):
        return _NATIVE_MARK in contents
    return _MARK in contents.splitlines()


def _script(packages: tuple[str, ...], lines: tuple[str, ...]) -> bytes:
    folders = list(dict.fromkeys(_folder(package) for package in packages))
    head = (_shebang(sys.executable), _MARK.decode(), "import sys", "", f"sys.path += {folders!r}")
    return "\n".join([*head, *lines, ""]).encode()


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
