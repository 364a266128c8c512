"""`homeport ips`, `who`, `release` and `reserve` on a file of allocations, as a person runs them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from homeport.ipam.allocations import Allocation, Phase, Retention
from homeport.ipam.identities import ContainerOwner, Holder, Owner, PodOwner, Replica, Slot, Workload
from homeport.stores.sqlite import SqliteStore

WEB = Workload("shop", "StatefulSet", "web")


class Commands:
    """`homeport` on one file of allocations, whose writes so far were an hour ago and later."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = datetime.now(UTC)
        self.at = self.now - timedelta(hours=1)
        self.store = SqliteStore(path, now=lambda: self.at)

    def __call__(self, *words: str, stdin: str = "", code: int = 0) -> str:
        ran = self.run(*words, stdin=stdin)
        assert ran.returncode == code, ran.stdout + ran.stderr
        return ran.stdout if code == 0 else ran.stdout + ran.stderr

    def run(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "homeport", *words, "--store", str(self.path)]
        return subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False, timeout=60)

    def json(self, *words: str, code: int = 0) -> Any:
        return json.loads(self(*words, "-o", "json", code=code))

    def put(
        self,
        address: str,
        owner: Owner,
        phase: Phase = Phase.BOUND,
        *,
        network: str = "net",
        node: str = "node-1",
        scope: str = "",
        ago: float = 60.0,
    ) -> Allocation:
        """An allocation of so many minutes ago."""
        self.at = self.now - timedelta(minutes=ago)
        holder = Holder(container_id="c0ffee", ifname="net1", netns_path="/x", node=node, pod_uid="u-1")
        allocation = Allocation(
            scope=scope,
            address=ip_address(address),
            slot=Slot(owner, network, "net1"),
            phase=phase,
            holder=holder if phase is Phase.BOUND else None,
            since=self.at,
            retention=Retention(retain_for=timedelta(hours=72)),
        )
        return self.store.create(allocation, cause="allocated")


@pytest.fixture
def homeport(tmp_path: Path) -> Iterator[Commands]:
    commands = Commands(tmp_path / "allocations.db")
    yield commands
    commands.store.close()


@pytest.fixture
def full(homeport: Commands) -> Commands:
    """Two networks, three namespaces' owners, all phases, both families."""
    homeport.put("10.0.0.10", Replica(WEB, 0))
    homeport.put("10.0.0.9", Replica(WEB, 1), Phase.RETAINED)
    homeport.put("fd00::1", Replica(WEB, 0), network="six")
    homeport.put("10.0.0.100", PodOwner("other", "visitor-7d9f-abcde", "u-2"), node="node-2", ago=3)
    homeport.put("10.0.0.11", ContainerOwner("deadbeef" * 8), Phase.QUARANTINED, scope="blue")
    return homeport


def test_all_by_address_with_a_line_a_network(full: Commands) -> None:
    lines = full("ips").splitlines()
    assert lines[0].split() == ["ADDRESS", "NAMESPACE", "POD", "NETWORK", "INTERFACE", "PHASE", "NODE", "AGE"]
    rows = [line.split() for line in lines[1:6]]
    assert rows == [
        ["10.0.0.9", "shop", "web-1", "net", "net1", "Retained", "<none>", "60m"],
        ["10.0.0.10", "shop", "web-0", "net", "net1", "Bound", "node-1", "60m"],
        ["10.0.0.100", "other", "visitor-7d9f-abcde", "net", "net1", "Bound", "node-2", "3m"],
        ["fd00::1", "shop", "web-0", "six", "net1", "Bound", "node-1", "60m"],
        ["10.0.0.11", "<none>", "deadbeefdeadb", "net", "net1", "Quarantined", "<none>", "60m"],
    ]
    assert lines[6:] == ["", "net: 2 Bound, 1 Retained", "six: 1 Bound", "net: 1 Quarantined"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--network six", "fd00::1"),
        ("--workload web --network net", "10.0.0.9 10.0.0.10"),
        ("--workload statefulset/web --phase bound", "10.0.0.10 fd00::1"),
        ("--workload deployment/web", ""),
        ("--workload deployment/visitor", "10.0.0.100"),
        ("--pod web-1", "10.0.0.9"),
        ("--pod other/web-1", ""),
        ("--node node-2", "10.0.0.100"),
        ("--phase Quarantined", "10.0.0.11"),
        ("-n other", "10.0.0.100"),
        ("-A --scope blue", "10.0.0.11"),
        ("--scope nowhere", ""),
    ],
)
def test_filters(full: Commands, words: str, expected: str) -> None:
    assert full("ips", *words.split(), "-o", "name").split() == expected.split()


