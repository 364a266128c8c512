"""`python -m benchmarks`: Homeport against the Go plugins, as ratios in one run. Figures, never a pass or a fail.

The same attachment, macvlan + host-local + sbr, by Homeport in one process, by Homeport's executables, and by the Go
executables of Debian's containernetworking-plugins; the bare netlink calls are the floor of them all. And whole pods
on a node: shim, daemon and a real API server.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
from benchmarks.contestants import Contestant, Executables, InProcess
from benchmarks.measuring import figures, in_rounds
from benchmarks.netlink_floor import FLOOR, BareNetlink
from benchmarks.report import Report

from benchmarks import allocating, cluster, node, profiling, report, shim_starting, stage, starting

GO_PLUGINS = Path("/usr/lib/cni")
LIBRARY, OURS, GO = "ours, in-process", "ours, executables", "Go executables"
LEVELS = (0, 1_000, 10_000, 60_000)
PROFILED = 40
IMPORTS_SHOWN = 12


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument("--quick", action="store_true", help="a few rounds, to see that it works (about 40 s)")
    parser.add_argument("--rounds", type=int, default=40, help="rounds of every comparison (default: 40)")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    parser.add_argument("--write", action="store_true", help="put the figures into docs/benchmarks.md")
    args = parser.parse_args()
    stage.enter(sys.argv[1:])
    with tempfile.TemporaryDirectory(prefix="homeport-bench-") as folder:
        rounds, levels = (4, LEVELS[:2]) if args.quick else (args.rounds, LEVELS)
        measured = measure(
            Path(folder),
            rounds=rounds,
            levels=levels,
            pods=8 if args.quick else node.MANY,
            crowd=20 if args.quick else cluster.PODS,
        )
    if args.write:
        report.write_page(measured)
    print(
        msgspec.json.format(msgspec.json.encode(measured)).decode() if args.output == "json" else report.text(measured)
    )


def measure(folder: Path, *, rounds: int, levels: tuple[int, ...], pods: int, crowd: int) -> Report:
    """The whole run; everything it makes is in `folder` and in the stage's namespaces."""
    bin_dir = folder / "bin"
    stage.run(str(Path(sys.executable).with_name("homeport")), "install", "--bin-dir", str(bin_dir))
    library = InProcess(LIBRARY, folder / "library")
    ours = Executables(OURS, folder / "ours", bin_dir, processes=2)
    executables = [ours]
    missing = []
    if (GO_PLUGINS / "macvlan").exists():
        executables.append(Executables(GO, folder / "go", GO_PLUGINS, processes=3))
    else:
        missing.append(f"the Go plugins: {GO_PLUGINS} holds none; Debian's containernetworking-plugins brings them")
    attaching: list[Contestant] = [library, *executables]
    acts = {who.name: _verbs(who, stage.make_pod(f"pod{number}")) for number, who in enumerate(attaching)}
    floor_pod = stage.make_pod("floor")
    acts[FLOOR] = _verbs(BareNetlink(FLOOR, floor_pod), floor_pod)
    attachments = in_rounds(acts, rounds)
    starts = in_rounds({e.name: {"process start": e.ask_version} for e in executables}, rounds)
    (folder / "shim").mkdir()
    shim = shim_starting.measure(folder / "shim", rounds=5 * rounds)
    pod = stage.make_pod("alone")
    stats = profiling.profile(partial(library.add, pod), partial(library.delete, pod), PROFILED)
    return Report(
        machine=report.machine(),
        figures=[
            *figures(attachments, alternative=GO),
            *figures(starts, alternative=GO),
            *figures(allocating.measure(folder, pod, levels, rounds), alternative=""),
            *shim_starting.shim_figures(shim),
        ],
        memory=[
            starting.of_library(LIBRARY, folder / "memory", pod),
            *(starting.of_executables(e, pod) for e in executables),
        ],
        shares=profiling.shares(stats),
        hottest=profiling.hottest(stats, PROFILED, 15),
        imports=starting.slowest_imports(ours, pod, IMPORTS_SHOWN),
        node=None if missing else node.run(rounds, pods),
        cluster=cluster.run(rounds, levels, crowd),
        shim_peak_kib=shim.peak_kib,
        missing=missing,
    )


def _verbs(contestant: Contestant, pod: stage.Pod) -> dict[str, Callable[[], object]]:
    return {"ADD": partial(contestant.add, pod), "DEL": partial(contestant.delete, pod)}


if __name__ == "__main__":
    main()
