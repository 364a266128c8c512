"""Many random histories of a small cluster. A failure names its seed, which alone repeats it, and tells the history."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.protocol.chances import Chances
from tests.protocol.scheduling import Seeded
from tests.protocol.simulation import Simulation


def run(seed: int, folder: Path, *, steps: int = 250) -> Simulation:
    chooser = Seeded(seed)
    simulation = Simulation(chooser, folder)
    try:
        Chances(simulation, chooser.random).run(steps)
        simulation.calm()
        simulation.end()
    except BaseException as e:
        e.add_note(f"seed {seed}\n" + "\n".join(simulation.scheduler.trace[-60:]))
        raise
    finally:
        simulation.close()
    return simulation


@pytest.mark.parametrize("seed", range(40))
def test_no_history_breaks_a_rule(seed: int, tmp_path: Path) -> None:
    run(seed, tmp_path)
