"""`make conformance`: runs the rows of the conformance matrix (docs/identity.md), in the lab and on a real API server.

Prints one table, a line a row, with the reasons of what failed. Exits with 1 when a row is red or has no test. I/O:
pytest as a process, its JUnit files, docs/identity.md, and the page that `--markdown` names.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
MATRIX = ROOT / "docs" / "identity.md"
PLACES: Mapping[str, tuple[str, ...]] = {
    "lab": ("tests/identity", "--ignore=tests/identity/cluster"),
    "API server": ("tests/identity/cluster", "tests/apiserver/node/test_node_daemon_kills.py"),
}
"""Where rows are run, and what pytest is given for it."""
EXEMPT: Mapping[tuple[str, str], str] = {
    ("E14", "API server"): "Kubernetes 1.20 has no spec.ordinals.start",
    ("E20", "lab"): "no API server that could be away",
    ("E22", "lab"): "no controller as a process of its own",
    ("E25", "lab"): "no daemon that looks for foreign hosts",
    ("E26", "lab"): "no API server that could be set back",
}
"""(row, place) that has no test, and why."""
_ROW = re.compile(r"^\| (E\d+) \| ([^|]+?) \| ([^|]+?) \|", re.MULTILINE)
_TEST = re.compile(r"test_(e\d+)_")
_REASON_MAX = 200


@dataclass(frozen=True)
class Row:
    """One of the matrix."""

    name: str
    event: str
    outcome: str


@dataclass(frozen=True)
class Result:
    """One test's. `reason` says why it failed or was skipped; "" for one that passed."""

    test: str
    reason: str = ""


@dataclass(frozen=True)
class Verdict:
    """On one row in one place."""

    results: tuple[Result, ...]
    exempt: str = ""

    @property
    def failed(self) -> tuple[Result, ...]:
        return tuple(result for result in self.results if result.reason)

    @property
    def is_red(self) -> bool:
        return bool(self.failed) or not (self.results or self.exempt)

    def __str__(self) -> str:
        if self.failed:
            return f"{len(self.failed)} of {len(self.results)} FAILED"
        if self.results:
            return f"{len(self.results)} passed"
        return "-" if self.exempt else "MISSING"


Verdicts = Mapping[tuple[str, str], Verdict]  # by row and place


def rows_of(page: str) -> tuple[Row, ...]:
    """The matrix, as docs/identity.md has it."""
    return tuple(Row(*found) for found in _ROW.findall(page))


def results_of(junit: str) -> dict[str, list[Result]]:
    """By row: what pytest's JUnit file tells of its tests."""
    found: dict[str, list[Result]] = {}
    for case in ElementTree.fromstring(junit).iter("testcase"):  # noqa: S314 -- pytest wrote it, on our word
        named = _TEST.match(case.get("name", ""))
        if named:
            result = Result(f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}", _reason(case))
            found.setdefault(named[1].upper(), []).append(result)
    return found


def _reason(case: ElementTree.Element) -> str:
    """The first line of what went wrong, also in its teardown."""
    for kind in ("failure", "error", "skipped"):
        problem = case.find(kind)
        if problem is not None:
            said = (problem.get("message") or problem.text or kind).strip().splitlines()
            return f"{kind}: {said[0] if said else ''}"[:_REASON_MAX]
    return ""


def judge(rows: Sequence[Row], results: Mapping[str, Mapping[str, Sequence[Result]]]) -> dict[tuple[str, str], Verdict]:
    """`results` are by place and row."""
    return {
        (row.name, place): Verdict(
            results=tuple(_merged(results[place].get(row.name, ()))), exempt=EXEMPT.get((row.name, place), "")
        )
        for row in rows
        for place in PLACES
    }


def _merged(results: Sequence[Result]) -> list[Result]:
    """A test that failed and whose teardown failed too is told of twice."""
    once = {result.test: result for result in results if not result.reason}
    return list({**once, **{result.test: result for result in results if result.reason}}.values())


def as_text(rows: Sequence[Row], verdicts: Verdicts) -> str:
    """The table for people, reasons below their rows."""
    width = max(len(row.event) for row in rows)
    lines = [f"{'row':5}{'event':{width + 2}}" + "".join(f"{place:18}" for place in PLACES).rstrip()]
    for row in rows:
        cells = "".join(f"{verdicts[row.name, place]!s:18}" for place in PLACES)
        lines.append(f"{row.name:5}{row.event:{width + 2}}{cells}".rstrip())
        for place in PLACES:
            lines += [f"       {place}: {bad.test}: {bad.reason}" for bad in verdicts[row.name, place].failed]
    exempt = [f"{name} is not run in the {place}: {why}" for (name, place), why in EXEMPT.items()]
    red = [name for (name, _), verdict in verdicts.items() if verdict.is_red]
    total = f"red: {', '.join(dict.fromkeys(red))}" if red else f"all {len(rows)} rows hold"
    return "\n".join([*lines, "", *exempt, "", total])


