"""The histories of docs/protocol.md, with every single fault at every request, and every order with one task set back.

HOMEPORT_PROTOCOL_DEEP=1 has both at once, and takes its time.
"""

from __future__ import annotations

import os

import pytest
from tests.protocol.running import in_every_way
from tests.protocol.scripts import SCRIPTS, Script

ORDER_TOO = int(os.environ.get("HOMEPORT_PROTOCOL_DEEP") == "1")


@pytest.mark.timeout(3600 if ORDER_TOO else 600)
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_with_any_fault(script: Script) -> None:
    assert in_every_way(script, order=ORDER_TOO, fate=1) > 20


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_in_any_order(script: Script) -> None:
    assert in_every_way(script, order=1, fate=0) > 1
