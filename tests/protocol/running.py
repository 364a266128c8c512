"""Runs of the simulation, from a seed or in every way, with what a failure has to tell."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.protocol.chances import Chances
from tests.protocol.scheduling import Chooser, Seeded, every_path
from tests.protocol.scripts import Director, Script
from tests.protocol.simulation import DUAL, Simulation

_CALM = (15, 80, 300)  # from a stormy day to a quiet one
_TOLD = 80  # last lines of a history


@contextmanager
def cluster(chooser: Chooser, name: str, *, ipam: Mapping[str, Any] = DUAL) -> Iterator[Simulation]:
    """A cluster whose end is checked, too. An error carries its name and history."""
    folder = Path(tempfile.mkdtemp(prefix="homeport-protocol-"))
    simulation = Simulation(chooser, folder, ipam=ipam)
    try:
        yield simulation
        simulation.calm()
        simulation.end()
    except Exception as e:
        e.add_note("\n".join([name, *simulation.scheduler.trace[-_TOLD:]]))
        raise
    finally:
        simulation.close()
        shutil.rmtree(folder)


def by_chance(seed: int, *, steps: int = 250) -> None:
    """Everything that may happen, in an order that the seed alone decides."""
    chooser = Seeded(seed, calm=_CALM[seed % len(_CALM)])
    with cluster(chooser, f"seed {seed}") as simulation:
        Chances(simulation, chooser.random).run(steps)


def in_every_way(script: Script, *, order: int, fate: int, ipam: Mapping[str, Any] = DUAL) -> int:
    """The script in all orders and with all faults of at most so many; how many runs that were."""
    runs = 0
    for chooser in every_path(order=order, fate=fate):
        runs += 1
        with cluster(chooser, f"{script.__name__}, run {runs}", ipam=ipam) as simulation:
            script(Director(simulation))
    return runs