def test_every_form(full: Commands) -> None:
    (found,) = full.json("ips", "--pod", "web-1")
    assert found | {"since": ""} == {
        "address": "10.0.0.9", "scope": "", "network": "net", "interface": "net1", "phase": "Retained", "node": "",
        "owner": {"kind": "StatefulSet", "namespace": "shop", "pod": "web-1", "workload": "web", "ordinal": 1},
        "podUID": "", "containerID": "", "mac": "", "since": "",
        "retention": {
            "whenScaled": "Retain", "whenDeleted": "Release", "retainForSeconds": 259200, "adopt": "SameName",
        },
    }  # fmt: skip
    assert full("ips", "-o", "wide", "--pod", "web-0", "--network", "net").splitlines()[1].split()[-3:] == [
        "statefulset/web", "c0ffee", "<none>",
    ]  # fmt: skip
    assert "address: 10.0.0.9" in full("ips", "-o", "yaml")


def test_nothing_is_said_so_and_is_no_error(homeport: Commands) -> None:
    homeport.store.all()
    ran = homeport.run("ips")
    assert (ran.returncode, ran.stdout) == (0, "")
    assert "no address is allocated there" in ran.stderr
    assert homeport.json("ips") == []


def test_watching_tells_every_change(full: Commands, wait_until: Callable[..., None]) -> None:
    argv = [sys.executable, "-u", "-m", "homeport", "ips", "-w", "-o", "name", "-n", "shop", "--store", str(full.path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        assert [watching.stdout.readline().strip() for _ in range(3)] == ["10.0.0.9", "10.0.0.10", "fd00::1"]
        full.put("10.0.0.50", Replica(WEB, 2))
        assert watching.stdout.readline().strip() == "10.0.0.50"
        watching.terminate()


# --- who ---------------------------------------------------------------------------------------------------------


def moved(homeport: Commands) -> None:
    """10.0.0.10: web-0's 60 minutes ago, Retained 40 minutes ago, released 20 minutes ago, a visitor's 10 ago."""
    bound = homeport.put("10.0.0.10", Replica(WEB, 0))
    homeport.at = homeport.now - timedelta(minutes=40)
    kept = Allocation(
        scope="", address=bound.address, slot=bound.slot, phase=Phase.RETAINED, since=homeport.at, version=bound.version
    )
    kept = homeport.store.replace(kept, cause="DEL")
    homeport.at = homeport.now - timedelta(minutes=20)
    homeport.store.delete(kept, cause="StatefulSet shop/web was deleted")
    homeport.put("10.0.0.10", PodOwner("other", "visitor", "u-2"), ago=10)


def test_who_has_it_and_who_had_it(homeport: Commands) -> None:
    moved(homeport)
    lines = homeport("who", "10.0.0.10").splitlines()
    assert lines[0].startswith("10.0.0.10 is Bound: other/visitor, net1 on net, node node-1, for 10m, since ")
    assert [line.split(maxsplit=1)[1].split("   ")[0] for line in lines[3:]] == [
        "Bound", "Retained", "Released", "Bound",
    ]  # fmt: skip
    assert lines[5].endswith("StatefulSet shop/web was deleted")


@pytest.mark.parametrize(
    ("ago", "expected"),
    [
        ("50m ago", "Bound: shop/web-0"),
        ("30m ago", "Retained: shop/web-0"),
        ("15m ago", "nobody's"),
        ("5m ago", "Bound: other/visitor"),
    ],
)
def test_who_had_it_then(homeport: Commands, ago: str, expected: str) -> None:
    moved(homeport)
    assert expected in homeport("who", "10.0.0.10", "--at", ago)


def test_a_time_as_rfc_3339(homeport: Commands) -> None:
    moved(homeport)
    at = (homeport.now - timedelta(minutes=50)).isoformat()
    (then,) = homeport.json("who", "10.0.0.10", "--at", at)
    assert (then["known"], then["allocation"]["owner"]["pod"], then["change"]["cause"]) == (True, "web-0", "allocated")


def test_the_ledger_does_not_reach_back(homeport: Commands) -> None:
    moved(homeport)
    said = homeport("who", "10.0.0.10", "--at", "2h ago", code=1)
    assert "unknown: the ledger begins at " in said
    assert "does not reach back to then" in said


def test_an_address_that_never_changed_while_the_ledger_was_kept(homeport: Commands) -> None:
    homeport.put("10.0.0.1", Replica(WEB, 0), ago=60)
    assert "10.0.0.2 at" in (said := homeport("who", "10.0.0.2", "--at", "30m ago"))
    assert said.strip().endswith("nobody's")
    assert homeport("who", "10.0.0.2").strip() == "10.0.0.2 is nobody's"


def test_the_same_address_in_two_scopes(homeport: Commands) -> None:
    homeport.put("10.0.0.1", Replica(WEB, 0))
    homeport.put("10.0.0.1", Replica(WEB, 1), scope="blue", network="b")
    said = homeport("who", "10.0.0.1")
    assert "10.0.0.1 is Bound: shop/web-0" in said
    assert "10.0.0.1 in scope blue is Bound: shop/web-1" in said
    assert "web-0" not in homeport("who", "10.0.0.1", "--scope", "blue")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["10.0.0.300"], 'found "10.0.0.300", expected an IP address'),
        (["10.0.0.1", "--at", "yesterday"], 'found "yesterday", expected a time such as'),
        (["10.0.0.1", "--at", "3 parsecs ago"], 'found "3 parsecs ago", expected a time such as'),
        (["10.0.0.1", "--at", "2999-01-01T00:00:00Z"], "expected a time that has been"),
    ],
)
def test_wrong_words(homeport: Commands, words: list[str], expected: str) -> None:
    homeport.put("10.0.0.1", Replica(WEB, 0))
    assert expected in " ".join(homeport("who", *words, code=2).replace("│", "").split())


