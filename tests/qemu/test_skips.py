"""The rule on skips, by running pytest with the plugin on small modules."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULE = """
import pytest

@pytest.mark.root
def test_ipvlan(): pytest.skip("kernel lacks ipvlan")

def test_other(): pytest.skip("kernel lacks dummy")

@pytest.mark.root
def test_ipvlan_elsewhere(): pytest.skip("no time")

@pytest.mark.xfail(reason="some day")
def test_broken(): assert False

def test_good(): pass
"""


def run(folder: Path, *args: str, no_skips: str) -> tuple[int, str]:
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n  root: needs root\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOMEPORT_NO_SKIPS": no_skips}
    argv = [sys.executable, "-m", "pytest", "-p", "tests.skips", "-p", "no:cacheprovider", "-rA", *args]
    done = subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def test_without_the_variable_a_skip_is_a_skip(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(MODULE)
    returncode, out = run(tmp_path, no_skips="")
    assert "1 passed, 3 skipped, 1 xfailed" in out
    assert returncode == 0


def test_with_it_only_what_the_guest_runs_may_be_skipped(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(MODULE)
    returncode, out = run(tmp_path, no_skips="1")
    assert "3 failed, 1 passed, 1 skipped" in out
    assert 'skipped: "no time": expected none' in out
    assert returncode == 1


def test_the_guest_runs_root_tests_of_ipvlan(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(MODULE)
    _, out = run(tmp_path, "-m", "guest", no_skips="")
    assert "2 skipped, 3 deselected" in out


@pytest.mark.parametrize("no_skips", ["", "1"])
def test_a_whole_module_is_never_skipped_in_silence(tmp_path: Path, no_skips: str) -> None:
    (tmp_path / "test_it.py").write_text('import pytest\npytest.skip("kernel lacks it", allow_module_level=True)\n')
    returncode, out = run(tmp_path, no_skips=no_skips)
    assert ('skipped: "kernel lacks it"' in out) is bool(no_skips)
    assert (returncode == 2) is bool(no_skips)
