"""Many random histories of a small cluster. A failure names its seed, which alone repeats it, and tells the history.

HOMEPORT_PROTOCOL_SEEDS is how many there are, HOMEPORT_PROTOCOL_FIRST the first.
"""

from __future__ import annotations

import os

import pytest
from tests.protocol.running import by_chance

SEEDS = int(os.environ.get("HOMEPORT_PROTOCOL_SEEDS", "120"))
FIRST = int(os.environ.get("HOMEPORT_PROTOCOL_FIRST", "0"))
AT_ONCE = 20


@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(FIRST, FIRST + SEEDS, AT_ONCE))
def test_no_history_breaks_a_rule(first: int) -> None:
    for seed in range(first, min(first + AT_ONCE, FIRST + SEEDS)):
        by_chance(seed)
