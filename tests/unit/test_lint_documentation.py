"""What Homeport's own pages and examples show is right: lint has nothing to say about it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from homeport.lint import reporting
from homeport.lint.checking import check
from homeport.lint.findings import Severity

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```(yaml|json)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks() -> Iterator[tuple[str, str]]:
    """Every block of YAML or JSON that describes networks or workloads, named by page and line."""
    for page in sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")]):
        text = page.read_text()
        for block in _BLOCK.finditer(text):
            line = text.count("\n", 0, block.start()) + 1
            name = f"{page.name}-{line}.{block[1]}"
            report = check({name: block[2]})
            if report.networks or report.workloads:
                yield name, block[2]


SHOWN = dict(blocks())


def require_silence(texts: dict[str, str]) -> None:
    found = [f for f in check(texts).findings if f.severity is not Severity.INFO]
    assert not found, "\n" + reporting.text(found, texts)


def test_the_pages_show_networks_at_all() -> None:
    assert len(SHOWN) >= 8


@pytest.mark.parametrize("name", SHOWN)
def test_what_a_page_shows_is_right(name: str) -> None:
    require_silence({name: SHOWN[name]})


def test_the_examples_are_right_together() -> None:
    require_silence({path.name: path.read_text() for path in sorted((ROOT / "examples").glob("*.yaml"))})
