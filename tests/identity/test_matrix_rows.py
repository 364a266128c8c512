"""No row of the conformance matrix is forgotten."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs" / "identity.md"

NOT_IN_A_LAB = {
    "E20": "needs an API server that can be down, and the daemon's own record",
    "E22": "needs the controller as a process of its own",
    "E25": "needs somebody who watches for foreign hosts: the controller",
    "E26": "needs a store that is restored, and nodes that report",
}


def test_every_row_has_a_test_or_a_reason() -> None:
    rows = set(re.findall(r"^\| (E\d+) \|", DOCS.read_text(), re.MULTILINE))
    tested = {
        f"E{number}"
        for file in HERE.glob("test_matrix_*.py")
        for number in re.findall(r"^def test_e(\d+)_", file.read_text(), re.MULTILINE)
    }
    assert rows
    assert rows == tested | set(NOT_IN_A_LAB)
    assert not tested & set(NOT_IN_A_LAB)
