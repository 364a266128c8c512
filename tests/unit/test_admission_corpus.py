"""Reviews and lint are of one mind: what lint finds in the corpus is refused or warned of, and nothing else is.

Each object of a file is reviewed as if the others were in the cluster already (tests/unit/test_lint_corpus.py tells of
the corpus itself).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from tests.admission_reviews import Desk, Json

from homeport.admission.reviewing import REVIEWED
from homeport.lint.checking import check
from homeport.lint.findings import Severity

LINT = Path(__file__).parents[1] / "fixtures/lint"
CORRECT = sorted((LINT / "correct").glob("*.yaml"))
MISTAKES = sorted((LINT / "mistakes").glob("*.yaml"))
KINDS = {resource.kind: resource for resource in REVIEWED.values()}

OF_TEXT = {  # what never gets as far as a review: YAML's own, what the API server's schema refuses or drops
    "yaml-syntax",
    "duplicate-key",
    "manifest-kind",
    "config-misplaced",
    "config-not-string",
    "annotation-not-string",
    "definition-twice",
}
OF_PODS = {"ips-twice"}  # between two pods; only StatefulSets are looked at beside the object under review
_RULE = re.compile(r"homeport: ([a-z0-9-]+): ")


def named(path: Path) -> str:
    return path.stem


def objects(path: Path) -> list[Json]:
    """The objects of a file that would be reviewed; none of a file that is no YAML."""
    reader: Any = YAML(typ="safe", pure=True)
    reader.allow_duplicate_keys = True
    try:
        documents = [d for d in reader.load_all(path.read_text()) if isinstance(d, dict)]
    except YAMLError:
        return []
    listed = [item for d in documents for item in (d["items"] if str(d.get("kind")).endswith("List") else [d])]
    found = [d for d in listed if d.get("kind") in KINDS and isinstance(d.get("metadata"), dict)]
    for number, body in enumerate(found):
        body["metadata"].setdefault("namespace", "default")
        body["metadata"].setdefault("name", f"unnamed-{number}")
    return [body for body in found if _can_be_stored(body)]


def _can_be_stored(body: Json) -> bool:
    """Whether an API server would take it: annotations are strings, and so is a configuration."""
    notes = [body["metadata"].get("annotations") or {}]
    template = (body.get("spec") or {}).get("template")
    notes += [template["metadata"].get("annotations") or {}] if isinstance(template, dict) else []
    config = (body.get("spec") or {}).get("config", "")
    return isinstance(config, str) and all(isinstance(text, str) for given in notes for text in given.values())


def said(path: Path) -> tuple[set[str], set[str]]:
    """The rules of denials, and those of warnings."""
    bodies = objects(path)
    denied: set[str] = set()
    warned: set[str] = set()
    for body in bodies:
        desk = Desk()
        for other in bodies:
            if other is not body and _key(other) != _key(body):
                desk.has(other)
        response = desk.ask(body)
        denied |= {cause["reason"] for cause in response.get("status", {}).get("details", {}).get("causes", [])}
        warned |= {match[1] for line in response.get("warnings", []) if (match := _RULE.match(line))}
        assert desk.counted(KINDS[body["kind"]].plural, "failed") == 0
    return denied, warned


def _resources(path: Path) -> list[object]:
    return [KINDS[body["kind"]] for body in objects(path)]


def _key(body: Json) -> tuple[str, str, str]:
    return body["kind"], body["metadata"]["namespace"], body["metadata"]["name"]


@pytest.mark.parametrize("path", CORRECT, ids=named)
def test_nothing_is_said_of_what_is_correct(path: Path) -> None:
    assert said(path) == (set(), set())


@pytest.mark.parametrize("path", MISTAKES, ids=named)
def test_what_lint_finds_is_said_with_the_same_weight(path: Path) -> None:
    found = check({path.name: path.read_text()}).findings
    errors, warnings = (
        {f.rule for f in found if f.severity is severity} for severity in (Severity.ERROR, Severity.WARNING)
    )
    denied, warned = said(path)
    assert denied <= errors
    assert warned <= warnings
    assert errors - denied <= OF_TEXT
    assert warnings - warned <= OF_TEXT | (OF_PODS if KINDS["Pod"] in _resources(path) else set())


@pytest.mark.parametrize("path", MISTAKES, ids=named)
def test_whoever_has_a_mistake_already_is_not_locked_out(path: Path) -> None:
    """A label is added, and something that no rule knows of is changed."""
    for body in objects(path):
        desk = Desk()
        for other in objects(path):
            if _key(other) != _key(body):
                desk.has(other)
        metadata = body["metadata"]
        labelled = {**body, "metadata": {**metadata, "labels": {"team": "a"}}}
        noted = {**labelled, "metadata": {**metadata, "annotations": {**(metadata.get("annotations") or {}), "a": "b"}}}
        assert desk.warned(labelled, body) == []
        assert all("it was so before" in line for line in desk.warned(noted, body))
