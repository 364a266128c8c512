"""What a process costs: the memory of an ADD, and what our executables import."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import msgspec
from benchmarks.contestants import Executables, execute
from benchmarks.stage import Pod

# A process counts the memory of the one it was forked from as its own peak. So plugins are started for this figure from
# an interpreter with next to nothing in it; no peak can be told apart below that interpreter's own.
_LAUNCHER = """
import os, resource, sys
child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(status)
"""
_PEAK = "VmHWM:"


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Peak resident set of the largest process of an ADD, in MiB; `processes` are started for each."""

    who: str
    peak_mib: float
    processes: int


def of_executables(contestant: Executables, pod: Pod) -> Memory:
    """Of the interface plugin, which runs the IPAM plugin; its DEL cleans up, unmeasured."""
    argv, environment, stdin = contestant.call_first("ADD", None, pod)
    launcher = [sys.executable, "-IS", "-c", _LAUNCHER, *argv]
    done = subprocess.run(launcher, env=environment, input=stdin, capture_output=True, check=True)
    execute(*contestant.call_first("DEL", json.loads(done.stdout), pod))
    return Memory(who=contestant.name, peak_mib=int(done.stderr.split()[-1]) / 1024, processes=contestant.processes)


def of_this_process(who: str) -> Memory:
    """For a process that did nothing but attach."""
    status = Path("/proc/self/status").read_text()
    peak_kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith(_PEAK))
    return Memory(who=who, peak_mib=peak_kib / 1024, processes=0)


def of_library(who: str, folder: Path, pod: Pod) -> Memory:
    """In a process of its own, for this one has long grown."""
    argv = [sys.executable, "-m", "benchmarks.attach_once", who, str(folder), pod.container_id, pod.netns_path]
    out = subprocess.run(argv, capture_output=True, check=True).stdout
    return msgspec.json.decode(out, type=Memory)


def slowest_imports(contestant: Executables, pod: Pod, count: int) -> list[tuple[str, float]]:
    """(module, milliseconds with all it imports) in one ADD of our interface plugin, the slowest first."""
    argv, environment, stdin = contestant.call_first("ADD", None, pod)
    interpreter = Path(argv[0]).read_text().splitlines()[0].removeprefix("#!").split()
    command = [*interpreter, "-X", "importtime", *argv]
    done = subprocess.run(command, env=environment, input=stdin, capture_output=True, check=True)
    execute(*contestant.call_first("DEL", json.loads(done.stdout), pod))
    rows = [line.split(b"|") for line in done.stderr.splitlines() if line.startswith(b"import time:")]
    times = [(row[2].strip().decode(), int(row[1]) / 1000) for row in rows if row[1].strip().isdigit()]
    return sorted(times, key=lambda t: -t[1])[:count]
