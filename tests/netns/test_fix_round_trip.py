"""What `homeport lint --fix` makes of the mistakes in tests/fixtures/lint: right text, the configuration that was
meant, and interfaces with addresses in a lab.

`mistakes/NAME.fixed.json` says what was meant by NAME.yaml: of each network its `config`, and as `gets` the addresses
of the first pod on it, or null where the lab cannot attach it (other people's plugins, or an error that is left to its
author); the selection of each workload whose annotation was at fault; and what is found only once it can be read.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
from ruamel.yaml import YAML

from homeport.cni import conflists
from homeport.lint.checking import check
from homeport.lint.findings import Finding, Severity
from homeport.lint.fixing import Fixed, fix
from homeport.lint.manifests import NAD_KIND, NETWORKS
from homeport.multinet.selections import parse
from homeport.plugins.registry import MODULES

MISTAKES = Path(__file__).parents[1] / "fixtures/lint/mistakes"


class Network(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A network as its author meant it, and the addresses of the first pod on it."""

    config: dict[str, Any]
    gets: list[str] | None


class Meant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Networks by name; selections by KIND/NAME of the workload. `reveals` are rules that what was mended breaks."""

    networks: dict[str, Network] = {}
    selections: dict[str, str] = {}
    reveals: list[str] = []


def bothersome(texts: dict[str, str]) -> list[Finding]:
    return [f for f in check(texts).findings if f.severity is not Severity.INFO]


@cache
def fixed(path: Path) -> Fixed:
    return fix({path.name: path.read_text()})


@cache
def meant(path: Path) -> Meant:
    """Nothing where nobody has written it down."""
    written = path.with_suffix(".fixed.json")
    return msgspec.json.decode(written.read_bytes(), type=Meant) if written.exists() else Meant()


def objects(text: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for document in YAML(typ="safe", pure=True).load_all(text):
        found += document["items"] if document["kind"].endswith("List") else [document]
    return found


def networks(text: str) -> dict[str, dict[str, Any]]:
    """The definitions by name."""
    return {one["metadata"]["name"]: one for one in objects(text) if one["kind"] == NAD_KIND}


def selections(text: str) -> dict[str, str]:
    """What pods select, by KIND/NAME of what makes them."""
    found: dict[str, str] = {}
    for one in objects(text):
        pod = one if one["kind"] == "Pod" else one.get("spec", {}).get("template", {})
        notes = pod.get("metadata", {}).get("annotations", {})
        if NETWORKS in notes:
            found[f"{one['kind']}/{one['metadata']['name']}"] = notes[NETWORKS]
    return found


def mended() -> list[Path]:
    """The mistakes of which `--fix` mends something."""
    return [p for p in sorted(MISTAKES.glob("*.yaml")) if any(f.fixable for f in bothersome({p.name: p.read_text()}))]


def attachable() -> Iterator[tuple[Path, str]]:
    for path in MENDED:
        yield from ((path, name) for name, network in meant(path).networks.items() if network.gets is not None)


def types(config: dict[str, Any]) -> set[str]:
    """Every plugin that a configuration names."""
    plugins = config.get("plugins", [config])
    return {p["type"] for p in plugins} | {p["ipam"]["type"] for p in plugins if p.get("ipam")}


def is_special(config: dict[str, Any]) -> bool:
    """Whether it needs what many kernels lack: ipvlan, or VLANs of a bridge."""
    return "ipvlan" in types(config) or any("vlan" in p for p in config.get("plugins", [config]))


MENDED = mended()
ATTACHABLE = list(attachable())
SPECIAL = [(path, name) for path, name in ATTACHABLE if is_special(meant(path).networks[name].config)]


def named(value: Path | str) -> str:
    return value.stem if isinstance(value, Path) else value


def test_some_mistakes_are_mended_and_attached() -> None:
    assert len(MENDED) >= 12
    assert len(ATTACHABLE) >= 8


def test_nothing_is_written_down_for_what_is_not_mended() -> None:
    assert {p.name.removesuffix(".fixed.json") for p in MISTAKES.glob("*.fixed.json")} == {p.stem for p in MENDED}


@pytest.mark.parametrize("path", MENDED, ids=named)
def test_what_was_mended_lints_clean(path: Path) -> None:
    before = bothersome({path.name: path.read_text()})
    after = bothersome(dict(fixed(path).texts))

    assert not any(f.fixable for f in after)
    expected = [*(f.rule for f in before if not f.fixable), *meant(path).reveals]
    assert not Counter(f.rule for f in after) - Counter(expected)


@pytest.mark.parametrize("path", MENDED, ids=named)
def test_mending_again_changes_nothing(path: Path) -> None:
    again = fix(fixed(path).texts)

    assert (again.texts, again.count) == (fixed(path).texts, 0)


@pytest.mark.parametrize("path", MENDED, ids=named)
def test_only_lines_with_a_mistake_are_touched(path: Path) -> None:
    """Comments, documents without a mistake and everything around them stay as they are."""
    before, after = path.read_text().split("\n"), fixed(path).texts[path.name].split("\n")
    touched = {number for f in check({path.name: path.read_text()}).findings for number in edited(path, f)}

    kept = [line for number, line in enumerate(before, 1) if number not in touched]
    remaining = iter(after)
    assert all(line in remaining for line in kept), "in the same order"


def edited(path: Path, finding: Finding) -> set[int]:
    text = path.read_text()
    lines: set[int] = set()
    for edit in finding.edits:
        first, last = text.count("\n", 0, edit.start) + 1, text.count("\n", 0, edit.end) + 1
        lines.update(range(first, last + 1))
    return lines


@pytest.mark.parametrize("path", MENDED, ids=named)
def test_the_configuration_is_the_one_that_was_meant(path: Path) -> None:
    found = networks(fixed(path).texts[path.name])

    assert {name: json.loads(one["spec"]["config"]) for name, one in found.items()} == {
        name: network.config for name, network in meant(path).networks.items()
    }


@pytest.mark.parametrize("path", MENDED, ids=named)
def test_the_selections_are_those_that_were_meant(path: Path) -> None:
    found = selections(fixed(path).texts[path.name])

    for workload, wanted in meant(path).selections.items():
        assert parse(found[workload], "default") == parse(wanted, "default")


@pytest.mark.parametrize("path", MENDED, ids=named)
def test_every_network_is_attached_that_can_be(path: Path) -> None:
    works = not any(f.severity is Severity.ERROR for f in bothersome(dict(fixed(path).texts)))

    for name, network in meant(path).networks.items():
        conflists.parse(network.config, default_name=name)
        assert (network.gets is not None) == (works and types(network.config) <= set(MODULES)), name


class Lab:
    """A lab in a directory of its own, with one node."""

    def __init__(self, directory: Path) -> None:
        self._env = {**os.environ, "HOMEPORT_LAB_DIR": str(directory)}

    def __call__(self, *words: str, stdin: str = "") -> str:
        argv = [sys.executable, "-m", "homeport", "lab", *words]
        done = subprocess.run(argv, env=self._env, input=stdin, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def addresses(self, path: Path, name: str, *options: str) -> list[str]:
        """Attaches a pod to the mended network, by the mended selection if there is one, and asks its kernel."""
        definition = networks(fixed(path).texts[path.name])[name]
        namespace = definition["metadata"].get("namespace", "default")
        selection = next(iter(meant(path).selections.values()), f"{name}@probe0")
        probe = {
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "metadata": {"name": "probe", "namespace": namespace},
            "spec": {"replicas": 1, "template": {"metadata": {"annotations": {NETWORKS: selection}}}},
        }
        stdin = "\n---\n".join(map(json.dumps, (definition, probe)))
        self("up", "--nodes", "1", "-f", "-", *options, stdin=stdin)
        ifname = parse(selection, namespace)[0].ifname or "net1"
        (link,) = json.loads(self("exec", "probe-0", "--", "ip", "-json", "address", "show", "dev", ifname))
        return [f"{a['local']}/{a['prefixlen']}" for a in link["addr_info"] if a["scope"] == "global"]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path / "labs")
    yield made
    made("down")


@pytest.mark.root
@pytest.mark.parametrize(("path", "name"), sorted({*ATTACHABLE} - {*SPECIAL}), ids=named)
def test_what_was_mended_attaches(lab: Lab, path: Path, name: str) -> None:
    assert lab.addresses(path, name) == meant(path).networks[name].gets


@pytest.fixture(scope="module")
def special_kernel() -> None:
    """Tries each in a namespace that is gone at once."""
    for what, command in {
        "ipvlan": "ip link add v0 type veth && ip link add i0 link v0 type ipvlan",
        "bridge VLAN filtering": "ip link add b0 type bridge vlan_filtering 1",
    }.items():
        made = subprocess.run(["unshare", "--net", "sh", "-c", command], capture_output=True, check=False)
        if made.returncode:
            assert any(word in made.stderr for word in (b"Unknown device type", b"not supported")), made.stderr
            pytest.skip(f"kernel lacks {what}")


@pytest.mark.root
@pytest.mark.guest
@pytest.mark.usefixtures("special_kernel")
@pytest.mark.parametrize(("path", "name"), SPECIAL, ids=named)
def test_what_was_mended_attaches_where_the_kernel_can(lab: Lab, path: Path, name: str) -> None:
    assert lab.addresses(path, name) == meant(path).networks[name].gets


@pytest.mark.root
@pytest.mark.parametrize(("path", "name"), [case for case in SPECIAL if "ipvlan" in str(meant(case[0]))], ids=named)
def test_another_plugin_may_stand_for_a_mended_one(lab: Lab, path: Path, name: str) -> None:
    """macvlan for ipvlan, which works on every kernel."""
    assert lab.addresses(path, name, "--substitute", "ipvlan=macvlan") == meant(path).networks[name].gets
