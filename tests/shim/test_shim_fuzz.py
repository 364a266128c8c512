"""What reads foreign bytes in the shim, fed with changed examples; `shim/fuzz.c` says what must hold."""

from __future__ import annotations

import subprocess

import pytest
from tests.shim.builds import SOURCES, make


@pytest.mark.parametrize("seed", range(4))
def test_no_bytes_break_the_readers(seed: int) -> None:
    make("build/fuzz-mutating")
    rounds = 20_000
    done = subprocess.run([SOURCES / "build" / "fuzz-mutating", str(rounds), str(seed)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"{rounds} rounds\n"), done.stderr
