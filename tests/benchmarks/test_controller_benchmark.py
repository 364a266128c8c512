"""The controller's benchmark runs to its end. What it measures is nobody's business here: no test is timed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.root
@pytest.mark.timeout(180)
def test_a_small_cluster_is_measured_and_leaves_no_file(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "benchmarks.controller", "--pods", "200", "--networks", "2", "--idle-seconds", "1"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert (figures.pop("pods"), figures.pop("allocations")) == (200, 400)
    assert figures.pop("idle_percent") >= 0
    assert all(value > 0 for value in figures.values()), figures
    assert list(tmp_path.iterdir()) == []
