"""What commands print: kubectl's columns, and values that a script can read back."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from ruamel.yaml import YAML

from homeport.cli import output
from homeport.cli.output import Format

NOW = datetime(2026, 11, 23, tzinfo=UTC)
LONG = {"container_id": "8" * 64, "netns": "/run/" + "n" * 120, "addresses": ["10.1.2.3", "fd00::3"]}


def test_columns_are_three_blanks_apart_and_empty_cells_say_so() -> None:
    assert output.table(["name", "node"], [["web-0", "node-1"], ["web-10", ""]]).splitlines() == [
        "NAME     NODE",
        "web-0    node-1",
        "web-10   <none>",
    ]


def test_yaml_keeps_long_values_on_their_line() -> None:
    text = output.yaml(LONG)
    assert len(text.splitlines()) == 5
    assert YAML(typ="safe").load(text) == LONG


@pytest.mark.parametrize(
    ("form", "expected"), [(Format.NAME, "web-0\n"), (Format.TABLE, "NAME\nweb-0\n"), (Format.WIDE, "NAME\nweb-0\n")]
)
def test_show_prints_rows(form: Format, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    output.show(form, LONG, headers=["name"], rows=[["web-0"]])
    assert capsys.readouterr().out == expected


def test_show_prints_the_value_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    output.show(Format.JSON, LONG, headers=["name"], rows=[])
    assert json.loads(capsys.readouterr().out) == LONG


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0s"), (59, "59s"), (119, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h"), (86400, "1d")],
)
def test_age_is_kubectls(seconds: int, text: str) -> None:
    assert output.age(NOW - timedelta(seconds=seconds), NOW) == text
