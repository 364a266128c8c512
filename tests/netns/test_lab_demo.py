"""`homeport lab demo`: it shows the main job, believes what it sees, and leaves nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import pytest

from homeport.cli import demo

EXAMPLES = Path(__file__).parents[2] / "examples"
DEMO = [sys.executable, "-m", "homeport", "lab", "demo"]

pytestmark = pytest.mark.root


def keepers(directory: Path) -> list[str]:
    """Command lines of keepers of labs below the directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            found.append(path.read_bytes().decode(errors="replace"))
    return [line for line in found if "homeport lab keeper of" in line and str(directory) in line]


def test_the_demo_holds_and_leaves_nothing(tmp_path: Path) -> None:
    ran = subprocess.run(DEMO, env={**os.environ, "TMPDIR": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.endswith("\nsame addresses: yes\n")
    assert not [line for line in ran.stdout.splitlines() if line.split()[-1:] == ["NO"]]
    for address in ("10.93.97.12", "10.93.97.13", "10.93.97.14"):
        assert address in ran.stdout
    for scene in ("All pods are deleted at once", "A node loses its power", "Scaled to nothing"):
        assert scene in ran.stdout
    assert list(tmp_path.iterdir()) == []
    assert keepers(tmp_path) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_demo_leaves_nothing(
    tmp_path: Path, wait_until: Callable[..., None], number: signal.Signals, code: int
) -> None:
    running = subprocess.Popen(
        DEMO, env={**os.environ, "TMPDIR": str(tmp_path)}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert running.stderr
    wait_until(lambda: keepers(tmp_path), deadline=30)
    running.send_signal(number)
    stderr = running.communicate()[1]
    assert running.returncode == code, stderr
    assert list(tmp_path.iterdir()) == []
    assert keepers(tmp_path) == []


def test_an_address_that_moved_is_not_called_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    first = {f"web-{n}": demo.Place("node-1", f"10.93.97.{12 + n}") for n in range(3)}
    assert demo.compare(first, first, first)
    assert not demo.compare(first, {**first, "web-1": demo.Place("node-2", "10.93.97.15")}, first)
    assert not demo.compare(first, {k: v for k, v in first.items() if k != "web-2"}, first)
    assert not demo.compare({}, {}, {})
    assert "10.93.97.15" in capsys.readouterr().out


@pytest.mark.parametrize("name", demo.FILES)
def test_the_demo_runs_the_examples(name: str) -> None:
    assert (resources.files("homeport.lab") / "guide" / name).read_text() == (EXAMPLES / name).read_text()
