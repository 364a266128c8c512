"""The benchmarks run to their end. What they measure is nobody's business here: no test is timed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ON_NODE = {"ours: shim, daemon, API server", "Go plugins alone"}
CONTESTANTS = {"ours, in-process", "ours, executables", "Go executables", "bare netlink"}
IN_CLUSTER = {"ours, a pod", "ours, a replica's first", "ours, a replica's return", "Whereabouts' requests"}


@pytest.mark.root
@pytest.mark.timeout(300)
def test_a_quick_run_measures_every_contestant_and_leaves_no_file(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "benchmarks", "--quick", "-o", "json"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert {f["who"] for f in report["figures"] if f["what"] == "ADD"} == CONTESTANTS
    assert all(0 < f["ms"]["min"] <= f["ms"]["median"] <= f["ms"]["max"] for f in report["figures"])
    node = report["node"]
    assert {(f["what"], f["who"]) for f in node["figures"]} == {
        (verb, who) for verb in ("ADD", "DEL") for who in ON_NODE
    }
    assert {b["who"] for b in node["bursts"] if b["pods_a_second"] > 0} == ON_NODE
    assert node["requests"]["patch pods/status"] == pytest.approx(1)
    assert node["memory"]
    assert node["shares"]
    cluster = report["cluster"]
    assert {f["who"] for f in cluster["figures"]} == IN_CLUSTER
    assert {(c["who"], c["got"], c["failures"]) for c in cluster["crowds"] if c["who"] == "ours"} == {("ours", 20, 0)}
    assert cluster["requests"]["ours, a pod"] == {"create ipallocations": pytest.approx(1)}
    assert report["missing"] == []
    assert list(tmp_path.iterdir()) == []
