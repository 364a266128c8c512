"""`homeport conformance` in a real cluster: green where addresses are kept, red where they are not, gone afterwards."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest
from ruamel.yaml import YAML
from testcluster.binaries import ROOT
from testcluster.control_plane import ADMIN
from tests.identity.cluster.crews import HOMEPORT
from tests.identity.shapes import Shape

if TYPE_CHECKING:
    from tests.identity.cluster.crews import Crew
    from tests.identity.cluster.observing import Json
    from tests.identity.cluster.sites import Site

WaitUntil = Callable[..., None]
pytestmark = [pytest.mark.root, pytest.mark.timeout(400)]
one_interface = pytest.mark.parametrize("shape", [Shape(1, False)], indirect=True, ids=str)
PAGE = ROOT / "docs" / "verify.md"
VERIFY_ROLE = re.compile(r"```yaml\n(.*?kind: ClusterRole\n.*?)```", re.DOTALL)
NOT_FROM_HERE = {"E5", "E6", "E14", "E20", "E21", "E22", "E25", "E26"}  # E14: this Kubernetes has no ordinals.start


class Command:
    """`homeport conformance` of a cluster's administrator."""

    def __init__(self, crew: Crew) -> None:
        self.crew = crew
        self._kubeconfig = str(crew.plane.kubeconfig(ADMIN))

    def argv(self, *words: str) -> list[str]:
        usual = ["--image", "none", "--timeout", "30", "--kubeconfig", self._kubeconfig]
        return [sys.executable, "-m", "homeport", "conformance", *usual, *words]

    def __call__(self, *words: str, code: int = 0) -> str:
        ran = subprocess.run(self.argv(*words), capture_output=True, text=True, check=False, timeout=300)
        assert ran.returncode == code, ran.stdout + ran.stderr
        return ran.stdout if code != 2 else ran.stderr

    def start(self, *words: str) -> subprocess.Popen[str]:
        """One that runs beside the test, which is to end it."""
        argv = self.argv(*words)
        return subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL
        )

    def has_pods(self, running: subprocess.Popen[str], count: int) -> bool:
        """Whether so many pods of its runs are up; it must be at work."""
        assert running.poll() is None, running.communicate()
        return sum(len(running_in(self.crew, name)) for name in own_namespaces(self.crew)) >= count

    def report(self, *words: str, code: int = 0) -> Json:
        found: Json = json.loads(self(*words, "-o", "json", code=code))
        return found


@pytest.fixture
def command(crew: Crew) -> Iterator[Command]:
    """Whatever it did: no namespace, no allocation, no record of a replica is left."""
    yield Command(crew)
    assert own_namespaces(crew) == set()
    for kind in ("ipallocations", "ipslots", "ipranges"):
        assert [item for item in crew.admin.get(f"{HOMEPORT}/{kind}")["items"] if "conformance" in str(item)] == []


def own_namespaces(crew: Crew) -> set[str]:
    there = {item["metadata"]["name"] for item in crew.admin.get("/api/v1/namespaces")["items"]}
    return {name for name in there if name.startswith("homeport-conformance-")}


def running_in(crew: Crew, namespace: str) -> list[Json]:
    pods: list[Json] = crew.admin.get(f"/api/v1/namespaces/{namespace}/pods")["items"]
    return [pod for pod in pods if pod["status"]["phase"] == "Running"]


def verdicts(report: Json) -> dict[str, str]:
    return {row["row"]: row["verdict"] for row in report["rows"]}


def test_every_row_holds_on_a_network_of_this_cluster(command: Command, site: Site) -> None:
    site.networks(size=40)
    site.workload(replicas=2)
    site.await_seen(site.numbered(2))
    report = command.report("--network", f"{site.namespace}/one", "--rounds", "3", "--replicas", "12")
    assert verdicts(report) == {f"E{n}": "not run" if f"E{n}" in NOT_FROM_HERE else "passed" for n in range(1, 27)}, (
        json.dumps(report, indent=1)
    )
    assert site.kernel() == site.numbered(2), "what is not its own is as it was"


