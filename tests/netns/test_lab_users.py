"""The lab without root: in a user namespace it makes itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUIDE = [
    "-f", str(ROOT / "examples/nad.yaml"), "-f", str(ROOT / "examples/statefulset.yaml"),
    "--substitute", "ipvlan=macvlan",
]  # fmt: skip
NOBODY = 65534
# CAP_SETFCAP alone: without it nobody who is root may be root of a new user namespace (user_namespaces(7)).
POWERLESS = ["setpriv", "--bounding-set=-all,+setfcap", "--inh-caps=-all"]

pytestmark = pytest.mark.root


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory anybody may write to and reach."""
    made = Path(tempfile.mkdtemp(prefix="homeport-test-", dir="/tmp"))
    made.chmod(0o777)
    yield made
    shutil.rmtree(made)


def lab(home: Path, prefix: list[str], *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "HOMEPORT_LAB_DIR": str(home / "labs")}
    argv = [*prefix, *python_for(prefix), "-m", "homeport", "lab", *words]
    if prefix and "--reuid" in prefix[1]:
        env["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), *(p for p in sys.path if p.endswith("site-packages"))])
    return subprocess.run(argv, env=env, capture_output=True, text=True, check=False)


def python_for(prefix: list[str]) -> list[str]:
    """An interpreter that the user behind `prefix` can start: this one may stand in root's own home."""
    own = subprocess.run([*prefix, sys.executable, "-c", ""], capture_output=True, check=False)
    if own.returncode == 0 and not Path(sys.executable).resolve().is_relative_to("/root"):
        return [sys.executable]
    if prefix and "--reuid" in prefix[1]:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        found = shutil.which(f"python{version}", path="/usr/local/bin:/usr/bin")
        if found is None:
            pytest.skip(f"machine lacks a Python {version} that other users may start")
        return [found]
    return [sys.executable]


def require_life(home: Path, prefix: list[str]) -> None:
    """Up, everything deleted, ping, down; nothing left."""
    up = lab(home, prefix, "up", *GUIDE)
    assert up.returncode == 0, up.stderr
    lab(home, prefix, "delete", "pod", "--all")
    listed = json.loads(lab(home, prefix, "get", "-o", "json").stdout)
    assert {r["replica"]: r["addresses"] for r in listed} == {f"web-{n}": [f"10.93.97.{12 + n}"] for n in range(3)}
    assert "6 of 6 reached" in lab(home, prefix, "ping").stdout
    down = lab(home, prefix, "down")
    assert down.returncode == 0, down.stderr
    assert list((home / "labs").iterdir()) == []


def test_without_any_capability(home: Path) -> None:
    require_life(home, POWERLESS)


def test_as_another_user(home: Path) -> None:
    prefix = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    if subprocess.run([*prefix, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("user namespace lacks a second user")
    require_life(home, prefix)


def test_where_user_namespaces_are_forbidden_the_switch_is_named(home: Path) -> None:
    forbid = ["unshare", "--user", "--map-root-user", "sh", "-c",
              'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"', "sh"]  # fmt: skip
    ran = lab(home, [*forbid, *POWERLESS], "up")
    assert ran.returncode == 1
    assert "user namespaces are forbidden, user.max_user_namespaces is 0" in ran.stderr
    assert "sysctl -w user.max_user_namespaces=" in ran.stderr


def test_a_directory_that_cannot_be_made_is_named(home: Path) -> None:
    (home / "labs").write_text("a file")
    ran = lab(home, [], "up")
    assert ran.returncode == 1
    assert f'make the lab\'s directory "{home}/labs/lab"' in ran.stderr