# --- release and reserve -----------------------------------------------------------------------------------------


def test_what_is_kept_is_released_with_the_user_s_name(full: Commands) -> None:
    assert "would release 10.0.0.9: Retained: shop/web-1" in full("release", "10.0.0.9", "--dry-run")
    assert "Aborted" in full("release", "10.0.0.9", stdin="n\n", code=1)
    assert "10.0.0.9 released" in full("release", "10.0.0.9", stdin="y\n")
    assert full.store.get("", ip_address("10.0.0.9")) is None
    last = list(full.store.ledger(address=ip_address("10.0.0.9")))[-1]
    assert last.cause.startswith("released by ")
    assert "it is nobody's" in full("release", "10.0.0.9", code=1)


def test_what_is_in_use_stays(full: Commands) -> None:
    said = full("release", "--workload", "web", "-n", "shop", "--yes", code=1)
    assert "release 10.0.0.10: in use, and 1 more: Bound: shop/web-0" in said
    assert "nothing was changed, though 1 not in use could be" in said
    assert len(list(full.store.all())) == 5


def test_force_takes_it_from_its_holder_alone(full: Commands) -> None:
    said = full("release", "web-0", "-n", "shop", "--network", "net", "--force", stdin="web-0 on node-1 is dead\n")
    assert "10.0.0.10 taken from its holder, and Retained for shop/web-0" in said
    kept = full.store.get("", ip_address("10.0.0.10"))
    assert kept is not None
    assert (kept.phase, kept.holder) == (Phase.RETAINED, None)
    assert "10.0.0.100 released" in full("release", "10.0.0.100", "--force", "--yes")
    assert full.store.get("", ip_address("10.0.0.100")) is None
    causes = [entry.cause.partition(" by ")[0] for entry in full.store.ledger()]
    assert causes[-2:] == ["released", "released"]


def test_a_whole_workload(full: Commands) -> None:
    full("release", "--workload", "statefulset/web", "-n", "shop", "--force", stdin="all 2 are dead\n")
    assert full.json("ips", "--workload", "web", "--phase", "Bound") == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "expected an address or a pod, or --workload"),
        (("web-0", "--workload", "web"), "expected an address or a pod, or --workload"),
    ],
)
def test_one_thing_to_release(full: Commands, words: tuple[str, ...], expected: str) -> None:
    assert expected in " ".join(full("release", *words, code=2).replace("│", "").split())


