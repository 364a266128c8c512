"""The commands about addresses on a lab: what was planned is what pods get, and why one waits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.root


def definition(name: str, ipam: dict[str, Any]) -> dict[str, Any]:
    config = {"cniVersion": "1.0.0", "plugins": [{"type": "macvlan", "master": "eth1", "ipam": ipam}]}
    return {
        "apiVersion": "k8s.cni.cncf.io/v1",
        "kind": "NetworkAttachmentDefinition",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"config": json.dumps(config)},
    }


def workload(kind: str, name: str, networks: str, notes: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    annotations = {"k8s.v1.cni.cncf.io/networks": networks, **(notes or {})}
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"podManagementPolicy": "Parallel", **spec, "template": {"metadata": {"annotations": annotations}}},
    }


V4 = {"type": "whereabouts", "range": "10.0.0.0/24", "range_start": "10.0.0.8", "range_end": "10.0.0.30"}
CASES: dict[str, list[dict[str, Any]]] = {
    "two interfaces, dual stack, several ranges": [
        definition("a", {**V4, "gateway": "10.0.0.9", "exclude": ["10.0.0.11", "10.0.0.12/31"]}),
        definition("b", {"type": "whereabouts", "ipRanges": [{"range": "fd00::/64"}, {"range": "10.1.0.0/28"}]}),
        workload("StatefulSet", "web", "a,b", replicas=3, ordinals={"start": 2}),
    ],
    "maps of the network and of the workload": [
        definition("a", {**V4, "sticky": {"replicas": {"shop/web@first": ["10.0.0.20", "10.0.0.19"]}}}),
        definition("b", {**V4, "range": "10.2.0.0/24", "range_start": "10.2.0.5", "range_end": "10.2.0.9"}),
        workload(
            "StatefulSet", "web", "a@first,b", {"homeport.dev/addresses": '{"b": ["10.2.0.9", "10.2.0.5"]}'}, replicas=2
        ),
    ],
    "one network a replica": [
        definition("vlan0", {"type": "static", "addresses": [{"address": "10.3.0.10/24"}]}),
        definition("vlan1", {**V4, "range": "10.4.0.0/24", "range_start": "10.4.0.3", "range_end": "10.4.0.9"}),
        workload("StatefulSet", "web", "vlan{ordinal}", replicas=2),
    ],
}


class Commands:
    """`homeport`, with labs in a directory of their own."""

    def __init__(self, directory: Path) -> None:
        self._env = {**os.environ, "HOMEPORT_LAB_DIR": str(directory)}

    def __call__(self, *words: str, stdin: str = "", code: int = 0) -> str:
        argv = [sys.executable, "-m", "homeport", *words]
        ran = subprocess.run(argv, env=self._env, input=stdin, capture_output=True, text=True, check=False)
        assert ran.returncode == code, f"{' '.join(words)}: {ran.returncode}\n{ran.stdout}{ran.stderr}"
        return ran.stdout if code == 0 else ran.stdout + ran.stderr

    def json(self, *words: str, stdin: str = "", code: int = 0) -> Any:
        return json.loads(self(*words, "-o", "json", stdin=stdin, code=code))

    def planned(self, stdin: str, *words: str) -> dict[tuple[str, str], list[str]]:
        """Addresses by pod and interface."""
        found: dict[tuple[str, str], list[str]] = {}
        for line in self.json("plan", "-f", "-", *words, stdin=stdin)["replicas"]:
            found.setdefault((line["pod"], line["interface"]), []).append(line["address"].partition("/")[0])
        return found

    def given(self, prefix: str = "web-") -> dict[tuple[str, str], list[str]]:
        """What pods have, by the results of their plugins."""
        running = [r for r in self.json("lab", "get") if r["phase"] == "Running"]
        return {(r["replica"], r["interface"]): r["addresses"] for r in running if r["replica"].startswith(prefix)}


@pytest.fixture
def homeport(tmp_path: Path) -> Iterator[Commands]:
    commands = Commands(tmp_path / "labs")
    yield commands
    commands("lab", "down")


def written(objects: list[dict[str, Any]]) -> str:
    return "\n---\n".join(map(json.dumps, objects))


@pytest.mark.parametrize("objects", CASES.values(), ids=CASES)
def test_pods_get_what_was_planned(homeport: Commands, objects: list[dict[str, Any]]) -> None:
    planned = homeport.planned(written(objects))
    homeport("lab", "up", "-f", "-", stdin=written(objects))
    assert homeport.given() == planned
    assert homeport.planned(written(objects), "--lab", "lab") == planned


def test_what_is_planned_beside_others_comes_true(homeport: Commands) -> None:
    visitors = [definition("a", V4), workload("Deployment", "visitor", "a", replicas=2)]
    homeport("lab", "up", "-f", "-", stdin=written(visitors))
    web = [workload("StatefulSet", "web", "a", replicas=3, podManagementPolicy="OrderedReady")]
    plan = homeport.json("plan", "-f", "-", "--lab", "lab", stdin=written(web), code=1)
    assert [clash.partition(" is ")[0] for clash in plan["clashes"]] == [
        "shop/web-0 cannot have its number: 10.0.0.8",
        "shop/web-1 cannot have its number: 10.0.0.9",
        "shop/web-2 cannot have its number: 10.0.0.10 goes to shop/web-0",
    ]
    homeport("lab", "up", "-f", "-", stdin=written(web))
    addresses = [line["address"].partition("/")[0] for line in plan["replicas"]]
    assert homeport.given() == {(f"web-{n}", "net1"): [address] for n, address in enumerate(addresses)}
    assert homeport.planned(written(web), "--lab", "lab") == homeport.given()


def test_why_a_pod_waits_and_what_ends_it(homeport: Commands) -> None:
    objects = written([definition("a", V4), workload("StatefulSet", "web", "a")])
    homeport("lab", "up", "--nodes", "2", "-f", "-", stdin=objects)
    old = homeport.json("explain", "web-0", "-n", "shop", "--lab", "lab")
    assert old["interfaces"][0]["ranges"][0]["why"] == "takes 10.0.0.8: moved: a new sandbox of the same pod"
    node = homeport.json("ips", "--lab", "lab")[0]["node"]
    homeport("lab", "node", "partition", node, "--answering")
    assert "still answers for 10.0.0.8" in homeport("lab", "delete", "pod", "web-0", "-n", "shop", "--force", code=1)
    text = homeport("explain", "web-0", "-n", "shop", "--lab", "lab")
    assert "still answers for 10.0.0.8" in text, "what its last ADD said"
    assert "its pod: gone, the cluster has UID " in text
    assert "its node: NotReady, without the taint out-of-service" in text
    assert "next ADD   asks from its node whether anybody answers for 10.0.0.8: takes it if not, waits if so" in text
    assert f"if {node} is off for certain: homeport release 10.0.0.8 --force" in text
    refused = homeport("release", "10.0.0.8", "--lab", "lab", code=1)
    assert "in use: Bound: shop/web-0" in refused
    assert "Aborted" in homeport("release", "10.0.0.8", "--force", "--lab", "lab", stdin="yes\n", code=1)
    done = homeport("release", "10.0.0.8", "--force", "--lab", "lab", stdin=f"web-0 on {node} is dead\n")
    assert "10.0.0.8 taken from its holder, and Retained for shop/web-0" in done
    homeport("lab", "up")
    assert homeport.given() == {("web-0", "net1"): ["10.0.0.8"]}
    history = homeport.json("who", "10.0.0.8", "--lab", "lab")[0]["history"]
    causes = [change["cause"].partition(" by ")[0] for change in history]
    assert causes == ["allocated", "MAC noted", "released", "returned"], "a MAC that moved is not noted again"


def test_a_reserved_address_is_the_replica_s(homeport: Commands) -> None:
    objects = [definition("a", V4), workload("StatefulSet", "web", "a", replicas=0)]
    homeport("lab", "up", "-f", "-", stdin=written(objects))
    reserve = ("reserve", "10.0.0.25", "--network", "a", "--lab", "lab")
    assert "does not hand it out" in homeport(*reserve[:1], "10.0.0.99", *reserve[2:], "--for", "shop/web-1", code=1)
    homeport(*reserve, "--for", "shop/web-1")
    assert "it is Retained: shop/web-1" in homeport(*reserve, "--for", "shop/web-2", code=1)
    homeport("lab", "up")
    homeport("lab", "scale", "statefulset/web", "--replicas", "3")
    assert homeport.given()["web-1", "net1"] == ["10.0.0.25"]
    assert [a["address"] for a in homeport.json("ips", "--workload", "statefulset/web", "--lab", "lab")] == [
        "10.0.0.8", "10.0.0.10", "10.0.0.25"
    ]  # fmt: skip


def test_a_replica_that_is_not_there_yet(homeport: Commands) -> None:
    homeport("lab", "up", "-f", "-", stdin=written([definition("a", V4), workload("StatefulSet", "web", "a")]))
    text = homeport("explain", "shop/web-4", "--lab", "lab")
    assert "number 4 of 10.0.0.8-10.0.0.30 is 10.0.0.12" in text
    assert "next ADD   creates 10.0.0.12: allocated" in text
    assert 'find pod "shop/db-0": there is none' in homeport("explain", "shop/db-0", "--lab", "lab", code=1)