@one_interface
def test_a_network_without_identities_is_red(command: Command, site: Site, tmp_path: Path) -> None:
    """host-local gives the next address each time; the nodes here share its directory."""
    ipam = {"type": "host-local", "dataDir": str(tmp_path), "ranges": [[{"subnet": "10.201.0.0/24"}]]}
    site.network("plain", {"type": "macvlan", "master": "eth1", "ipam": ipam}, {"type": "sbr"})
    words = ("--network", f"{site.namespace}/plain", "--rows", "E2,E5,E7,E16", "--timeout", "8")
    report = command.report(*words, code=1)
    assert verdicts(report) == {"E2": "failed", "E5": "not run", "E7": "failed", "E16": "failed"}
    by_row = {row["row"]: row for row in report["rows"]}
    assert "web-0: found 10.201.0." in by_row["E2"]["reason"]
    assert any(fact.startswith("pod web-1 on node-") and "Running, 10.201.0." in fact for fact in by_row["E2"]["seen"])
    assert "expected its ADD to be refused" in by_row["E16"]["reason"]
    assert not report["green"]
    shorter = ("--network", f"{site.namespace}/plain", "--rows", "E2,E5")
    told = ElementTree.fromstring(command(*shorter, "-o", "junit", code=1))
    cases = {case.get("name", "").split()[0]: case for case in told.iter("testcase")}
    assert {name for name, case in cases.items() if case.find("failure") is not None} == {"E2"}
    assert {name for name, case in cases.items() if case.find("skipped") is not None} == {"E5"}
    text = command(*shorter, code=1)
    assert "E2   FAILED   all pods deleted at once" in text
    assert "1 failed, 1 not run" in text


@one_interface
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_cleans_up(
    command: Command, site: Site, number: signal.Signals, wait_until: WaitUntil
) -> None:
    running = command.start("--master", "eth1", "--range", "10.202.0.0/24", "--rows", "E2,E19", "--rounds", "1000")
    wait_until(lambda: command.has_pods(running, 6), 40)
    running.send_signal(number)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 1, out + err
    assert "E2   passed" in out
    assert "interrupted: the rows that are not named were not run" in out
    assert "left behind" not in out


@one_interface
def test_what_a_killed_run_left_is_removed_by_the_next(command: Command, site: Site, wait_until: WaitUntil) -> None:
    running = command.start("--master", "eth1", "--range", "10.203.0.0/24", "--rows", "E19", "--rounds", "1000")
    wait_until(lambda: command.has_pods(running, 6), 40)
    running.kill()
    running.communicate()
    (left,) = own_namespaces(command.crew)
    assert command("--clean", left) == f"removed {left} and all that was of it\n"
    assert f'"{left}": found no conformance run of that name' in command("--clean", left, code=2)
    assert "found no conformance run" in command("--clean", site.namespace, code=2)


@one_interface
def test_what_failed_can_be_kept_to_be_seen(command: Command, site: Site, tmp_path: Path) -> None:
    ipam = {"type": "host-local", "dataDir": str(tmp_path), "ranges": [[{"subnet": "10.204.0.0/24"}]]}
    site.network("plain", {"type": "macvlan", "master": "eth1", "ipam": ipam}, {"type": "sbr"})
    text = command("--network", f"{site.namespace}/plain", "--rows", "E2", "--keep", code=1)
    (kept,) = own_namespaces(command.crew)
    assert f"homeport conformance --clean {kept}" in text
    assert len(command.crew.admin.get(f"/api/v1/namespaces/{kept}/pods")["items"]) == 3
    command("--clean", kept)