def test_an_address_of_two_scopes_needs_one(homeport: Commands) -> None:
    homeport.put("10.0.0.1", Replica(WEB, 0), Phase.RETAINED)
    homeport.put("10.0.0.1", Replica(WEB, 1), Phase.RETAINED, scope="blue")
    assert 'found it in scopes "", "blue", expected one' in homeport("release", "10.0.0.1", "-y", code=1)
    homeport("release", "10.0.0.1", "-y", "--scope", "blue")
    assert [a.scope for a in homeport.store.all()] == [""]


def test_reserved_for_a_replica_of_a_workload_to_come(homeport: Commands) -> None:
    homeport.put("10.0.0.1", Replica(WEB, 0), Phase.RETAINED)
    command = ("reserve", "10.0.0.7", "--for", "shop/my-db-2", "--network", "net", "--interface", "net2")
    assert homeport(*command) == "10.0.0.7 reserved for shop/my-db-2 (net2 on net)\n"
    assert "already" in homeport(*command)
    (found,) = homeport.json("ips", "--pod", "my-db-2")
    assert (found["phase"], found["interface"], found["retention"]["whenDeleted"]) == ("Retained", "net2", "Retain")
    taken = homeport("reserve", "10.0.0.1", "--for", "shop/db-0", "--network", "net", code=1)
    assert "reserve 10.0.0.1 for shop/db-0 net/net1: it is Retained: shop/web-0" in taken
    second = homeport("reserve", "10.0.0.8", "--for", "shop/web-0", "--network", "net", code=1)
    assert "it has 10.0.0.1 already, Retained" in second


@pytest.mark.parametrize("owner", ["web-0", "shop/web", "shop/web-01", "Shop/web-1", "shop/-1"])
def test_no_replica(homeport: Commands, owner: str) -> None:
    homeport.put("10.0.0.1", Replica(WEB, 0))
    said = homeport("reserve", "10.0.0.7", "--for", owner, "--network", "net", code=2)
    assert "expected NAMESPACE/WORKLOAD-ORDINAL" in " ".join(said.replace("│", "").split())


# --- where to look -----------------------------------------------------------------------------------------------


def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    commands = Commands(tmp_path / "none.db")
    assert commands("ips", code=1) == f'homeport: open allocation store "{tmp_path}/none.db": no such file\n'
    assert not (tmp_path / "none.db").exists()


def test_a_file_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "other.db").write_text("not a database, and longer than a header of one would be" * 10)
    said = Commands(tmp_path / "other.db")("ips", code=1)
    assert "allocation store" in said
    assert "Traceback" not in said


def test_a_file_knows_no_pods(full: Commands) -> None:
    said = full("explain", "web-1", "-n", "shop", code=1)
    assert "a file of allocations knows no pods and no networks" in said
    assert "10.0.0.9 is Retained: shop/web-1" in said


def test_no_cluster_in_sight(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "homeport", "ips"]
    env = {"HOME": str(tmp_path), "PATH": "/usr/bin"}
    ran = subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.splitlines() == [
        "homeport: find the cluster: found no kubeconfig, and this is no pod",
        "  give --kubeconfig, or --store with a file of allocations, or --lab with a lab's name",
    ]


@pytest.mark.parametrize("command", ["ips", "who", "explain", "release", "reserve", "plan"])
def test_help_has_examples(command: str) -> None:
    argv = [sys.executable, "-m", "homeport", command, "--help"]
    ran = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    assert f"homeport {command} " in ran.stdout.split("Options", 1)[0].partition("\n")[2]


def test_names_complete_from_the_file(full: Commands) -> None:
    env = {"_HOMEPORT_COMPLETE": "complete_bash", "COMP_CWORD": "5", "PATH": "/usr/bin:/bin"}
    words = f"homeport ips --store {full.path} --pod web-"
    program = Path(sys.executable).parent / "homeport"
    ran = subprocess.run([program], env={**env, "COMP_WORDS": words}, capture_output=True, text=True, check=False)
    assert ran.stdout.split() == ["web-0", "web-1"]
