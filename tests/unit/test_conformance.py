"""What `make conformance` makes of the matrix and of pytest's results."""

from __future__ import annotations

import json
from pathlib import Path

import conformance
import pytest
from conformance import EXEMPT, MATRIX, PLACES, Result, Row, judge, results_of, rows_of

MATRIX_TEXT = """
| # | Event | Outcome | Tested here |
|---|---|---|---|
| E1 | first start, in any order | replica n has address n | yes |
| E14 | `ordinals.start` goes from 0 to 5 | maps count from it | yes |
"""
ROWS = (
    Row("E1", "first start, in any order", "replica n has address n"),
    Row("E14", "`ordinals.start` goes from 0 to 5", "maps count from it"),
)
JUNIT = """<?xml version="1.0" encoding="utf-8"?>
<testsuites><testsuite name="pytest">
<testcase classname="tests.identity.test_a" name="test_e1_first[1xipv4]" time="1"/>
<testcase classname="tests.identity.test_a" name="test_e1_first[2xdual]" time="1">{problem}</testcase>
<testcase classname="tests.identity.test_a" name="test_every_row_has_a_test" time="1"/>
<testcase classname="tests.identity.test_a" name="test_e14_starts[1xipv4]" time="1"/>
</testsuite></testsuites>"""


def junit(problem: str = "") -> str:
    return JUNIT.format(problem=problem)


@pytest.fixture
def told(tmp_path: Path) -> Path:
    """Results of every row of the real matrix, all passed."""
    for place in PLACES:
        names = [row.name for row in rows_of(MATRIX.read_text()) if (row.name, place) not in EXEMPT]
        cases = "".join(f'<testcase classname="tests.x" name="test_{name.lower()}_it"/>' for name in names)
        (tmp_path / f"{place.replace(' ', '-').lower()}.xml").write_text(f"<testsuites>{cases}</testsuites>")
    return tmp_path


def test_rows_are_read_from_the_page() -> None:
    assert rows_of(MATRIX_TEXT) == ROWS
    assert [row.name for row in rows_of(MATRIX.read_text())] == [f"E{n}" for n in range(1, 27)]


def test_results_are_grouped_by_row() -> None:
    found = results_of(junit())
    assert found == {
        "E1": [Result("test_a::test_e1_first[1xipv4]"), Result("test_a::test_e1_first[2xdual]")],
        "E14": [Result("test_a::test_e14_starts[1xipv4]")],
    }


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        ('<failure message="AssertionError: not the same&#10;and more">text</failure>', "AssertionError: not the same"),
        ('<error message="failed on teardown">text</error>', "failed on teardown"),
        ('<skipped message="kernel lacks ipvlan"/>', "kernel lacks ipvlan"),
        ("<failure>told by its text</failure>", "told by its text"),
    ],
)
def test_what_did_not_pass_makes_its_row_red(problem: str, reason: str) -> None:
    verdicts = judge(ROWS, {place: results_of(junit(problem)) for place in PLACES})
    verdict = verdicts["E1", "lab"]
    assert verdict.is_red
    assert verdict.failed[0].reason.endswith(reason)
    assert str(verdict) == "1 of 2 FAILED"
    assert not verdicts["E14", "lab"].is_red
    text = conformance.as_text(ROWS, verdicts)
    assert f"lab: test_a::test_e1_first[2xdual]: {verdict.failed[0].reason}" in text
    assert text.endswith("red: E1")


def test_a_test_that_is_told_of_twice_counts_once() -> None:
    twice = junit().replace(
        '<testcase classname="tests.identity.test_a" name="test_e14_starts[1xipv4]" time="1"/>',
        '<testcase classname="tests.x" name="test_e1_a"/><testcase classname="tests.x" name="test_e1_a">'
        '<error message="failed on teardown"/></testcase>',
    )
    verdict = judge(ROWS, {place: results_of(twice) for place in PLACES})["E1", "lab"]
    assert len(verdict.results) == 3
    assert len(verdict.failed) == 1


def test_a_row_without_a_test_is_red_unless_it_is_exempt() -> None:
    verdicts = judge(ROWS, {"lab": {}, "API server": {}})
    assert str(verdicts["E1", "lab"]) == "MISSING"
    assert verdicts["E1", "lab"].is_red
    assert ("E14", "API server") in EXEMPT
    assert str(verdicts["E14", "API server"]) == "-"
    assert not verdicts["E14", "API server"].is_red


def test_all_rows_hold(told: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    assert conformance.main(["--junit", str(told), "--told", "--markdown", str(page)]) == 0
    assert capsys.readouterr().out.endswith("all 26 rows hold\n")
    assert "| E26 | the store is restored from an older backup |" in page.read_text()


def test_a_missing_row_fails(told: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = told / "lab.xml"
    file.write_text(file.read_text().replace("test_e3_it", "test_other"))
    assert conformance.main(["--junit", str(told), "--told", "-o", "json"]) == 1
    rows = json.loads(capsys.readouterr().out)
    assert [row["row"] for row in rows if row["red"]] == ["E3"]
    assert rows[2]["places"]["lab"] == {"tests": 0, "failed": {}, "exempt": ""}
    assert rows[19]["places"]["lab"]["exempt"]


@pytest.mark.parametrize("argv", [["--told"], ["--told", "--junit", "/nonexistent-and-new"], ["-o", "xml"]])
def test_wrong_arguments_are_refused(argv: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [word.replace("/nonexistent-and-new", str(tmp_path / "new")) for word in argv]
    with pytest.raises(SystemExit) as end:
        conformance.main(words)
    assert end.value.code == 2
    assert "error:" in capsys.readouterr().err
