"""The shim in each of its forms: as installed, for valgrind, with sanitizers, and in Python."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "shim"
FORMS = ("native", "sanitized", "valgrind", "python")
WITHOUT_VALGRIND = pytest.mark.parametrize("form", ["native", "sanitized", "python"], indirect=True)
"""For tables of values: valgrind takes half a second a call, and the sanitizers look at the same lines."""
TRACED = pytest.mark.parametrize("form", ["native", "python"], indirect=True)
"""For tests below strace(1), which goes with no other observer."""

_FAULT = 86  # the exit code of a fault that valgrind or a sanitizer found

_PYTHON = f"""\
#!{sys.executable} -IS
import sys
sys.path.append({str(ROOT / "src")!r})
from homeport.cli.shim import main
main()
"""


class Done(msgspec.Struct, frozen=True):
    """A run that ended."""

    code: int
    stdout: bytes
    stderr: str

    @property
    def error(self) -> Any:
        """The CNI error object on stdout."""
        assert self.code == 1, self
        return msgspec.json.decode(self.stdout)


class Shim:
    """One form of the shim; `socket` and `journal` lie in the test's folder, the journal made by the test if wanted."""

    def __init__(self, form: str, file: Path, folder: Path) -> None:
        self.form = form
        self.folder = folder
        self.socket = folder / "homeport.sock"
        self.journal = folder / "journal"
        self.soon = "2" if form == "valgrind" else "0.5"  # seconds: a deadline to be reached, but not before its time
        self._file = file
        self._log = folder / "valgrind.log"

    def argv(self, name: str = "homeport") -> list[str]:
        """Starts it by that name."""
        named = self.folder / "bin" / name
        if not named.exists():
            named.parent.mkdir(exist_ok=True)
            shutil.copy(self._file, named)
        checked = ["valgrind", "-q", f"--error-exitcode={_FAULT}", f"--log-file={self._log}.%p"]
        return [*checked, str(named)] if self.form == "valgrind" else [str(named)]

    def environment(self, command: str, **variables: str | Path) -> dict[str, str]:
        """Everything a call has; a variable given as "" is left out."""
        env = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": "c0ffee",
            "CNI_NETNS": "/run/netns/box",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": "/opt/cni/bin",
            "HOMEPORT_SOCKET": str(self.socket),
            "HOMEPORT_JOURNAL": str(self.journal),
            "HOMEPORT_CONNECT_SECONDS": "0",
            "HOMEPORT_TIMEOUT_SECONDS": "30",
            "ASAN_OPTIONS": f"exitcode={_FAULT}",
            "UBSAN_OPTIONS": f"exitcode={_FAULT}:halt_on_error=1",
            "PATH": os.environ["PATH"],
            **{name: str(value) for name, value in variables.items()},
        }
        return {name: value for name, value in env.items() if value}

    def run(
        self, command: str = "ADD", stdin: bytes = b"{}", *, name: str = "homeport", **variables: str | Path
    ) -> Done:
        """One call from its beginning to its end."""
        return self.execute(self.argv(name), self.environment(command, **variables), stdin)

    def execute(self, argv: list[str], env: Mapping[str, str] | Mapping[bytes, bytes], stdin: bytes = b"") -> Done:
        """Any command line that ends in the shim."""
        done = subprocess.run(argv, env=env, input=stdin, capture_output=True, check=False, timeout=60)
        return self.done(done.returncode, done.stdout, done.stderr)

    def done(self, code: int, stdout: bytes, stderr: bytes) -> Done:
        self.require_no_fault()
        text = stderr.decode()
        assert code != _FAULT, text
        assert "runtime error" not in text, text
        return Done(code, stdout, text)

    def require_no_fault(self) -> None:
        """valgrind says nothing about a clean run, and of one that a signal ended only that."""
        for log in self.folder.glob("valgrind.log.*"):
            text = log.read_text()
            assert not text or "default action of signal 15 (SIGTERM)" in text, text
            assert "Invalid" not in text, text
            assert "uninitialised" not in text, text

    def kept(self) -> list[Path]:
        """What lies in the journal, temporary files included."""
        return sorted(self.journal.iterdir())


def build(form: str) -> Path:
    """The executable of that form, built when its source has changed."""
    if form == "python":
        script = SOURCES / "build" / "shim-python"
        script.parent.mkdir(exist_ok=True)
        temporary = script.with_name(f"{script.name}.{os.getpid()}")
        temporary.write_text(_PYTHON)
        temporary.chmod(0o755)
        temporary.rename(script)
        return script
    name = f"homeport-shim-{os.uname().machine}" if form == "native" else f"shim-{form}"
    make(f"build/{name}")
    return SOURCES / "build" / name


def make(*arguments: str) -> None:
    """`make` in the shim's folder, with what is built going into `build/`."""
    argv = ["make", "-s", "-C", str(SOURCES), "INTO=build", *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(argv)}\n{done.stdout}{done.stderr}"
