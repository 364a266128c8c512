"""What commands print: tables in kubectl's style, JSON, YAML, on stdout; on a terminal's stderr what takes its time."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

import msgspec
import typer


class Format(Enum):
    """The values of `-o`."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned columns, three blanks apart, upper-case headers, `<none>` for an empty cell."""
    cells = [[h.upper() for h in headers], *([c or "<none>" for c in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(headers))]
    return "\n".join("   ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells)


def json(value: Any) -> str:
    """Indented JSON of plain values and structs."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def yaml(value: Any) -> str:
    """Block-style YAML of the same values `json` takes."""
    from ruamel.yaml import YAML

    writer = YAML()
    writer.default_flow_style = False
    writer.width = 4096  # an ID or a path stays on its line
    writer.indent(mapping=2, sequence=4, offset=2)
    text = io.StringIO()
    writer.dump(msgspec.json.decode(msgspec.json.encode(value)), text)
    return text.getvalue().rstrip("\n")


def show(form: Format, value: Any, *, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints `value` as JSON or YAML, or `rows` as a table (as `-o name`: the first column alone)."""
    match form:
        case Format.JSON:
            typer.echo(json(value))
        case Format.YAML:
            typer.echo(yaml(value))
        case Format.NAME:
            for row in rows:
                typer.echo(row[0])
        case _:
            typer.echo(table(headers, rows))


def age(since: datetime, now: datetime) -> str:
    """In kubectl's short form: 45s, 12m, 3h, 5d."""
    span = max(now - since, timedelta())
    for unit, length in (("d", timedelta(days=1)), ("h", timedelta(hours=1)), ("m", timedelta(minutes=1))):
        if span >= 2 * length or (unit == "d" and span >= length):
            return f"{span // length}{unit}"
    return f"{int(span.total_seconds())}s"


@contextmanager
def progress(doing: str) -> Iterator[Callable[[str], None]]:
    """A line that changes, on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console

    with Console(stderr=True).status(doing) as status:
        yield lambda text: status.update(text[:100])
