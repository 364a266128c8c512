"""No row of the conformance matrix is forgotten, in the lab or on a real API server."""

from __future__ import annotations

import re

import pytest
from conformance import EXEMPT, MATRIX, PLACES, ROOT, rows_of

FILES = {
    "lab": tuple((ROOT / "tests/identity").glob("test_matrix_*.py")),
    "API server": (
        *(ROOT / "tests/identity/cluster").glob("test_cluster_*.py"),
        ROOT / "tests/apiserver/node/test_node_daemon_kills.py",
    ),
}


@pytest.mark.parametrize("place", PLACES)
def test_every_row_has_a_test_or_a_reason(place: str) -> None:
    rows = {row.name for row in rows_of(MATRIX.read_text())}
    tested = {
        f"E{number}"
        for file in FILES[place]
        for number in re.findall(r"^def test_e(\d+)_", file.read_text(), re.MULTILINE)
    }
    exempt = {name for name, where in EXEMPT if where == place}
    assert rows
    assert rows == tested | exempt
    assert not tested & exempt
