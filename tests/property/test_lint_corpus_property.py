"""Lint on what people wrote, with a slip more: it answers, places what it says inside the text, and comes to rest."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from homeport.lint.checking import check
from homeport.lint.fixing import fix

CORPUS = [path.read_text() for path in sorted((Path(__file__).parents[1] / "fixtures/lint").rglob("*.yaml"))]
PIECES = st.sampled_from(
    [
        *"\"'{}[],:@/\n ",
        "null",
        "true",
        "7",
        "{}",
        "[]",
        '""',
        "- a\n",
        "\\ud800",
        "ipam",
        "plugins",
        "name",
        "é",
        "{ordinal}",
    ]
)


@st.composite
def slipped(draw: st.DrawFn) -> str:
    """A manifest of the corpus in which a stretch is left out, written twice, or replaced by something else."""
    text = draw(st.sampled_from(CORPUS))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 40)))
        between = draw(st.sampled_from(["", text[start:end] * 2]) | PIECES)
        text = text[:start] + between + text[end:]
    return text


@settings(max_examples=150, deadline=None)
@given(slipped())
def test_whatever_slips_lint_answers_with_places_inside_the_text(text: str) -> None:
    rows = text.split("\n")

    for finding in check({"a.yaml": text}).findings:
        assert 1 <= finding.line <= finding.end_line <= len(rows)
        assert 1 <= finding.column <= len(rows[finding.line - 1]) + 1
        assert all(0 <= edit.start <= edit.end <= len(text) for edit in finding.edits)


@settings(max_examples=100, deadline=None)
@given(slipped())
def test_whatever_slips_fixing_comes_to_rest(text: str) -> None:
    once = fix({"a.yaml": text}).texts

    assert fix(once).texts == once
