"""What lint says to code scanning, to GitHub and to an editor, and of which template a finding is."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from homeport.lint import github, manifests, reporting, sarif, schema
from homeport.lint.checking import Report, check
from homeport.lint.findings import Edit, Finding, Severity
from homeport.lint.nodes import plain
from homeport.lint.rules import ALL

LINT = Path(__file__).parents[1] / "fixtures/lint"
CORRECT = sorted((LINT / "correct").glob("*.yaml"))
BROKEN = "tests/some mistakes.yaml"
RULES = [one.rule for one in ALL]

REGION = {
    "type": "object",
    "required": ["startLine", "startColumn", "endLine", "endColumn"],
    "properties": {name: {"type": "integer", "minimum": 1} for name in ("startLine", "startColumn", "endLine")},
}
TEXT = {"type": "object", "required": ["text"], "properties": {"text": {"type": "string", "minLength": 1}}}
ARTIFACT = {"type": "object", "required": ["uri"], "properties": {"uri": {"pattern": "^[!-~]+$"}}}
LEVEL = {"enum": ["error", "warning", "note"]}
# What SARIF 2.1.0 (OASIS) requires of the parts we write, and what code scanning services require besides.
SARIF = {
    "type": "object",
    "required": ["$schema", "version", "runs"],
    "properties": {
        "version": {"const": "2.1.0"},
        "runs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["tool", "results"],
                "properties": {
                    "columnKind": {"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
                    "invocations": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["executionSuccessful"],
                            "properties": {
                                "executionSuccessful": {"type": "boolean"},
                                "toolExecutionNotifications": {
                                    "type": "array",
                                    "items": {
                                        "type": "object",
                                        "required": ["message"],
                                        "properties": {"message": TEXT},
                                    },
                                },
                            },
                        },
                    },
                    "tool": {
                        "properties": {
                            "driver": {
                                "type": "object",
                                "required": ["name", "version", "rules"],
                                "properties": {
                                    "rules": {
                                        "type": "array",
                                        "uniqueItems": True,
                                        "items": {
                                            "type": "object",
                                            "required": ["id", "shortDescription", "fullDescription", "help"],
                                            "properties": {
                                                "shortDescription": TEXT,
                                                "fullDescription": TEXT,
                                                "help": {**TEXT, "required": ["text", "markdown"]},
                                                "defaultConfiguration": {"properties": {"level": LEVEL}},
                                            },
                                        },
                                    }
                                },
                            }
                        }
                    },
                    "results": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["ruleId", "ruleIndex", "level", "message", "locations", "partialFingerprints"],
                            "properties": {
                                "level": LEVEL,
                                "message": TEXT,
                                "locations": {
                                    "minItems": 1,
                                    "items": {
                                        "required": ["physicalLocation"],
                                        "properties": {
                                            "physicalLocation": {
                                                "required": ["artifactLocation", "region"],
                                                "properties": {"artifactLocation": ARTIFACT, "region": REGION},
                                            }
                                        },
                                    },
                                },
                                "fixes": {
                                    "minItems": 1,
                                    "items": {
                                        "required": ["artifactChanges"],
                                        "properties": {
                                            "description": TEXT,
                                            "artifactChanges": {
                                                "minItems": 1,
                                                "items": {
                                                    "required": ["artifactLocation", "replacements"],
                                                    "properties": {
                                                        "replacements": {
                                                            "minItems": 1,
                                                            "items": {
                                                                "required": ["deletedRegion"],
                                                                "properties": {"deletedRegion": REGION},
                                                            },
                                                        }
                                                    },
                                                },
                                            },
                                        },
                                    },
                                },
                            },
                        },
                    },
                },
            },
        },
    },
}


def broken() -> str:
    return (LINT / "mistakes.yaml").read_text()


def logged(texts: dict[str, str], **more: Any) -> dict[str, Any]:
    found = check(texts).findings
    log: dict[str, Any] = json.loads(json.dumps(sarif.log(found, texts, rules=RULES, version="1", **more)))
    jsonschema.validate(log, SARIF)
    (run,) = log["runs"]
    assert isinstance(run, dict)
    return run


def fingerprints(text: str) -> list[str]:
    return [r["partialFingerprints"]["homeportFinding/v1"] for r in logged({BROKEN: text})["results"]]


def test_sarif_has_every_rule_and_the_findings_refer_to_theirs() -> None:
    run = logged({BROKEN: broken()})

    listed = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert listed == [rule.id for rule in RULES]
    assert [listed[r["ruleIndex"]] for r in run["results"]] == [r["ruleId"] for r in run["results"]]
    assert [r["ruleId"] for r in run["results"]] == ["plugin-order", "cni-version-misplaced"]


def test_a_place_in_sarif_is_a_stretch_of_the_file() -> None:
    text = broken()
    (location,) = logged({BROKEN: text})["results"][0]["locations"]

    place = location["physicalLocation"]
    assert place["artifactLocation"] == {"uri": "tests/some%20mistakes.yaml", "uriBaseId": "%SRCROOT%"}
    region = place["region"]
    assert text.split("\n")[region["startLine"] - 1][region["startColumn"] - 1 : region["endColumn"] - 1] == '"sbr"'


def test_an_absolute_path_is_a_file_uri() -> None:
    (location,) = logged({"/srv/a b.yaml": broken()})["results"][0]["locations"]

    assert location["physicalLocation"]["artifactLocation"] == {"uri": "file:///srv/a%20b.yaml"}


def test_the_fixes_in_sarif_are_those_of_fix() -> None:
    text = broken()
    starts = [0]
    for line in text.split("\n"):
        starts.append(starts[-1] + len(line) + 1)

    for found, result in zip(check({BROKEN: text}).findings, logged({BROKEN: text})["results"], strict=True):
        edits = []
        for one in result["fixes"][0]["artifactChanges"][0]["replacements"]:
            region = one["deletedRegion"]
            first = starts[region["startLine"] - 1] + region["startColumn"] - 1
            last = starts[region["endLine"] - 1] + region["endColumn"] - 1
            edits.append(Edit(first, last, one["insertedContent"]["text"]))
        assert sorted(edits) == sorted(found.edits)


def test_a_finding_keeps_its_fingerprint_when_it_moves_and_two_never_share_one() -> None:
    once = fingerprints(broken())
    twice = fingerprints(broken() + "\n---\n" + broken())

    assert fingerprints("# a line more\n\n" + broken()) == once
    assert set(once) < set(twice)
    assert len(set(twice)) == len(twice)


def test_what_could_not_be_read_makes_a_run_unsuccessful() -> None:
    run = logged({}, problems=['read "a.yaml": no such file'])

    assert run["invocations"] == [
        {
            "executionSuccessful": False,
            "toolExecutionNotifications": [{"level": "error", "message": {"text": 'read "a.yaml": no such file'}}],
        }
    ]
    assert logged({})["invocations"][0]["executionSuccessful"] is True


def finding(**more: Any) -> Finding:
    usual = {"line": 3, "column": 5, "end_line": 3, "end_column": 9, "rule": "some-rule", "severity": Severity.WARNING}
    return Finding(**{"file": "a.yaml", "found": "this", "right": "expected that", **usual, **more})


def test_a_finding_is_one_command_of_github() -> None:
    assert github.text([finding()]) == (
        "::warning title=homeport some-rule,file=a.yaml,line=3,endLine=3,col=5,endColumn=9::this; expected that\n"
    )


def test_nothing_in_a_finding_ends_or_splits_its_command() -> None:
    said = github.text([finding(file="a,b:100%\n.yaml", found="50% \r\n::error::mine")])

    assert said.count("\n") == 1
    assert ",file=a%2Cb%3A100%25%0A.yaml,line=3," in said
    assert said.endswith("::50%25 %0D%0A::error::mine; expected that\n")


def test_of_standard_input_there_is_no_line_to_show() -> None:
    assert github.text([finding(file="<stdin>", origin="chart/templates/a.yaml")]) == (
        "::warning title=homeport some-rule::this; expected that (made from chart/templates/a.yaml)\n"
    )


def test_over_several_lines_there_are_no_columns() -> None:
    assert "line=3,endLine=4::" in github.text([finding(end_line=4)])


def nad(more: str = "") -> str:
    return (
        f"apiVersion: k8s.cni.cncf.io/v1\nkind: NetworkAttachmentDefinition\nmetadata:\n  name: net{more}\n"
        "spec:\n  config: '{}'\n"
    )


def of(text: str) -> list[str]:
    """The origins of what is found in a text, each once."""
    return list(dict.fromkeys(f.origin for f in check({"-": text}).findings))


def test_a_finding_in_rendered_text_says_its_template() -> None:
    rendered = f"---\n# Source: demo/templates/a.yaml\n{nad()}---\n# Source: demo/charts/x/b.yaml\n{nad()}---\n{nad()}"

    assert of(rendered) == ["demo/templates/a.yaml", "demo/charts/x/b.yaml", ""]
    (first, *_) = check({"-": rendered}).findings
    assert reporting.plain(first)["origin"] == "demo/templates/a.yaml"
    assert "= made from demo/templates/a.yaml" in reporting.text([first], {"-": rendered})


def test_kustomize_s_own_annotation_goes_before_a_comment() -> None:
    annotated = "\n  annotations:\n    config.kubernetes.io/origin: |\n      path: base/net.yaml\n      repo: x"

    assert of(f"# Source: other.yaml\n{nad(annotated)}---\n{nad()}") == ["base/net.yaml", ""]


def test_a_comment_about_sources_elsewhere_is_none() -> None:
    assert of(nad().replace("spec:", "  # Source: not/at/the/margin\nspec:")) == [""]


CONFIG = jsonschema.Draft7Validator(schema.of_config())
NADS = jsonschema.Draft7Validator(schema.of_nad())


@pytest.mark.parametrize("made", [schema.of_config(), schema.of_nad()], ids=["config", "nad"])
def test_a_schema_is_one(made: schema.Schema) -> None:
    jsonschema.Draft7Validator.check_schema(made)


@pytest.mark.parametrize("path", CORRECT, ids=lambda p: p.stem)
def test_the_schemas_take_what_lint_finds_right(path: Path) -> None:
    read = manifests.read({path.name: path.read_text()})

    for network in read.networks:
        if network.config is not None:
            assert [e.message for e in CONFIG.iter_errors(plain(network.config))] == []
        if network.manifest is not None:
            assert [e.message for e in NADS.iter_errors(plain(network.manifest))] == []


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ('{"cniVersion": "0.4.0", "type": "macvlan", "mastr": "eth1"}', "mastr"),
        ('{"cniVersion": "0.4.0", "type": "macvlan", "mode": "birdge"}', "birdge"),
        ('{"cniVersion": "0.4.0", "type": "macvlan", "mtu": "1500"}', "1500"),
        ('{"cniVersion": "0.4.0", "type": "macvlan", "mtu": -1}', "-1"),
        ('{"cniVersion": "4.0", "type": "macvlan"}', "4.0"),
        ('{"cniVersion": "0.4.0", "type": "vlan", "vlanId": 5}', "master"),
        ('{"cniVersion": "0.4.0", "type": "ipvlan", "ipam": {"type": "whereabouts", "rnge": "10.9.0.0/24"}}', "rnge"),
        ('{"cniVersion": "0.4.0", "type": "ipvlan", "ipam": {"type": "whereabouts", "exclude": "10.9.0.1"}}', "10.9"),
        ('{"cniVersion": "0.4.0", "plugins": [{"type": "sbr", "tabel": 5}]}', "tabel"),
        ('{"cniVersion": "0.4.0", "plugins": []}', "[]"),
        ('{"cniVersion": "0.4.0", "plugin": []}', "type"),
        ("[]", "[]"),
    ],
)
def test_the_schema_marks_what_lint_finds_wrong(config: str, said: str) -> None:
    assert re.search(re.escape(said), " ".join(e.message for e in CONFIG.iter_errors(json.loads(config))))
    assert any(f.severity is not Severity.INFO for f in check({"a.conf": config}).findings)


def test_every_key_says_what_it_is_for() -> None:
    silent = []

    def look(node: object, path: str) -> None:
        if isinstance(node, dict):
            for name, value in (node.get("properties") or {}).items():
                if isinstance(value, dict) and "const" not in value and path != "#/definitions":
                    silent.extend([f"{path}/{name}"] if "description" not in value else [])
            for name, value in node.items():
                if name not in ("if", "else"):
                    look(value, f"{path}/{name}")
        elif isinstance(node, list):
            for value in node:
                look(value, path)

    look(schema.of_config(), "#")
    assert silent == []


def test_an_empty_report_has_no_text() -> None:
    report = Report(findings=(), networks=0, workloads=0)

    assert (github.text(report.findings), reporting.text(report.findings, {})) == ("", "")
