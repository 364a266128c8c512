"""`homeport install --shim`: which file is placed under which name, and that it works from there."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from tests.shim.builds import build
from tests.shim.peers import Peer, answer, hang_up
from typer.testing import CliRunner, Result

from homeport.cli import executables
from homeport.cli.main import app
from homeport.model.errors import IOFailure

Install = Callable[..., Result]


@pytest.fixture
def bin_dir(tmp_path: Path) -> Path:
    return tmp_path / "bin"


@pytest.fixture
def install(bin_dir: Path) -> Install:
    """`install(*options)`: exit code and output, both streams apart."""

    def run(*options: str) -> Result:
        return CliRunner().invoke(app, ["install", "--bin-dir", str(bin_dir), *options])

    return run


@pytest.fixture
def native(monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation with the native shim."""
    path = build("native")
    monkeypatch.setattr(executables, "native_path", lambda: path)
    return path


@pytest.fixture
def without_native(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(executables, "native_path", lambda: tmp_path / "nothing")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Peer]:
    peer = Peer(tmp_path / "sock", hang_up)
    peer.then(peer.replies(answer(b"answered")))
    yield peer
    peer.close()
    assert peer.failure is None


def actions(done: Result) -> dict[str, tuple[str, str]]:
    assert done.exit_code == 0, done.output
    return {one["plugin"]: (one["action"], one["kind"]) for one in msgspec.json.decode(done.stdout)}


def call(file: Path, socket: Path) -> bytes:
    """With nothing of ours in the environment, as a runtime starts it."""
    env = {"CNI_COMMAND": "ADD", "HOMEPORT_SOCKET": str(socket)}
    return subprocess.run([file], env=env, input=b"{}", capture_output=True, check=True).stdout


def test_the_native_shim_under_every_asked_name(install: Install, native: Path, bin_dir: Path, server: Peer) -> None:
    done = install("--shim", "--plugin=multus", "--plugin=whereabouts", "-o", "json")
    assert actions(done) == dict.fromkeys(("homeport", "multus", "whereabouts"), ("created", "shim"))
    assert done.stderr == ""
    for file in bin_dir.iterdir():
        assert file.read_bytes() == native.read_bytes()
        assert file.stat().st_mode & 0o7777 == 0o755
        assert call(file, bin_dir.parent / "sock") == b"answered"
    called = sorted(request.env[b"HOMEPORT_PLUGIN"] for request in server.requests)
    assert called == [b"homeport", b"multus", b"whereabouts"]


@pytest.mark.usefixtures("without_native")
def test_without_a_native_shim_the_one_in_python_is_placed_and_that_is_said(
    install: Install, bin_dir: Path, server: Peer
) -> None:
    done = install("--shim", "--plugin=ipvlan", "-o", "json")
    assert actions(done) == dict.fromkeys(("homeport", "ipvlan"), ("created", "python-shim"))
    assert "found no native shim at" in done.stderr
    assert "`make shim` builds the native one" in done.stderr
    assert call(bin_dir / "ipvlan", bin_dir.parent / "sock") == b"answered"
    assert server.requests[0].env[b"HOMEPORT_PLUGIN"] == b"ipvlan"


def test_installing_again_changes_nothing(install: Install, native: Path, bin_dir: Path) -> None:
    install("--shim")
    before = (bin_dir / "homeport").stat()
    assert actions(install("--shim", "-o", "json")) == {"homeport": ("unchanged", "shim")}
    after = (bin_dir / "homeport").stat()  # all but the time of access: it is read to be compared
    assert (after.st_ino, after.st_mode, after.st_mtime_ns) == (before.st_ino, before.st_mode, before.st_mtime_ns)
    (bin_dir / "homeport").chmod(0o600)
    assert actions(install("--shim", "-o", "json")) == {"homeport": ("updated", "shim")}


def test_shims_and_launchers_replace_each_other(
    install: Install, native: Path, bin_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert actions(install("--plugin=sbr", "-o", "json")) == {"sbr": ("created", "launcher")}
    assert actions(install("--shim", "--plugin=sbr", "-o", "json"))["sbr"] == ("updated", "shim")
    monkeypatch.setattr(executables, "native_path", lambda: bin_dir / "nothing")
    assert actions(install("--shim", "--plugin=sbr", "-o", "json"))["sbr"] == ("updated", "python-shim")
    assert actions(install("--plugin=sbr", "-o", "json")) == {"sbr": ("updated", "launcher")}


def test_an_older_native_shim_is_ours(install: Install, native: Path, bin_dir: Path) -> None:
    install("--shim")
    with (bin_dir / "homeport").open("ab") as file:
        file.write(b"of another version")
    assert actions(install("--shim", "-o", "json")) == {"homeport": ("updated", "shim")}


def test_a_foreign_program_stays_unless_forced(install: Install, native: Path, bin_dir: Path) -> None:
    bin_dir.mkdir()
    shutil.copy("/bin/true", bin_dir / "multus")
    done = install("--shim", "--plugin=multus")
    assert isinstance(done.exception, IOFailure)
    assert done.exception.msg == f"install plugins: found files that are not Homeport's: {bin_dir}/multus"
    assert not (bin_dir / "homeport").exists(), "a refusal changes nothing"
    assert actions(install("--shim", "--plugin=multus", "--force", "-o", "json"))["multus"] == ("replaced", "shim")


def test_a_huge_foreign_program_is_not_read(install: Install, native: Path, bin_dir: Path) -> None:
    bin_dir.mkdir()
    with (bin_dir / "homeport").open("wb") as file:
        file.truncate(1 << 40)
    assert isinstance(install("--shim").exception, IOFailure)


def test_names_that_are_none(install: Install, bin_dir: Path) -> None:
    done = install("--shim", "--plugin=../x")
    assert done.exit_code == 2
    assert '"../x" is no plugin that homeportd runs: expected one of bridge, homeport,' in done.stderr
    done = install("--plugin=multus")
    assert done.exit_code == 2
    assert '"multus" is the meta-plugin, which runs in homeportd: --shim places it' in done.stderr
    assert not bin_dir.exists()


def test_make_puts_it_where_install_finds_it() -> None:
    makefile = (build("native").parents[1] / "Makefile").read_text()
    assert "INTO ?= ../src/homeport/_native\n" in makefile
    assert executables.native_path().parent.parts[-2:] == ("homeport", "_native")
    assert executables.native_path().name == build("native").name
