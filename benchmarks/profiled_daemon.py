"""The daemon with a profiler around each ADD, for the shares of its time: `python -m benchmarks.profiled_daemon FILE`.

The arguments after FILE are the daemon's own.
"""

from __future__ import annotations

import cProfile
import pstats
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.profiling import Hot, Share

from benchmarks import profiling
from homeport.daemon import answering, process
from homeport.daemon.calls import Call, Outcome

SHOWN = 15


def argv(stats: Path) -> tuple[str, ...]:
    """How it is started; the daemon's own arguments follow."""
    folder = Path(__file__).parent.parent
    program = f"import sys; sys.path.append({str(folder)!r}); from benchmarks.profiled_daemon import main; main()"
    return (sys.executable, "-c", program, str(stats))


def read(stats: Path) -> tuple[list[Share], list[Hot]]:
    """Of the ADDs."""
    loaded = pstats.Stats(str(stats))
    times = int(Path(f"{stats}.times").read_text())
    return profiling.shares(loaded), profiling.hottest(loaded, times, SHOWN)


def main() -> None:
    stats = Path(sys.argv.pop(1))
    profiler = cProfile.Profile()
    times = 0
    carry_out = answering.Answerer.carry_out

    def profiled(self: answering.Answerer, call: Call, is_abandoned: Callable[[], bool] = lambda: False) -> Outcome:
        nonlocal times
        if call.command != "ADD":
            return carry_out(self, call, is_abandoned)
        times += 1
        outcome = profiler.runcall(carry_out, self, call, is_abandoned)
        profiler.dump_stats(stats)
        Path(f"{stats}.times").write_text(str(times))
        return outcome

    answering.Answerer.carry_out = profiled  # type: ignore[method-assign]  # there is no other way in, and none is wanted
    process.main()
