"""The corpus of manifests: mistakes people made, each with what lint says of it, and correct ones, which it passes.

A file of tests/fixtures/lint begins with comments. `# source:` says where it comes from: an issue of a public tracker,
retold with our own manifest; a page of documentation; or `none:` and why one writes it. In `mistakes`, each
`# expect: LINE RULE` is a finding, and there are no others; of what is only worth knowing there may be more, of other
rules.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from pathlib import Path

import pytest

from homeport.lint.checking import check
from homeport.lint.findings import Severity
from homeport.lint.fixing import fix
from homeport.lint.rules import ALL

LINT = Path(__file__).parents[1] / "fixtures/lint"
MISTAKES = sorted((LINT / "mistakes").glob("*.yaml"))
CORRECT = sorted((LINT / "correct").glob("*.yaml"))

REVEALED = ("ips-repeated",)
"""What cannot be seen before another mistake is mended."""

_SOURCE = re.compile(r"# source: (\S.*)")
_EXPECT = re.compile(r"# expect: (\d+) ([a-z0-9-]+)")
_ISSUE = re.compile(r"(k8snetworkplumbingwg/(multus-cni|whereabouts)|containernetworking/plugins)#[1-9]\d*")


def named(path: Path) -> str:
    return path.stem


def header(path: Path) -> list[str]:
    """The comments a file begins with."""
    lines = path.read_text().split("\n")
    return lines[: next(n for n, line in enumerate(lines) if not line.startswith("#"))]


def source(path: Path) -> str:
    found = _SOURCE.fullmatch(header(path)[0])
    assert found, f"{path.name}: its first line says no source"
    return found[1]


def expected(path: Path) -> list[tuple[int, str]]:
    """(line, rule) of every `# expect`, in order of place."""
    written = [line for line in header(path) if "expect:" in line]
    found = [_EXPECT.fullmatch(line) for line in written]
    assert all(found), f"{path.name}: {written}"
    return sorted((int(match[1]), match[2]) for match in found if match)


def said(path: Path, notes: Collection[str] = ()) -> list[tuple[int, str]]:
    """(line, rule) of every error and warning, and of the rules `notes`."""
    findings = check({path.name: path.read_text()}).findings
    return sorted((f.line, f.rule) for f in findings if f.severity is not Severity.INFO or f.rule in notes)


@pytest.mark.parametrize("path", MISTAKES, ids=named)
def test_a_mistake_is_found_where_it_is_and_nothing_else_is(path: Path) -> None:
    listed = expected(path)

    assert listed, f"{path.name} expects nothing"
    assert said(path, {rule for _, rule in listed}) == listed


@pytest.mark.parametrize("path", MISTAKES, ids=named)
def test_a_mistake_says_where_it_comes_from_and_what_happened(path: Path) -> None:
    came_from = source(path)

    assert _ISSUE.fullmatch(came_from) or came_from.startswith("none: ")
    told = [line for line in header(path)[1:] if not _EXPECT.fullmatch(line)]
    assert came_from.startswith("none: ") or told, f"{path.name}: what happened is not told"


@pytest.mark.parametrize("path", MISTAKES, ids=named)
def test_fixing_a_mistake_comes_to_rest_and_makes_no_other(path: Path) -> None:
    text = path.read_text()
    before = Counter(f.rule for f in check({path.name: text}).findings)

    once = fix({path.name: text}).texts
    twice = fix(once).texts

    assert twice == once
    after = check(once).findings
    assert not [f for f in after if f.fixable]
    assert not Counter(f.rule for f in after if f.rule not in REVEALED) - before


@pytest.mark.parametrize("path", CORRECT, ids=named)
def test_nothing_is_said_of_a_correct_manifest(path: Path) -> None:
    assert said(path) == []


@pytest.mark.parametrize("path", CORRECT, ids=named)
def test_a_correct_manifest_is_looked_at_and_says_where_it_comes_from(path: Path) -> None:
    report = check({path.name: path.read_text()})

    assert source(path)
    assert report.networks + report.workloads, f"{path.name}: lint saw nothing in it"


def test_the_corpus_is_large_enough_to_mean_something() -> None:
    cited = [s for s in map(source, MISTAKES) if _ISSUE.fullmatch(s)]

    assert len(cited) >= 60
    assert len(CORRECT) >= 30


def test_no_issue_is_told_twice_of_the_same_mistake() -> None:
    told = Counter((source(p), tuple(rule for _, rule in expected(p))) for p in MISTAKES if "#" in source(p))

    assert [key for key, count in told.items() if count > 1] == []


def test_every_rule_has_its_mistake() -> None:
    shown = {rule for path in MISTAKES for _, rule in expected(path)}

    assert sorted({one.rule.id for one in ALL} - shown) == []
