"""Where things stand: JSON inside every style of YAML scalar, JSON's own mistakes, hostile input."""

from __future__ import annotations

import json

import pytest

from homeport.lint import jsontext, scalars, yamltext
from homeport.lint.checking import check
from homeport.lint.findings import Span
from homeport.lint.nodes import Node, plain

CONFIG = """{
  "cniVersion": "0.4.0",
  "note": "it's é 😀 \\"quoted\\" \\\\ done",
  "plugins": [ { "type":   "sbr" },

    { "type": "ipvlan" } ]
}"""


def indented(text: str) -> str:
    return text.replace("\n", "\n    ")


STYLES = {
    "literal": "config: |\n    " + indented(CONFIG) + "\n",
    "literal, stripped, with a comment": "config: |-   # why\n    " + indented(CONFIG) + "\n",
    "literal with an indicator": "config: |4\n        " + CONFIG.replace("\n", "\n        ") + "\n",
    "literal in CRLF": ("config: |\n    " + indented(CONFIG) + "\n").replace("\n", "\r\n"),
    "folded": "config: >\n    " + indented(CONFIG) + "\n",
    "folded, kept": "config: >+\n    " + indented(CONFIG) + "\n\n\n",
    "single-quoted over lines": "config: '" + indented(CONFIG.replace("'", "''")) + "'\n",
    "double-quoted over lines": 'config: "' + indented(CONFIG.replace("\\", "\\\\").replace('"', '\\"')) + '"\n',
    "double-quoted on one line": "config: " + json.dumps(CONFIG) + "\n",
    "double-quoted with joined lines": 'config: "{\\\n    \\"cniVersion\\": \\"0.4.0\\",\\n\\\n'
    '  \\   \\x22plugins\\u0022: []}"\n',
    "anchored and tagged": "config: &a !!str '" + indented(CONFIG.replace("'", "''")) + "'\n",
}


def value_of(text: str) -> Node:
    (root,) = yamltext.documents(text)
    assert isinstance(root, Node)
    node = root.get("config")
    assert node is not None
    return node


@pytest.mark.parametrize("text", STYLES.values(), ids=STYLES.keys())
def test_every_word_of_the_value_is_found_in_the_file(text: str) -> None:
    node = value_of(text)
    located = scalars.locate(text, node.span, str(node.value), node.style)
    assert jsontext.read(located.text)[1] == ()
    for n, character in enumerate(located.text):
        if not character.isspace():
            written = text[located.starts[n] : located.ends[n]]
            assert written == character or (written[0] in "\\'" and len(written) > 1), (n, character, written)
    assert located.starts == sorted(located.starts)


@pytest.mark.parametrize("style", ["literal", "single-quoted over lines", "double-quoted on one line"])
def test_a_token_keeps_its_place_through_the_quoting(style: str) -> None:
    text = STYLES[style]
    node = value_of(text)
    located = scalars.locate(text, node.span, str(node.value), node.style)
    at = located.text.index('"sbr"')
    span = located.span(Span(at, at + 5))
    assert text[span.start : span.end] in ('"sbr"', '\\"sbr\\"')


@pytest.mark.parametrize("text", [CONFIG, '{"a": [1, -2.5e3, true, null, "\\u00e9\\ud83d\\ude00"], "b": {}}', " [ ] "])
def test_json_reads_as_the_standard_library_reads_it(text: str) -> None:
    node, slips = jsontext.read(text)
    assert node is not None
    assert (plain(node), slips) == (json.loads(text), ())


@pytest.mark.parametrize(
    ("text", "found", "at"),
    [
        ("", "nothing", 0),
        ("{", '"{" that is never closed', 0),
        ('{"a": 1} x', '"x" after the end', 9),
        ('{"a" 1}', '"1" after key "a"', 5),
        ('{"a": }', '"}"', 6),
        ('{"a": 01}', '"01"', 6),
        ('{"a": "\\q"}', "an escape that JSON does not have", 7),
        ('{"a": "x', "a string that is never closed", 6),
        ('{"a": "x\ty"}', "a control character inside a string", 6),
        ("[1 2]", '"2" after a value', 3),
        ('["a" "b"]', "a double quote right after a value", 4),
        ("[1,]", "a comma after the last element", 2),
        ("[1,,2]", '","', 3),
        ("[1] # x", "a comment", 4),
        ("['a']", "'a' in single quotes", 1),
        ("[NaN]", '"NaN"', 1),
        ("[" + "9" * 400 + "]", "a number of 400 digits", 1),
        ("[" * 70, "brackets nested too deeply", 65),
    ],
)
def test_a_mistake_in_json_is_named_where_it_stands(text: str, found: str, at: int) -> None:
    _, slips = jsontext.read(text)
    assert (slips[0].found, slips[0].span.start) == (found, at)


def test_mistakes_in_json_are_not_counted_without_end() -> None:
    node, slips = jsontext.read("[" + "1,/**/" * 10_000)
    assert node is None
    assert len(slips) == 51


NAD = "apiVersion: k8s.cni.cncf.io/v1\nkind: NetworkAttachmentDefinition\nmetadata: {name: a}\nspec:\n  config: '%s'\n"
HOSTILE = {
    "deep JSON": NAD % ('{"a":' * 50_000),
    "deep flow YAML": "[" * 100_000,
    "deep block YAML": "a:\n" + "".join("  " * n + "- \n" for n in range(1, 300)),
    "more than a server takes": NAD % (" " * 4_000_000),
    "ten million characters": "x" * 10_000_000,
    "a hundred thousand documents": "---\na: 1\n" * 100_000,
    "a string without an end": NAD % ('{"' + "a" * 500_000),
    "merge keys on merge keys": "- &a0 {k: 1}\n"
    + "".join(f"- &a{n} {{<<: *a{n - 1}, k{n}: 1}}\n" for n in range(1, 3000)),
    "one text, a thousand times": "kind: List\nitems:\n- "
    + (NAD % ("{" + " " * 20_000 + "}")).replace("config: '", "config: &c '").replace("\n", "\n  ")
    + "".join(
        "\n- " + (NAD % "").replace("''", "*c").replace("\n", "\n  ").replace("name: a", f"name: a{n}")
        for n in range(80)
    ),
    "a character YAML forbids": "a: \x00",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_input_is_refused_in_words(text: str) -> None:
    """Without the limits, most of these take longer than a test may."""
    findings = check({"a.yaml": text}).findings
    assert any(f.rule in ("yaml-syntax", "config-not-json") for f in findings)


def test_an_alias_bomb_costs_nothing() -> None:
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 40)]
    assert check({"a.yaml": "\n".join(rows)}).findings == ()
    lists = ["kind: List", "items:", "- &b0 {kind: List, items: []}"]
    lists += [f"- &b{n} {{kind: List, items: [{', '.join([f'*b{n - 1}'] * 9)}]}}" for n in range(1, 40)]
    assert check({"a.yaml": "\n".join(lists)}).findings == ()
