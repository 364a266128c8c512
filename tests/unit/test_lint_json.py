"""JSON read on its own way gives what the careful way gives, place for place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from homeport.lint import jsontext, jsontree, manifests, scalars, yamltext
from homeport.lint.checking import check
from homeport.lint.findings import Span
from homeport.lint.fixing import fix
from homeport.lint.nodes import MAX_DEPTH, Node, plain

MISTAKES_IN_YAML = ("yaml-syntax",)
FIXTURES = sorted(
    path for path in (Path(__file__).parents[1] / "fixtures/lint").rglob("*.yaml") if path.stem not in MISTAKES_IN_YAML
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**16), 10**16) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip
NAD = {
    "apiVersion": "k8s.cni.cncf.io/v1",
    "kind": "NetworkAttachmentDefinition",
    "metadata": {"name": "net"},
    "spec": {"config": '{\n\t"cniVersion": "0.4.0",\n\t"name": "é😀\\u00e9", "type": "macvlan", "mastr": "a/b"\n}'},
}


def documents(path: Path) -> list[Any]:
    return list(YAML(typ="safe", pure=True).load_all(path.read_text()))


@given(VALUES, st.sampled_from([None, 2]), st.booleans())
def test_both_readers_of_json_agree(value: object, indent: int | None, ascii_only: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)

    careful, slips = jsontext.read(text)

    assert (jsontree.read(text), slips) == (careful, ())


@pytest.mark.parametrize(
    "text",
    ["", "{", "{}{}", "{} #", "[1,]", "{'a': 1}", "NaN", "01", "[" * 100_000, '["\\x"]', '["\ud800"]', "\ufeff{}"],
    ids=range(12),
)
def test_what_is_not_json_is_left_to_the_careful_reader(text: str) -> None:
    assert jsontree.read(text) is None


def test_what_nobody_means_is_left_to_the_careful_reader() -> None:
    depth = MAX_DEPTH + 2

    assert jsontree.read("[" * depth + "]" * depth) is None
    assert jsontree.read("1" * 19) is None


@given(st.text(st.characters(exclude_categories=["Cs"])), st.booleans())
def test_every_character_of_a_json_string_has_its_place(value: str, ascii_only: bool) -> None:
    source = " " + json.dumps(value, ensure_ascii=ascii_only)

    located = scalars.locate_json(source, Span(1, len(source)), value)

    assert len(located.starts) == len(located.ends) == len(value)
    written = [json.loads(f'"{source[a:b]}"') for a, b in zip(located.starts, located.ends, strict=True)]
    assert written == list(value)


@pytest.mark.parametrize("path", FIXTURES, ids=lambda p: p.stem)
def test_an_object_means_the_same_in_json(path: Path) -> None:
    for document in documents(path):
        text = json.dumps(document, indent=2)
        (as_yaml,) = yamltext.documents(text)
        assert isinstance(as_yaml, Node)

        as_json = jsontree.read(text)

        assert as_json is not None
        assert plain(as_json) == plain(as_yaml)
        found = [(f.rule, f.found) for f in check({"a": text}).findings]
        slow = [(f.rule, f.found) for f in check({"a": f"---\n{text}"}).findings]
        assert found == slow


def test_a_finding_inside_a_string_inside_json_is_at_its_word() -> None:
    text = json.dumps(NAD, indent=2)

    (finding,) = (f for f in check({"net.json": text}).findings if f.rule == "misspelt-key")

    line = text.split("\n")[finding.line - 1]
    assert line[finding.column - 1 : finding.end_column - 1] == '\\"mastr\\"'


@pytest.mark.parametrize("path", FIXTURES, ids=lambda p: p.stem)
def test_what_is_fixed_in_json_stays_json(path: Path) -> None:
    objects = [one for one in documents(path) if one]
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}, indent=2)

    fixed = fix({"a.json": text}).texts["a.json"]

    assert len(json.loads(fixed)["items"]) == len(objects)
    assert [f.rule for f in check({"a.json": fixed}).findings if f.fixable] == []


def test_a_list_in_json_is_read_object_by_object() -> None:
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": [NAD, NAD, {"kind": "Service"}]})

    read = manifests.read({"-": text})

    assert (len(read.networks), len(read.objects)) == (2, 3)


def test_json_goes_nowhere_near_the_slow_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(text: str) -> None:
        raise AssertionError(text)

    monkeypatch.setattr(yamltext, "documents", refuse)

    assert len(manifests.read({"statefulsets/shop/web": f"\n {json.dumps(NAD)}\n"}).networks) == 1


def test_broken_json_is_still_told() -> None:
    assert [f.rule for f in check({"a.json": '{"kind": "Pod",,}'}).findings] == ["yaml-syntax"]
