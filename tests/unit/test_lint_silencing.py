"""Rules of which somebody wants to hear no more: on the command line, and on an object."""

from __future__ import annotations

import json

import pytest
from tests.lint_manifests import IPVLAN, listed, nad, workload

from homeport.lint import checking, fixing
from homeport.lint.silencing import ANNOTATION

POOL = listed(IPVLAN)
COLOURED = nad('{"cniVersion":"0.4.0","type":"macvlan","colour":"red","mtu":"1500"}')


def ids(text: str, *ignored: str) -> list[str]:
    return [finding.rule for finding in checking.check({"a.yaml": text}, ignored=ignored).findings]


def silent(text: str, said: str) -> str:
    """The same definition with what it says of itself."""
    return text.replace("namespace: ns}", f"namespace: ns, annotations: {{{ANNOTATION}: {json.dumps(said)}}}}}", 1)


def test_a_rule_that_is_ignored_says_nothing() -> None:
    assert ids(COLOURED) == ["unknown-key", "wrong-type"]
    assert ids(COLOURED, "unknown-key") == ["wrong-type"]
    assert ids(COLOURED, "unknown-key", "wrong-type") == []


def test_what_is_ignored_is_not_fixed_either() -> None:
    assert fixing.fix({"a.yaml": COLOURED}, ignored=["wrong-type"]).texts["a.yaml"] == COLOURED
    assert fixing.fix({"a.yaml": COLOURED}).texts["a.yaml"] != COLOURED


@pytest.mark.parametrize("said", ["unknown-key,wrong-type", " wrong-type , unknown-key ", "wrong-type unknown-key\n"])
def test_an_object_says_what_not_to_say_of_it(said: str) -> None:
    assert ids(silent(COLOURED, said)) == []


@pytest.mark.parametrize("said", ["", "wrong", "wrong-typed", "all", "*"])
def test_only_whole_ids_count(said: str) -> None:
    assert ids(silent(COLOURED, said)) == ["unknown-key", "wrong-type"]


def test_an_object_speaks_for_itself_alone() -> None:
    other = COLOURED.replace("name: net,", "name: other,")
    assert ids(f"{silent(COLOURED, 'unknown-key')}{other}") == ["wrong-type", "unknown-key", "wrong-type"]
    found = checking.check({"a.yaml": silent(COLOURED, "unknown-key, wrong-type"), "b.yaml": other}).findings
    assert {finding.file for finding in found} == {"b.yaml"}


def test_a_finding_is_silenced_where_it_stands() -> None:
    """The workload asks for a network that is not there: that is said at the workload."""
    asking = workload("missing")
    assert ids(POOL + asking) == ["unknown-network"]
    assert ids(silent(POOL, "unknown-network") + asking) == ["unknown-network"]
    assert ids(POOL + silent(asking, "unknown-network")) == []


def test_in_a_list_each_item_speaks_for_itself() -> None:
    config = json.dumps({"cniVersion": "0.4.0", "type": "macvlan", "colour": "red"})
    items = [
        {
            "apiVersion": "k8s.cni.cncf.io/v1",
            "kind": "NetworkAttachmentDefinition",
            "metadata": {"name": name, "annotations": said},
            "spec": {"config": config},
        }
        for name, said in (("a", {}), ("b", {ANNOTATION: "unknown-key"}))
    ]
    assert ids(json.dumps({"apiVersion": "v1", "kind": "List", "items": items})) == ["unknown-key"]
