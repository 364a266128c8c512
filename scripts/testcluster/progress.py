"""What a long job is doing now: a line a step, with the time that has passed. I/O: stderr, and a log file.

The log holds the same lines and all that the programs of a step print.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path


class Unavailable(Exception):
    """Something cannot be had on this machine; the text says what is missing and what would help."""


class Progress:
    """Steps of one job. Several jobs may share a log, one after the other."""

    def __init__(self, job: str, log: Path) -> None:
        self._job = job
        self._log = log
        self._started = time.monotonic()
        log.parent.mkdir(parents=True, exist_ok=True)

    def step(self, what: str) -> None:
        """Says what comes now."""
        line = f"{self._job}: [{time.monotonic() - self._started:5.1f} s] {what}"
        print(line, file=sys.stderr, flush=True)
        with self._log.open("a") as log:
            print(line, file=log)

    def run(
        self, *argv: str, cwd: Path | None = None, env: Mapping[str, str] | None = None, seconds: float = 600
    ) -> None:
        """Runs a program of this step, quietly and at a low priority; raises `Unavailable` when it fails."""
        with self._log.open("a") as log:
            print("+", *argv, file=log, flush=True)
            try:
                done = subprocess.run(
                    ["nice", *argv], cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=seconds
                )
            except FileNotFoundError as e:
                raise Unavailable("nice is not on this machine; it comes with coreutils") from e
            except subprocess.TimeoutExpired as e:
                raise Unavailable(f"{argv[0]}: still running after {seconds:g} s; its output is in {self._log}") from e
        if done.returncode != 0:
            raise Unavailable(f"{' '.join(argv)[:200]}: exit status {done.returncode}\n{self._tail()}")

    def ask(self, *argv: str, env: Mapping[str, str] | None = None) -> str:
        """What a program prints, or "" when it fails or does not exist."""
        try:
            done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return done.stdout if done.returncode == 0 else ""

    def _tail(self, lines: int = 15) -> str:
        text = self._log.read_text(errors="replace").splitlines()[-lines:]
        return os.linesep.join(["", *text, f"(the whole log: {self._log})"])
