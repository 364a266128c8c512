"""Runs against a plain set."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeport.stores.kubernetes.runs import Runs

NUMBERS = st.sets(st.integers(0, 60), max_size=40)


@given(NUMBERS, st.lists(st.tuples(st.booleans(), st.integers(0, 60)), max_size=40), st.integers(0, 60))
def test_runs_are_a_set(first: set[int], changes: list[tuple[bool, int]], low: int) -> None:
    runs, expected = Runs(first), set(first)
    for added, number in changes:
        (runs.add if added else runs.discard)(number)
        (expected.add if added else expected.discard)(number)
    assert [n for n in range(62) if n in runs] == sorted(expected)
    assert runs.count == len(expected)
    assert list(runs.gaps(low, 62)) == [n for n in range(low, 63) if n not in expected]
    assert len(runs) == sum(1 for a, b in pairwise([-2, *sorted(expected)]) if b != a + 1), "the fewest"
    assert str(Runs.parse(str(runs))) == str(runs)
    assert str(runs.shifted(5)) == str(Runs(n + 5 for n in expected))


@given(NUMBERS, st.integers(1, 20))
def test_a_cut_says_where_it_ends(numbers: set[int], most: int) -> None:
    runs = Runs(numbers)
    kept, up_to = runs.cut(most)
    assert len(kept) == min(most, len(runs))
    below = numbers if up_to is None else {n for n in numbers if n < up_to}
    assert kept.count == len(below)
    assert all(n in kept for n in below)


def test_the_text_of_runs() -> None:
    assert str(Runs([0, 1, 2, 3, 7, 9, 10])) == "0-3,7,9-10"
    assert str(Runs()) == ""
    assert Runs.parse("").count == 0


@pytest.mark.parametrize("text", ["3-1", "1,1", "5,3", "1-4,4", "x", "1-", "-1", "1,", "٣"])
def test_text_that_is_no_runs_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="found"):
        Runs.parse(text)
