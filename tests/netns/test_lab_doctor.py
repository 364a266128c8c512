"""`homeport doctor --lab`: a lab as it is made is well, and what its files do not agree on is told."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
pytestmark = pytest.mark.root


class Lab:
    """One in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "lab"
        self._env = {**os.environ, "HOMEPORT_LAB_DIR": str(directory)}

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "homeport", *words]
        return subprocess.run(argv, env=self._env, capture_output=True, text=True, check=False)

    def doctor(self) -> tuple[int, list[dict[str, Any]]]:
        """(exit code, what it told)."""
        done = self.run("doctor", "--lab", "lab", "-o", "json")
        return done.returncode, json.loads(done.stdout)["diagnoses"]

    def execute(self, file: str, statement: str) -> None:
        with sqlite3.connect(self.directory / file) as db:
            assert db.execute(statement).rowcount > 0
        db.close()


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    files = [word for name in ("nad", "statefulset") for word in ("-f", str(EXAMPLES / f"{name}.yaml"))]
    up = made.run("lab", "up", *files, "--substitute", "ipvlan=macvlan", "--nodes", "2")
    assert up.returncode == 0, up.stderr
    yield made
    down = made.run("lab", "down")
    assert down.returncode == 0, down.stderr


def test_a_lab_as_it_is_made_is_well(lab: Lab) -> None:
    done = lab.run("doctor", "--lab", "lab")
    assert (done.returncode, done.stdout) == (0, 'lab "lab": nothing is wrong\n'), done.stdout + done.stderr


def test_an_address_without_an_allocation(lab: Lab) -> None:
    lab.execute("allocations.db", "DELETE FROM allocations WHERE address = (SELECT max(address) FROM allocations)")
    code, ((told),) = lab.doctor()
    assert (code, told["id"]) == (1, "address-unguarded")
    assert "web-2" in told["place"]


def test_an_allocation_whose_sandbox_is_gone(lab: Lab) -> None:
    lab.execute("lab.db", "DELETE FROM objects WHERE kind = 'Sandbox' AND CAST(body AS TEXT) LIKE '%\"web-0\"%'")
    code, (told,) = lab.doctor()
    assert (code, told["id"]) == (0, "allocation-unaccounted")


def test_a_damaged_database_is_the_one_thing_told(lab: Lab) -> None:
    assert lab.run("lab", "delete", "pod", "web-0").returncode == 0  # so that there is something in the file itself
    file = lab.directory / "allocations.db"
    with sqlite3.connect(file) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    whole = file.read_bytes()
    file.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    try:
        code, (told,) = lab.doctor()
    finally:
        file.write_bytes(whole)
    assert (code, told["id"]) == (1, "database-damaged")


def test_no_such_lab(tmp_path: Path) -> None:
    done = Lab(tmp_path).run("doctor", "--lab", "nope")
    assert done.returncode == 2
    assert 'find lab "nope"' in done.stderr
