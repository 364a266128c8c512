"""`{ordinal}` in a network selection: one static definition a replica, chosen by one annotation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.root

EXAMPLE = Path(__file__).parents[2] / "examples" / "ordinal.yaml"
ANYONE = """\
---
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {name: asked, namespace: shop}
spec:
  config: '{"cniVersion":"1.0.0","plugins":[{"type":"macvlan","master":"eth1","capabilities":{"ips":true,"mac":true},
    "ipam":{"type":"static"}}]}'
"""
WORKLOAD = """\
---
apiVersion: apps/v1
kind: {kind}
metadata: {{name: web, namespace: shop}}
spec:
  replicas: {replicas}
  template:
    metadata:
      annotations: {{k8s.v1.cni.cncf.io/networks: '{networks}'}}
"""

Lab = Callable[..., str]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    env = {**os.environ, "HOMEPORT_LAB_DIR": str(tmp_path / "labs")}

    def run(*words: str, stdin: str = "", code: int = 0) -> str:
        argv = [sys.executable, "-m", "homeport", "lab", *words]
        ran = subprocess.run(argv, env=env, input=stdin, capture_output=True, text=True, check=False)
        assert ran.returncode == code, f"{' '.join(words)}: {ran.returncode}\n{ran.stdout}{ran.stderr}"
        return ran.stdout + ran.stderr

    yield run
    run("down")


def interface(lab: Lab, replica: int, name: str = "net1") -> dict[str, Any]:
    """As the kernel in the pod has it."""
    found: list[dict[str, Any]] = json.loads(lab("exec", f"web-{replica}", "--", "ip", "-j", "addr", "show", name))
    return found[0]


def addresses(link: dict[str, Any]) -> list[str]:
    return [f"{a['local']}/{a['prefixlen']}" for a in link["addr_info"] if a["scope"] == "global"]


def test_each_replica_takes_the_definition_of_its_number(lab: Lab) -> None:
    lab("up", "-f", str(EXAMPLE), "--nodes", "2")
    for again in range(2):
        for n in range(2):
            assert addresses(interface(lab, n)) == [f"10.13.19.{10 + n}/24"]
        if not again:
            lab("delete", "pod", "--all")


def test_a_replica_too_many_says_which_network_it_lacks(lab: Lab) -> None:
    lab("up", "-f", str(EXAMPLE))
    assert 'find network "testnamespace/vlan2"' in lab("scale", "statefulset/web", "--replicas", "3", code=1)
    assert addresses(interface(lab, 1)) == ["10.13.19.11/24"]


def test_name_address_and_mac_follow_the_number(lab: Lab) -> None:
    entry = {
        "name": "asked",
        "interface": "lan{ordinal+1}",
        "ips": ["10.13.19.{ordinal+10}/24"],
        "mac": "02:00:00:00:00:{ordinal+10}",
    }
    lab("up", "-f", "-", stdin=ANYONE + WORKLOAD.format(kind="StatefulSet", replicas=2, networks=json.dumps([entry])))
    for n in range(2):
        link = interface(lab, n, f"lan{n + 1}")
        assert link["address"] == f"02:00:00:00:00:0{'ab'[n]}"
        assert addresses(link) == [f"10.13.19.{10 + n}/24"]


def test_a_pod_that_is_no_replica_says_why_it_does_not_start(lab: Lab) -> None:
    manifests = ANYONE + WORKLOAD.format(kind="Deployment", replicas=1, networks="asked@lan{ordinal}")
    assert 'found "lan{ordinal}" on a pod that is no replica' in lab("up", "-f", "-", stdin=manifests, code=1)
    (pod,) = json.loads(lab("get", "pods", "-o", "json"))
    assert pod["phase"] != "Running"
