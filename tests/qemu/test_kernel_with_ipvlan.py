"""Tests and demo on Debian's cloud kernel under qemu, for this machine's kernel may have no ipvlan.

One boot; each test of the guest is a subtest here, so that its own failure shows.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[2]
NO_GUEST = 126  # scripts/guest.py: this machine cannot have one
BOOT_SECONDS = 900  # a fifth of it on two idle cores
LINK = "sh -ec 'ip link add d0 type dummy; ip link add i0 link d0 type ipvlan mode l2; ip link delete d0'"
PYTEST = "python -m pytest -m guest -q -p no:cacheprovider"
IN_GUEST = "-n 2 --timeout=300 --junitxml=/run/results/junit.xml"
DEMO = "homeport lab demo"


def guest_tests() -> list[str]:
    """The IDs of the tests marked `guest`, collected here: the guest would take a minute to look through them all."""
    argv = [sys.executable, *PYTEST.split()[1:], "--collect-only", "tests"]
    environ = {**os.environ, "PYTEST_ADDOPTS": ""}  # such as -v, which changes what is printed
    done = subprocess.run(argv, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return [line for line in done.stdout.splitlines() if line.startswith("tests/") and "::" in line]


@pytest.mark.timeout(BOOT_SECONDS + 180)  # the first boot fetches a kernel and builds an image
def test_the_guest_runs_every_ipvlan_test_and_the_demo(tmp_path: Path, subtests: pytest.Subtests) -> None:
    wanted = guest_tests()
    assert wanted
    files = sorted({test.partition("::")[0] for test in wanted})
    commands = [LINK, f"{PYTEST} {IN_GUEST} {' '.join(files)}", DEMO]
    argv = [sys.executable, "scripts/guest.py", "--results", str(tmp_path), "--seconds", str(BOOT_SECONDS), *commands]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == NO_GUEST:
        pytest.skip(f"machine lacks the guest: {done.stderr.strip()}")
    report = tmp_path / "report.json"
    assert report.exists(), done.stdout + done.stderr
    link, tests, demo = (step["returncode"] for step in json.loads(report.read_text())["steps"])
    log = {name: (tmp_path / f"{n}.log").read_text() for n, name in enumerate(("link", "tests", "demo"))}

    with subtests.test("the kernel makes an ipvlan"):
        assert link == 0, log["link"]

    junit = tmp_path / "junit.xml"
    cases = list(ElementTree.parse(junit).iter("testcase")) if junit.exists() else []
    for case in cases:
        with subtests.test(f"{case.get('classname')}.{case.get('name')}"):
            for kind in ("error", "failure", "skipped"):
                for found in case.iter(kind):
                    pytest.fail(f"{kind}: {found.get('message')}\n{found.text or ''}", pytrace=False)
    with subtests.test("every test ran"):
        assert len(cases) == len(wanted), log["tests"]
        assert tests == 0, log["tests"]

    with subtests.test("the demo, with real ipvlan"):
        assert demo == 0, log["demo"]
        assert "--substitute" not in log["demo"], log["demo"]  # nothing stands in for ipvlan here