@one_interface
def test_a_pool_without_enough_room_is_said(command: Command, site: Site) -> None:
    """Four of its addresses are free, at its end: two workloads of it run. Nothing is taken from them."""
    site.networks(size=8)
    site.workload(replicas=4)
    site.await_seen(site.numbered(4))
    words = ("--network", f"{site.namespace}/one", "--rows", "E1,E10,E13")
    report = command.report(*words)
    assert verdicts(report) == {"E1": "not run", "E10": "passed", "E13": "passed"}
    assert report["rows"][0]["reason"] == (f"6 addresses in a row are needed, and 4 are free in {site.namespace}/one")
    assert site.kernel() == site.numbered(4)
    assert site.phases().keys() >= {site.shape.address("one", 4, n) for n in range(4)}


@one_interface
def test_the_controller_is_killed_only_when_that_is_allowed(command: Command, site: Site, crew: Crew) -> None:
    """Here it is a process: the pods of a Deployment stand in for its own."""
    words = ("--master", "eth1", "--range", "10.205.0.0/24", "--rows", "E22")
    report = command.report(*words, code=1)
    assert "--disruptive" in report["rows"][0]["reason"]
    assert "found no pod of the controller" in command.report(*words, "--disruptive", code=1)["rows"][0]["reason"]
    labels = {"app.kubernetes.io/name": "homeport-controller"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": "none"}]}}
    spec = {"replicas": 2, "selector": {"matchLabels": labels}, "template": template}
    site.api.create(f"/apis/apps/v1/namespaces/{site.namespace}/deployments", {"metadata": {"name": "c"}, "spec": spec})
    site.wait(lambda: len(site.running()) == 2, "its pods run")
    before = site.uids()
    report = command.report(*words, "--disruptive")
    assert verdicts(report) == {"E22": "passed"}
    assert not before & site.uids()


@one_interface
@pytest.mark.parametrize("may_look", [True, False])
def test_the_role_of_the_page_is_enough(command: Command, site: Site, crew: Crew, may_look: bool) -> None:
    """docs/verify.md; without the right to look at Homeport's objects, phases are left out, and that is said."""
    name = f"conformance-{site.namespace}"
    (role,) = (YAML(typ="safe", pure=True).load(text) for text in VERIFY_ROLE.findall(PAGE.read_text()))
    rules = [rule for rule in role["rules"] if may_look or "homeport.dev" not in rule["apiGroups"]]
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    subject = {"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": name}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
    crew.admin.create(f"{rbac}/clusterroles", {"metadata": {"name": name}, "rules": rules})
    crew.admin.create(
        f"{rbac}/clusterrolebindings", {"metadata": {"name": name}, "subjects": [subject], "roleRef": reference}
    )
    try:
        kubeconfig = str(crew.plane.kubeconfig(f"{name}-user", [name]))
        words = ("--master", "eth1", "--range", "10.206.0.0/24", "--rows", "E4,E12,E13", "--kubeconfig", kubeconfig)
        report = command.report(*words)
        assert report["allocations"] == may_look
        assert verdicts(report) == {"E4": "passed", "E12": "passed" if may_look else "not run", "E13": "passed"}
        said = ["phases and the ledger were not looked at" in note for note in report["notes"]]
        assert said == ([] if may_look else [True])
    finally:
        crew.admin.delete(f"{rbac}/clusterrolebindings/{name}")
        crew.admin.delete(f"{rbac}/clusterroles/{name}")
    if not may_look:  # whoever may not see these cannot remove or await them; the controller does, in ten minutes
        crew.admin.request("DELETE", f"{HOMEPORT}/ipslots")
        crew.admin.request("DELETE", f"{HOMEPORT}/ipranges")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--network", "no-such/thing"), 'find network "no-such/thing": there is none'),
        (("--master", "eth1", "--range", "10.9.0.0"), "expected"),
        (("--master", "eth1", "--range", "10.9.0.0/24", "--rows", "E1,E99"), 'row "E99": found no such row'),
        ((), "expected one of --network and --master"),
        (("--master", "eth1"), "expected --range with it"),
        (("--master", "eth1", "--network", "a/b"), "expected one of --network and --master"),
    ],
)
def test_wrong_words_change_nothing(command: Command, words: tuple[str, ...], said: str) -> None:
    assert said in command(*words, code=2)