def as_json(rows: Sequence[Row], verdicts: Verdicts) -> str:
    """A list, an object a row."""
    found = [
        {
            "row": row.name,
            "event": row.event,
            "outcome": row.outcome,
            "red": any(verdicts[row.name, place].is_red for place in PLACES),
            "places": {
                place: {
                    "tests": len(verdicts[row.name, place].results),
                    "failed": {bad.test: bad.reason for bad in verdicts[row.name, place].failed},
                    "exempt": verdicts[row.name, place].exempt,
                }
                for place in PLACES
            },
        }
        for row in rows
    ]
    return json.dumps(found, indent=2, ensure_ascii=False)


_PAGE = """# Conformance

Every row of the matrix in [identity.md](identity.md), and how many tests hold it: in the lab on SQLite, and on a real
API server with the real StatefulSet controller and scheduler, nodes with shim and daemon, the controller as a process,
and the roles of `deploy/rbac.yaml`. Rows are run with one interface and IPv4, and with two and both families; in the
lab with the other two combinations as well. What pods have is read by `ip -json` in their namespaces, and objects by
plain GETs.

[`homeport conformance`](verify.md) runs those rows that need no hands on nodes in a cluster of yours.

`make conformance` runs them and prints this table; it fails when a row is red or has no test. This page is what
`make conformance CONFORMANCE_ARGS="--markdown docs/conformance.md"` wrote.

{table}

{exempt}
"""


def as_markdown(rows: Sequence[Row], verdicts: Verdicts) -> str:
    """docs/conformance.md."""
    lines = [f"| # | Event | Outcome | {' | '.join(PLACES)} |", "|---|---|---|" + "---|" * len(PLACES)]
    for row in rows:
        cells = " | ".join(str(verdicts[row.name, place]) for place in PLACES)
        lines.append(f"| {row.name} | {row.event} | {row.outcome} | {cells} |")
    exempt = [f"- {name} is not run in the {place}: {why}." for (name, place), why in EXEMPT.items()]
    return _PAGE.format(table="\n".join(lines), exempt="\n".join(exempt))


def run(place: str, junit: Path) -> None:
    """The rows of that place by pytest; what that prints goes to stderr."""
    options = ["-q", "-n", "2", "-p", "no:cacheprovider", "-k", "test_e", f"--junitxml={junit}"]
    done = subprocess.run([sys.executable, "-m", "pytest", *PLACES[place], *options], cwd=ROOT, stdout=sys.stderr)
    if not junit.exists():
        raise SystemExit(f"conformance: pytest in the {place}: exit status {done.returncode}, and no results")


def main(argv: Sequence[str] | None = None) -> int:
    """The program; its exit status."""
    parser = argparse.ArgumentParser(prog="conformance", description="The conformance matrix, run and told.")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the page there")
    parser.add_argument("--junit", type=Path, metavar="DIR", help="where pytest's results are put, and kept")
    parser.add_argument("--told", action="store_true", help="run nothing: tell what is in --junit from before")
    arguments = parser.parse_args(argv)
    if arguments.told and arguments.junit is None:
        parser.error("--told needs --junit DIR")
    rows = rows_of(MATRIX.read_text())
    with tempfile.TemporaryDirectory() as temporary:
        folder: Path = arguments.junit or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        files = {place: folder / f"{place.replace(' ', '-').lower()}.xml" for place in PLACES}
        for place, file in files.items():
            if not arguments.told:
                file.unlink(missing_ok=True)
                run(place, file)
            elif not file.exists():
                parser.error(f"--told: found no {file}")
        verdicts = judge(rows, {place: results_of(file.read_text()) for place, file in files.items()})
    print(as_json(rows, verdicts) if arguments.output == "json" else as_text(rows, verdicts))
    if arguments.markdown is not None:
        arguments.markdown.write_text(as_markdown(rows, verdicts))
    return int(any(verdict.is_red for verdict in verdicts.values()))


if __name__ == "__main__":
    sys.exit(main())
