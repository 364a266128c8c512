"""Writes what follows from lint's rules: a page for each, their table in docs/lint.md, and the schemas for editors.

A page's example is the shortest manifest of tests/fixtures/lint/mistakes that expects the rule and as little else as
may be. scripts/check_docs.py says which of these files is not what the code says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from homeport.lint import fixing, reporting, schema
from homeport.lint.checking import check
from homeport.lint.findings import Rule
from homeport.lint.rules import ALL

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
MISTAKES = ROOT / "tests/fixtures/lint/mistakes"

_EXPECT = re.compile(r"^# expect: \d+ ([a-z0-9-]+)$", re.MULTILINE)
_ISSUE = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)#(?P<number>\d+)")
_TABLE = re.compile(r"(?<=<!-- rules -->\n).*?(?=<!-- end of rules -->)", re.DOTALL)


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """A mistake of the corpus: where it comes from, what happened, the manifest without its header."""

    name: str
    source: str
    told: str
    manifest: str
    expected: frozenset[str]


def files() -> Mapping[Path, str]:
    """Every file that is written, by path. A rule without an example has no page."""
    rules = [one.rule for one in ALL]
    chosen = _chosen(_examples())
    pages = {DOCS / f"lint/{r.id}.md": _page(r, chosen[r.id]) for r in rules if r.id in chosen}
    schemas = {ROOT / f"schema/{name}.json": _schema(make()) for name, make in schema.SCHEMAS.items()}
    listing = DOCS / "lint.md"
    return {**pages, **schemas, listing: _TABLE.sub(lambda _: _table(rules), listing.read_text())}


def problems() -> list[str]:
    """One line for each file that is not what the code says, and for each rule that no mistake shows."""
    written = files()
    found = [
        f"{path.relative_to(ROOT)}: not what the code says; run scripts/write_lint_docs.py"
        for path, text in written.items()
        if not path.exists() or path.read_text() != text
    ]
    found += [f"{p.relative_to(ROOT)}: of no rule" for p in (DOCS / "lint").glob("*.md") if p not in written]
    return found + [
        f"rule {one.rule.id}: no mistake in {MISTAKES.relative_to(ROOT)} shows it"
        for one in ALL
        if DOCS / f"lint/{one.rule.id}.md" not in written
    ]


def _examples() -> list[Example]:
    return [_example(path) for path in sorted(MISTAKES.glob("*.yaml"))]


def _example(path: Path) -> Example:
    lines = path.read_text().split("\n")
    end = next(n for n, line in enumerate(lines) if not line.startswith("#"))
    header = lines[:end]
    told = [line.removeprefix("#").strip() for line in header[1:] if not _EXPECT.match(line)]
    return Example(
        name=path.name,
        source=header[0].removeprefix("# source: "),
        told=" ".join(told),
        manifest="\n".join(lines[end:]).strip("\n") + "\n",
        expected=frozenset(_EXPECT.findall("\n".join(header))),
    )


def _chosen(examples: list[Example]) -> dict[str, Example]:
    """For each rule the clearest: little else wrong with it, from a real report, short."""
    best: dict[str, Example] = {}
    for one in sorted(examples, key=lambda e: (len(e.expected), e.source.startswith("none"), len(e.manifest))):
        for rule in one.expected:
            best.setdefault(rule, one)
    return best


def _page(rule: Rule, example: Example) -> str:
    texts = {example.name: example.manifest}
    findings = [f for f in check(texts).findings if f.rule in example.expected]
    fixed = reporting.diff(texts, fixing.fix(texts).texts)
    fix = f"`--fix` {rule.fix}." if rule.fix else "`--fix` leaves it to you: it takes a decision."
    parts = [
        f"# {rule.id}",
        f"*{rule.severity.value}* in [homeport lint](../lint.md)",
        rule.summary,
        rule.explanation,
        fix,
        "## An example",
        _source(example),
        f"```yaml\n{example.manifest}```",
        f"```console\n$ homeport lint {example.name}\n{reporting.text(findings, texts).rstrip()}\n```",
    ]
    if fixed:
        parts += ["What `--fix` changes:", f"```diff\n{fixed.rstrip()}\n```"]
    return "\n\n".join(part for part in parts if part) + "\n"


def _source(example: Example) -> str:
    issue = _ISSUE.fullmatch(example.source)
    if issue is None:
        return example.told
    url = f"https://github.com/{issue['repository']}/issues/{issue['number']}"
    return f"{example.told} (After [{example.source}]({url}).)"


def _table(rules: list[Rule]) -> str:
    rows = [f"| [`{r.id}`](lint/{r.id}.md) | {r.severity.value} | {r.fix} | {r.summary} |" for r in rules]
    return "\n".join(("", "| rule | severity | `--fix` | finds |", "| --- | --- | --- | --- |", *rows, "", ""))


def _schema(made: schema.Schema) -> str:
    return msgspec.json.format(msgspec.json.encode(made), indent=2).decode() + "\n"


if __name__ == "__main__":
    for path, text in files().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
