"""The manifests of which lint says nothing work: every network of tests/fixtures/lint/correct gets a pod in one lab.

So no rule is silent about what a kernel refuses, and no manifest there only looks right.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from homeport.lint import manifests
from homeport.lint.nodes import plain
from homeport.plugins.registry import MODULES

CORRECT = sorted((Path(__file__).parents[1] / "fixtures/lint/correct").glob("*.yaml"))
WIRE_MTU = 1500  # the lab's
MANY_KERNELS_LACK = ("vlan", "vlanTrunk", "macspoofchk")  # of bridges

Plugin = Mapping[str, Any]


def fits(plugin: Plugin) -> bool:
    """Whether the lab has what the plugin needs besides: its program, the pod's own requests, a wide enough wire."""
    ipam = plugin.get("ipam") or {}
    has_program = plugin["type"] in MODULES and ipam.get("type", "static") in MODULES
    asks_the_pod = ipam.get("type") == "static" and "addresses" not in ipam
    has_wire = plugin["type"] not in ("macvlan", "ipvlan") or "master" in plugin
    return (
        has_program
        and has_wire
        and not asks_the_pod
        and not plugin.get("linkInContainer")
        and not any(key in plugin for key in MANY_KERNELS_LACK)
        and plugin.get("mtu", 0) <= WIRE_MTU
    )


def networks() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(file, name, configuration) of each that fits."""
    for path in CORRECT:
        for network in manifests.read({path.name: path.read_text()}).networks:
            if network.config is not None:
                config = plain(network.config)
                if all(map(fits, config.get("plugins", [config]))):
                    yield path.stem, network.name, config


def objects(namespace: str, name: str, config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The network, and a StatefulSet of one on it. Namespaces keep the files apart."""
    metadata = {"name": name, "namespace": namespace}
    yield {
        "apiVersion": "k8s.cni.cncf.io/v1",
        "kind": "NetworkAttachmentDefinition",
        "metadata": metadata,
        "spec": {"config": json.dumps(config)},
    }
    template = {"metadata": {"annotations": {"k8s.v1.cni.cncf.io/networks": name}}}
    spec = {"replicas": 1, "template": template}
    yield {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": metadata, "spec": spec}


@pytest.fixture
def homeport(tmp_path: Path) -> Iterator[Any]:
    def run(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "homeport", "lab", *words]
        env = {**os.environ, "HOMEPORT_LAB_DIR": str(tmp_path / "labs")}
        return subprocess.run(argv, env=env, input=stdin, capture_output=True, text=True, check=False)

    yield run
    run("down")


@pytest.mark.root
def test_every_correct_network_attaches(homeport: Any) -> None:
    wanted = list(networks())
    assert len(wanted) >= 70

    stdin = "\n---\n".join(json.dumps(one) for network in wanted for one in objects(*network))
    up = homeport("up", "--nodes", "1", "--substitute", "ipvlan=macvlan", "-f", "-", stdin=stdin)

    assert up.returncode == 0, up.stdout + up.stderr
    running = [r for r in json.loads(homeport("get", "-o", "json").stdout) if r["phase"] == "Running"]
    assert {(r["namespace"], r["replica"]) for r in running} == {(file, f"{name}-0") for file, name, _ in wanted}
