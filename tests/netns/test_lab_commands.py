"""`homeport lab` as a person uses it: each command a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
NAD, WEB, VISITOR = (str(EXAMPLES / f"{name}.yaml") for name in ("nad", "statefulset", "deployment"))
GUIDE = ["-f", NAD, "-f", WEB, "--substitute", "ipvlan=macvlan"]

pytestmark = pytest.mark.root


class Lab:
    """Commands on a lab in a directory of its own."""

    def __init__(self, directory: Path, python: Sequence[str] = (sys.executable,)) -> None:
        self.directory = directory
        self.argv = [*python, "-m", "homeport", "lab"]
        self.env = {**os.environ, "HOMEPORT_LAB_DIR": str(directory)}

    def __call__(self, *words: str, code: int = 0, stdin: str = "") -> str:
        ran = self.run(*words, stdin=stdin)
        assert ran.returncode == code, f"{' '.join(words)}: {ran.returncode}\n{ran.stdout}{ran.stderr}"
        return ran.stdout if code == 0 else ran.stdout + ran.stderr

    def run(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.argv, *words], env=self.env, input=stdin, capture_output=True, text=True, check=False
        )

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self.argv, *words], env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def get(self, what: str = "replicas") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self("get", what, "-o", "json"))
        return found

    def addresses(self) -> dict[str, list[str]]:
        return {r["replica"]: r["addresses"] for r in self.get() if r["phase"] == "Running"}

    @property
    def keeper(self) -> int:
        return int(json.loads((self.directory / "lab" / "keeper.json").read_bytes())["pid"])


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path / "labs")
    yield made
    made("down")


EXPECTED = {"web-0": ["10.93.97.12"], "web-1": ["10.93.97.13"], "web-2": ["10.93.97.14"]}


def test_up_twice_changes_nothing(lab: Lab) -> None:
    first = lab("up", *GUIDE, "--nodes", "2")
    assert "statefulset.apps/web created" in first
    pods = lab.get("pods")
    assert lab.addresses() == EXPECTED
    second = lab("up", *GUIDE, "--nodes", "2")
    assert {line.split()[-1] for line in second.splitlines()} == {"unchanged"}
    assert lab.get("pods") == pods
    lab("up", *GUIDE, "--nodes", "3")
    assert len(lab.get("nodes")) == 3
    assert "the lab to 1 nodes: it has 3" in lab("up", "--nodes", "1", code=1)


def test_every_form_of_get(lab: Lab) -> None:
    lab("up", *GUIDE)
    table = lab("get").splitlines()
    assert table[0].split() == ["REPLICA", "NODE", "NETWORK", "INTERFACE", "ADDRESS", "MAC", "PHASE"]
    assert table[1].split()[:5] == ["web-0", "node-1", "multustest", "net1", "10.93.97.12"]
    assert lab("get", "-o", "wide").splitlines()[1].split()[-1] == "testnamespace"
    assert lab("get", "pods", "-o", "name").split() == ["web-0", "web-1", "web-2"]
    assert "addresses:" in lab("get", "-o", "yaml")
    assert [n["status"] for n in lab.get("nodes")] == ["Ready"] * 3
    assert lab.get("workloads")[0]["ready"] == 3
    assert lab.get("networks")[0]["plugins"] == ["ipvlan", "sbr"]
    assert {a["address"]: a["owner"] for a in lab.get("allocations")} == {
        "10.93.97.12": "testnamespace/web-0",
        "10.93.97.13": "testnamespace/web-1",
        "10.93.97.14": "testnamespace/web-2",
    }
    assert "Add net1 [10.93.97.12/20] from testnamespace/multustest" in lab("events")
    assert lab("get", "-n", "elsewhere") == ""


def test_a_killed_keeper_is_replaced_and_every_replica_returns(lab: Lab, wait_until: Callable[..., None]) -> None:
    lab("up", *GUIDE)
    before, keeper = lab.get("pods"), lab.keeper
    os.kill(keeper, signal.SIGKILL)
    wait_until(lambda: not is_running(keeper))
    again = lab.run("get", "-o", "json")
    assert "the lab's keeper had died" in again.stderr
    assert lab.addresses() == EXPECTED
    assert lab.keeper != keeper
    assert [p["uid"] for p in lab.get("pods")] == [p["uid"] for p in before], (
        "the pods are the same, their sandboxes new"
    )
    assert "6 of 6 reached" in lab("ping")


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def test_down_leaves_nothing_and_may_be_repeated(lab: Lab, wait_until: Callable[..., None]) -> None:
    lab("up", *GUIDE)
    keeper = lab.keeper
    assert "deleted" in lab("down")
    wait_until(lambda: not is_running(keeper))
    assert list(lab.directory.iterdir()) == []
    assert str(lab.directory) not in Path("/proc/mounts").read_text()
    assert "nothing to delete" in lab("down")
    assert "there is none" in lab("get", code=1)


def test_exec_runs_inside_and_passes_the_exit_code_on(lab: Lab) -> None:
    lab("up", *GUIDE)
    (link,) = json.loads(lab("exec", "web-1", "--", "ip", "-json", "address", "show", "dev", "net1"))
    assert [a["local"] for a in link["addr_info"] if a["family"] == "inet"] == ["10.93.97.13"]
    lab("exec", "web-1", "--", "sh", "-c", "exit 7", code=7)
    assert 'run "no-such-program"' in lab("exec", "web-1", "--", "no-such-program", code=127)
    assert "it has web-0, web-1, web-2" in lab("exec", "web-9", "--", "true", code=1)


def test_ping_tells_who_does_not_answer(lab: Lab) -> None:
    lab("up", *GUIDE)
    table = lab("ping").splitlines()
    assert table[0].split() == ["NETWORK", "FROM", "SOURCE", "TABLE", "WEB-0", "WEB-1", "WEB-2"]
    assert table[1].split()[:5] == ["multustest", "web-0", "10.93.97.12", "100", "-"]
    lab("node", "partition", "node-2")
    said = lab("ping", "--network", "multustest", code=1)
    assert "2 of 6 reached" in said
    assert "no reply" in said or "no route to host" in said
    assert [p["phase"] for p in lab.get("pods")] == ["Running", "Unknown", "Running"]
    lab("node", "heal", "node-2")
    assert "6 of 6 reached" in lab("ping")


def test_a_range_too_small_says_so_in_the_plugins_words(lab: Lab) -> None:
    lab("up", *GUIDE)
    said = lab("scale", "statefulset/web", "--replicas", "11", code=1)
    assert "web-10: allocate from 10.93.96.0/20 (10.93.97.12-10.93.97.21): all 10 addresses are taken" in said
    (last,) = [r for r in lab.get() if r["replica"] == "web-10"]
    assert last["phase"] == "ContainerCreating"
    assert "all 10 addresses are taken" in lab("events")
    lab("scale", "statefulset/web", "--replicas", "3")


def test_ipvlan_is_real_or_its_absence_told_in_one_line(lab: Lab) -> None:
    ran = lab.run("up", "-f", NAD, "-f", WEB)
    if ran.returncode == 0:
        assert "ipvlan" in lab("exec", "web-0", "--", "ip", "-d", "link", "show", "net1")
    else:
        assert ran.stderr.count("\n") == 1
        assert "this kernel has no ipvlan; --substitute ipvlan=macvlan" in ran.stderr


def test_a_deployment_takes_the_lowest_free_addresses(lab: Lab) -> None:
    lab("up", *GUIDE)
    lab("up", "-f", VISITOR)
    visitors = {name: a for name, a in lab.addresses().items() if name.startswith("visitor-")}
    assert len(visitors) == 2
    assert {a for (a,) in visitors.values()} == {"10.93.97.15", "10.93.97.16"}
    lab("scale", "deployment/visitor", "--replicas", "0")
    assert lab.addresses() == EXPECTED
    assert len(lab.get("allocations")) == 3


def test_host_local_keeps_its_files_on_the_nodes_own_disk(lab: Lab) -> None:
    network = {"cniVersion": "1.0.0", "name": "hp-lab-test", "type": "bridge", "bridge": "br0",
               "ipam": {"type": "host-local", "subnet": "10.9.0.0/24"}}  # fmt: skip
    lab("up", "-f", "-", "--nodes", "2", stdin=manifests(network))
    assert set(lab.addresses()) == {"web-0", "web-1", "web-2"}
    disks = sorted(str(p.relative_to(lab.directory)) for p in lab.directory.glob("lab/nodes/*/var/lib/cni/networks/*"))
    assert disks == [f"lab/nodes/node-{n}/var/lib/cni/networks/hp-lab-test" for n in (1, 2)]
    assert not Path("/var/lib/cni/networks/hp-lab-test").exists()


def manifests(network: dict[str, Any], name: str = "net") -> str:
    nad = {"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
           "metadata": {"name": name}, "spec": {"config": json.dumps(network)}}  # fmt: skip
    template = {"metadata": {"annotations": {"k8s.v1.cni.cncf.io/networks": "net"}}}
    web = {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "web"},
           "spec": {"replicas": 3, "template": template}}  # fmt: skip
    return f"{json.dumps(nad)}\n---\n{json.dumps(web)}\n"


def test_wrong_input_is_answered_with_what_is_right(lab: Lab, tmp_path: Path) -> None:
    assert "there is none" in lab("scale", "statefulset/web", "--replicas", "1", code=1)
    assert not lab.directory.exists()
    assert 'read "nowhere.yaml": no such file' in lab("up", "-f", "nowhere.yaml", code=1)
    assert "read standard input:2:" in lab("up", "-f", "-", code=1, stdin="kind: [\n")
    assert "expected TYPE=TYPE" in lab("up", "--substitute", "ipvlan", code=2)
    said = lab("up", "-f", "-", "--nodes", "1", code=1, stdin=manifests({"type": "macvlan"}, name="other"))
    assert 'web-0: find network "default/net": the lab has no such' in said
    assert "it has default/other" in said
    assert "it has node-1" in lab("node", "kill", "node-7", code=1)
    assert "it has web" in lab("scale", "sts/wbe", "--replicas", "1", code=1)
    assert "expected TYPE NAME" in lab("delete", "cabbage", "web-0", code=2)
    assert "give names, or a type and --all" in lab("delete", "pod", code=2)
    assert "such as 72h" in lab("advance", "soon", code=2)
    assert "skipped" in lab("up", "-f", "-", code=1, stdin="apiVersion: v1\nkind: Service\nmetadata: {name: s}\n")


def test_commands_wait_for_each_other(lab: Lab) -> None:
    lab("up", *GUIDE)
    running = [lab.start("delete", "pod", "--all") for _ in range(3)]
    for process in running:
        _, stderr = process.communicate()
        assert process.returncode == 0, stderr
    assert lab.addresses() == EXPECTED
    assert len(lab.get("allocations")) == 3


def test_a_second_lab_is_another_world(lab: Lab) -> None:
    lab("up", *GUIDE)
    lab("up", *GUIDE, "--lab", "other")
    try:
        assert lab("get", "--lab", "other", "-o", "name") == lab("get", "-o", "name")
    finally:
        lab("down", "--lab", "other")
    assert lab.addresses() == EXPECTED
