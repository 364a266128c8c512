"""Fixes: what they write, what they leave alone, and that they come to rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from homeport.cni import conflists
from homeport.lint import yamltext
from homeport.lint.checking import check
from homeport.lint.findings import Edit
from homeport.lint.fixing import apply, fix
from homeport.lint.nodes import Node

FIXTURES = Path(__file__).parents[1] / "fixtures" / "lint"
HEAD = "apiVersion: k8s.cni.cncf.io/v1\nkind: NetworkAttachmentDefinition\nmetadata: {name: net}\nspec:\n"
IPVLAN = '{"type":"ipvlan","ipam":{"type":"whereabouts","range":"10.1.0.0/24"}}'


def fixed(text: str) -> str:
    result = fix({"a.yaml": text}).texts["a.yaml"]
    assert fix({"a.yaml": result}).texts["a.yaml"] == result
    assert not any(f.fixable for f in check({"a.yaml": result}).findings)
    return result


def config_of(text: str, place: int = 0) -> conflists.ConfList:
    root = list(yamltext.documents(text))[place]
    assert isinstance(root, Node)
    return conflists.parse(
        (root.text("spec", "config") or "").encode(), default_name=root.text("metadata", "name") or ""
    )


def test_the_mistakes_of_every_beginner() -> None:
    text = (FIXTURES / "mistakes.yaml").read_text()
    result = fixed(text)
    assert check({"a.yaml": result}).findings == ()
    config = config_of(result)
    assert config.cni_version == "0.4.0"
    assert [p["type"] for p in config.plugins] == ["ipvlan", "sbr"]
    assert "cniVersion" not in config.plugins[0]
    article = config_of((FIXTURES / "article.yaml").read_text())
    assert {**config.plugins[0]["ipam"], "log_file": "/tmp/whereabouts.log", "log_level": "error"} == article.plugins[
        0
    ]["ipam"]
    _, separator, after = text.partition("---")
    assert result.endswith(separator + after)


CASES = {
    "a missing version takes the first key's layout": (
        'config: |\n    {\n      "plugins": [@]\n    }\n',
        'config: |\n    {\n      "cniVersion": "0.4.0",\n      "plugins": [@]\n    }\n',
    ),
    "on one line": ("config: '{\"plugins\": [@]}'\n", 'config: \'{"cniVersion": "0.4.0", "plugins": [@]}\'\n'),
    "dense": ("config: '{\"plugins\":[@]}'\n", 'config: \'{"cniVersion":"0.4.0","plugins":[@]}\'\n'),
    "a version short of a number": (
        'config: |\n    {"cniVersion": "1.0", "plugins": [@]}\n',
        'config: |\n    {"cniVersion": "1.0.0", "plugins": [@]}\n',
    ),
    "a version without quotes": (
        'config: |\n    {"cniVersion": 0.4, "plugins": [@]}\n',
        'config: |\n    {"cniVersion": "0.4.0", "plugins": [@]}\n',
    ),
    "two at once, sbr to the end": (
        'config: |\n    {"cniVersion":"0.4.0","plugins":[ {"type":"sbr","table":9}, {"type":"tuning"}, @ ]}\n',
        'config: |\n    {"cniVersion":"0.4.0","plugins":[ @, {"type":"tuning"}, {"type":"sbr","table":9} ]}\n',
    ),
    "a trailing comma and a missing one": (
        'config: |\n    {"cniVersion":"0.4.0" "plugins":[@,],}\n',
        'config: |\n    {"cniVersion":"0.4.0", "plugins":[@]}\n',
    ),
    "single quotes and Python's words": (
        "config: |\n    {'cniVersion':'0.4.0',\"disableCheck\":True,\"plugins\":[@]}\n",
        'config: |\n    {"cniVersion":"0.4.0","disableCheck":true,"plugins":[@]}\n',
    ),
    "single quotes inside single quotes": (
        "config: '{''cniVersion'':\"0.4.0\",\"plugins\":[@]}'\n",
        'config: \'{"cniVersion":"0.4.0","plugins":[@]}\'\n',
    ),
    "JSON written as YAML": (
        'config: {"cniVersion": "0.4.0", "plugins": [@]} # why\n',
        'config: \'{"cniVersion": "0.4.0", "plugins": [@]}\' # why\n',
    ),
    "misspelt words": (
        'config: |\n    {"cniVersion":"0.4.0","type":"mac-vlan","Mtu":"15","mode":"Bridge","linkInContainer":"true"}\n',
        'config: |\n    {"cniVersion":"0.4.0","type":"macvlan","mtu":15,"mode":"bridge","linkInContainer":true}\n',
    ),
    "a version repeated": (
        'config: |\n    {"cniVersion":"0.4.0","plugins":[{"type":"macvlan", "cniVersion":"0.4.0"}]}\n',
        'config: |\n    {"cniVersion":"0.4.0","plugins":[{"type":"macvlan"}]}\n',
    ),
    "a version that says nothing": (
        'config: |\n    {"cniVersion":"","plugins":[@]}\n',
        'config: |\n    {"cniVersion":"0.4.0","plugins":[@]}\n',
    ),
    "host bits": (
        'config: |\n    {"cniVersion":"0.4.0","type":"macvlan","ipam":{"type":"whereabouts","range":"10.9.0.77/29"}}\n',
        'config: |\n    {"cniVersion":"0.4.0","type":"macvlan","ipam":{"type":"whereabouts","range":"10.9.0.72/29"}}\n',
    ),
}


@pytest.mark.parametrize(("before", "after"), CASES.values(), ids=CASES.keys())
def test_only_what_is_wrong_changes(before: str, after: str) -> None:
    before, after = (HEAD + "  # why it is so\n  " + part.replace("@", IPVLAN) for part in (before, after))
    result = fixed(before)
    assert result == after
    assert check({"a.yaml": result}).findings == ()
    config_of(result)


@pytest.mark.parametrize(
    "style",
    ["'%s'", '"%s"', "|\n    %s", ">\n    %s"],
    ids=["single-quoted", "double-quoted", "literal", "folded"],
)
def test_a_fix_is_written_in_the_scalar_s_own_quoting(style: str) -> None:
    config = (
        '{\n      "plugins": [\n        { "type": "sbr", "_why": "it\'s" },\n'
        '        {"cniVersion": "1.0.0", "type": "flannel"}\n      ]\n    }'
    )
    written = config.replace("'", "''") if style.startswith("'") else config
    written = written.replace('"', '\\"') if style.startswith('"') else written
    result = fixed(HEAD + "  config: " + style % written + "\n")
    parsed = config_of(result)
    assert parsed.cni_version == "1.0.0"
    assert [dict(p) for p in parsed.plugins] == [{"type": "flannel"}, {"type": "sbr", "_why": "it's"}]
    assert check({"a.yaml": result}).findings == ()


RANGE = '"range":"10.1.0.0/24","range_start":"10.1.0.9","range_end":"10.1.0.2"'
UNSAFE = {
    "two versions that differ": '{"plugins":['
    '{"type":"macvlan","cniVersion":"0.4.0"},{"type":"sbr","cniVersion":"1.0.0"}]}',
    "an unknown version": '{"cniVersion":"0.9.0","type":"macvlan"}',
    "comments": '{"cniVersion":"0.4.0", /* why */ "type":"macvlan"}',
    "a reversed range": '{"cniVersion":"0.4.0","type":"macvlan","ipam":{"type":"whereabouts",' + RANGE + "}}",
    "a key whose value would not fit": '{"cniVersion":"0.4.0","type":"macvlan","ipam":{'
    '"type":"whereabouts","ranges":[]}}',
    "a key that is already there": '{"cniVersion":"0.4.0","type":"macvlan","mtu":1500,"MTU":9000}',
    "something between that may make the interface": '{"cniVersion":"0.4.0","plugins":['
    '{"type":"sbr"},{"type":"mystery"},{"type":"ipvlan","ipam":{"type":"static"}}]}',
}


@pytest.mark.parametrize("config", UNSAFE.values(), ids=UNSAFE.keys())
def test_what_takes_a_decision_is_left_alone(config: str) -> None:
    text = f"{HEAD}  config: |\n    {config}\n"
    assert check({"a.yaml": text}).findings
    assert fix({"a.yaml": text}).texts == {"a.yaml": text}


def test_a_kind_is_corrected_and_then_looked_into() -> None:
    text = (HEAD + '  config: \'{"type":"macvlan"}\'\n').replace("Definition\n", "Defintion\n")
    assert fixed(text) == HEAD + '  config: \'{"cniVersion":"0.4.0","type":"macvlan"}\'\n'


def test_carriage_returns_stay() -> None:
    text = (HEAD + '  config: |\n    {\n      "type": "macvlan"\n    }\n').replace("\n", "\r\n")
    result = fixed(text)
    assert '\r\n      "cniVersion": "0.4.0",\r\n' in result
    assert result.count("\n") == result.count("\r\n")


def test_nothing_is_guessed_where_json_breaks_off() -> None:
    text = HEAD + '  config: \'{"cniVersion":"0.4.0","type":"macvlan","ipam":{"exclude":[5"],"type":"static"}}\'\n'
    assert check({"a.yaml": text}).findings
    assert fix({"a.yaml": text}).texts == {"a.yaml": text}


def test_edits_apply_at_their_places() -> None:
    assert apply("abcdef", {Edit(4, 6, "X"), Edit(1, 2, ""), Edit(3, 3, "-")}) == "ac-dX"
