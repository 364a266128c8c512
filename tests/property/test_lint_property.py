"""Lint on anything: it answers, it places exactly, and its fixes come to rest."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from homeport.lint import jsontext, manifests, reporting, scalars, yamltext
from homeport.lint.checking import check
from homeport.lint.fixing import fix
from homeport.lint.nodes import Node, plain

FIXTURES = Path(__file__).parents[1] / "fixtures" / "lint"
CONFIG = (
    '{"cniVersion":"0.4.0","name":"n","plugins":[{"type":"sbr"},{"type":"ipvlan","mode":"L2","mtu":"1","ipam":'
    '{"type":"whereabouts","range":"10.0.0.5/24","exclude":["10.0.0.9",5],"gateway":"10.0.0.1","sticky":'
    '{"replicas":{"a/b":["10.0.0.1",["::1"],null]},"retainFor":"x"}}}]}'
)
WHOLE = "".join(
    (FIXTURES / name).read_text() + "---\n" for name in ("mistakes.yaml", "article.yaml", "statefulset.yaml")
)
MARKS = tuple("\"'{}[],:\n#|>\t\\é\ufeff")
WORDS = (
    "  ",
    "&a ",
    "*a",
    "!!str ",
    "---\n",
    "null",
    "true",
    "0.4.0",
    "-1",
    "1e9",
    "{{",
    "cniVersion",
    "plugins",
    "type",
    "sbr",
)
PIECES = st.sampled_from((*MARKS, *WORDS, "ipvlan", "10.1.0.0/24"))

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
words = st.sampled_from(
    ["type", "ipvlan", "sbr", "macvlan", "mtu", "Mtu", "mode", "L2", "ipam", "range", "name", "1500"]
)
plugins = st.dictionaries(
    words,
    words | st.integers(-2, 5000) | st.booleans() | st.none() | st.dictionaries(words, words, max_size=3),
    max_size=4,
)
configs = st.fixed_dictionaries(
    {},
    optional={
        "cniVersion": st.sampled_from(["0.4.0", "1.0", 1.0, "9.9.9", "", None]),
        "plugins": st.lists(
            plugins
            | st.fixed_dictionaries(
                {"type": st.sampled_from(["sbr", "ipvlan", "bridge", "x"]), "cniVersion": st.just("0.4.0")}
            ),
            max_size=4,
        ),
        "type": words,
        "name": words,
    },
)
styles = st.sampled_from(["'", '"', "|", ">"])


def manifest(config: str, style: str) -> str:
    """A definition whose configuration is written in one style of YAML scalar."""
    head = "apiVersion: k8s.cni.cncf.io/v1\nkind: NetworkAttachmentDefinition\nmetadata: {name: net}\nspec:\n  config: "
    match style:
        case "'":
            return head + "'" + config.replace("'", "''").replace("\n", "\n    ") + "' # kept\n"
        case '"':
            return head + json.dumps(config) + " # kept\n"
        case _:
            return head + style + " # kept\n    " + config.replace("\n", "\n    ") + "\n"


@settings(deadline=None)
@given(st.text(max_size=300))
def test_any_text_is_answered(text: str) -> None:
    report = check({"a.yaml": text, "b.conflist": text})
    reporting.text(report.findings, {"a.yaml": text, "b.conflist": text}, colour=True)


@settings(deadline=None)
@given(st.lists(PIECES, max_size=40).map("".join))
def test_any_heap_of_yaml_is_answered(text: str) -> None:
    check({"a.yaml": text, "b.conflist": text})
    fix({"a.yaml": text, "b.conflist": text})


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from([WHOLE, CONFIG]),
    st.lists(st.tuples(st.integers(0, len(WHOLE)), st.integers(0, 6), PIECES), max_size=4),
)
def test_damaged_manifests_are_answered_and_fixing_comes_to_rest(text: str, cuts: list[tuple[int, int, str]]) -> None:
    for start, length, piece in cuts:
        start %= len(text) + 1
        text = text[:start] + piece + text[start + length :]
    report = check({"a.yaml": text})
    reporting.text(report.findings, {"a.yaml": text})
    once = fix({"a.yaml": text}).texts
    before, after = manifests.read({"a.yaml": text}), manifests.read(once)
    assert len(after.troubles) <= len(before.troubles)
    assert sum(n.config is not None for n in after.networks) >= sum(n.config is not None for n in before.networks)
    assert fix(once).texts == once


@settings(deadline=None)
@given(configs, styles, st.sampled_from([None, 2]))
def test_fixing_keeps_the_rest_and_lints_clean_of_what_is_fixable(
    config: object, style: str, indent: int | None
) -> None:
    text = manifest(json.dumps(config, indent=indent), style)
    result = fix({"a.yaml": text}).texts["a.yaml"]
    assert "# kept" in result
    after = check({"a.yaml": result}).findings
    assert not any(f.fixable for f in after), after
    assert not any(f.rule in ("yaml-syntax", "config-not-json") for f in after)


@settings(deadline=None)
@given(json_values, st.sampled_from([None, 1, 4]), st.booleans())
def test_json_reads_as_the_standard_library_reads_it(value: object, indent: int | None, ascii_only: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    node, slips = jsontext.read(text)
    assert node is not None
    assert slips == ()
    assert plain(node) == json.loads(text)


@settings(deadline=None)
@given(st.text(max_size=200))
def test_a_text_without_slips_is_json(text: str) -> None:
    node, slips = jsontext.read(text)
    if node is not None and not slips:
        assert plain(node) == json.loads(text)


@settings(deadline=None)
@given(
    st.text(
        st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp"), exclude_characters="\ufeff\x85"),
        max_size=80,
    ),
    styles,
    st.lists(st.integers(0, 80), max_size=3),
)
def test_every_visible_character_is_placed(value: str, style: str, breaks: list[int]) -> None:
    for place in breaks:
        value = value[:place] + "\n" + value[place:]
    text = manifest("{" + value + "}", style)
    (root,) = yamltext.documents(text)
    if not isinstance(root, Node):
        return
    node = root.get("spec", "config")
    assert node is not None
    located = scalars.locate(text, node.span, str(node.value), node.style)
    assert located.text == YAML(typ="safe", pure=True).load(text)["spec"]["config"]
    for n, character in enumerate(located.text):
        if not character.isspace():
            written = text[located.starts[n] : located.ends[n]]
            assert (
                YAML(typ="safe", pure=True).load(f'"{written}"') == character
                if written != character and style == '"'
                else written.startswith(character)
            )
