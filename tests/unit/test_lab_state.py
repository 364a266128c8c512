"""The lab's state on disk, names of things in it, and values it is shown with."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from homeport.ipam.identities import Workload
from homeport.lab import actions, building, places, storing, views
from homeport.lab.objects import Event, Network, NodeObject, PodObject, Template, WorkloadObject, WorkloadSpec, phase
from homeport.lab.storing import State
from homeport.model.errors import InvalidEnvironment, IOFailure
from homeport.model.names import PodRef

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
POD = PodObject(ref=PodRef("ns", "web-0"), uid="u", workload=Workload("ns", "StatefulSet", "web"), ordinal=0, node="n")


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path / "lab.db")


def test_objects_survive_their_process(tmp_path: Path) -> None:
    objects = (POD, Network(namespace="ns", name="lan", config="{}"), NodeObject(name="n", killed=True))
    first = State(tmp_path / "lab.db")
    first.put(*objects)
    first.set_setting("ahead", "3")
    first.close()
    second = State(tmp_path / "lab.db")
    assert (second.all(PodObject), second.all(Network), second.all(NodeObject)) == tuple([o] for o in objects)
    assert second.get(PodObject, "ns/web-0") == POD
    assert second.get(PodObject, "ns/web-1") is None
    assert second.setting("ahead") == "3"
    second.remove(POD)
    second.remove(POD)
    assert second.all(PodObject) == []


def test_a_transaction_is_whole_or_absent(state: State) -> None:
    def fail() -> None:
        with state.transaction():
            state.put(POD)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert state.all(PodObject) == []
    with state.transaction():
        state.put(POD)
    assert state.all(PodObject) == [POD]


def event(message: str, regarding: str = "pod/web-0", *, seconds: int = 0) -> Event:
    at = NOW + timedelta(seconds=seconds)
    return Event(at=at, type="Warning", reason="Failed", regarding=regarding, message=message)


def test_an_event_said_again_is_counted(state: State) -> None:
    for seconds, message in enumerate(["no", "no", "yes", "no"]):
        state.record(event(message, seconds=seconds))
    state.record(event("no", "pod/web-1", seconds=1))
    assert [(e.regarding, e.message, e.count) for e in state.events()] == [
        ("pod/web-0", "no", 2),
        ("pod/web-1", "no", 1),
        ("pod/web-0", "yes", 1),
        ("pod/web-0", "no", 1),
    ]


def test_only_so_many_events_are_kept(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storing, "_EVENTS_KEPT", 3)
    for n in range(5):
        state.record(event(str(n), seconds=n))
    assert [e.message for e in state.events()] == ["2", "3", "4"]


def test_a_broken_file_is_our_error_and_not_an_empty_lab(tmp_path: Path) -> None:
    path = tmp_path / "lab.db"
    path.write_bytes(b"not a database, and longer than a header would be" * 100)
    with pytest.raises(IOFailure, match=r"lab\.db"):
        State(path)
    path.unlink()
    good = State(path)
    good.put(POD)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE objects SET body = '{}'")
    with pytest.raises(IOFailure, match="read lab state"):
        good.all(PodObject)


@pytest.mark.parametrize(
    ("pod", "node", "shown"),
    [
        ({"node": ""}, None, "Pending"),
        ({}, NodeObject(name="n"), "ContainerCreating"),
        ({"running": True}, NodeObject(name="n"), "Running"),
        ({"running": True, "deleting": True}, NodeObject(name="n"), "Terminating"),
        ({"running": True}, NodeObject(name="n", partitioned=True), "Unknown"),
        ({"deleting": True}, NodeObject(name="n", killed=True), "Terminating"),
    ],
)
def test_phase(pod: dict[str, object], node: NodeObject | None, shown: str) -> None:
    assert phase(msgspec.structs.replace(POD, **pod), node) == shown


def test_replicas_are_shown_by_ordinal(state: State) -> None:
    for n in (10, 9, 1):
        state.put(msgspec.structs.replace(POD, ref=PodRef("ns", f"web-{n}"), uid=str(n), ordinal=n))
    assert [p.ref.name for p in views.pods_in_order(state, None)] == ["web-1", "web-9", "web-10"]
    assert views.pods_in_order(state, "other") == []


def test_a_revision_is_its_template_and_its_restarts() -> None:
    one = Template(labels={"a": "1", "b": "2"})
    assert actions.revision(one, 0) == actions.revision(Template(labels={"b": "2", "a": "1"}), 0)
    assert len({actions.revision(one, 0), actions.revision(one, 1), actions.revision(Template(), 0)}) == 3


def test_masters_are_the_interfaces_that_networks_name() -> None:
    configs = [
        '{"plugins": [{"type": "macvlan", "master": "eth2"}, {"type": "sbr"}]}',
        '{"type": "ipvlan", "master": "bond0"}',
        '{"type": "macvlan", "master": "net1", "linkInContainer": true}',
        '{"type": "bridge", "master": "eth9"}',
        '{"type": "macvlan", "master": "a-name-no-link-can-have"}',
        "not JSON",
        '["a list"]',
    ]
    networks = [Network(namespace="ns", name=str(n), config=c) for n, c in enumerate(configs)]
    assert building.masters(networks) == ("bond0", "eth1", "eth2")


def test_a_substitute_drops_what_only_its_predecessor_understood() -> None:
    config = {
        "plugins": [{"type": "ipvlan", "mode": "l2", "master": "eth1", "ipam": {"type": "static"}}, {"type": "sbr"}]
    }
    assert building.substituted(config, {"ipvlan": "macvlan"}) == {
        "plugins": [{"type": "macvlan", "master": "eth1", "ipam": {"type": "static"}}, {"type": "sbr"}]
    }
    assert building.substituted(config, {}) == config


def test_the_directory_is_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert str(places.of_lab("a", {"HOME": "/home/x"}).directory) == "/home/x/.local/state/homeport/lab/a"
    assert str(places.of_lab("a", {"XDG_STATE_HOME": "/s"}).directory) == "/s/homeport/lab/a"
    assert str(places.of_lab("a", {"HOMEPORT_LAB_DIR": "/d"}).directory) == "/d/a"
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert str(places.of_lab("a", {"HOME": "/root"}).directory) == "/var/lib/homeport/lab/a"
    for name in ("", "..", "a/b", "x" * 64):
        with pytest.raises(InvalidEnvironment, match="--lab"):
            places.of_lab(name, {})


def test_two_workloads_of_a_name_must_be_told_apart(state: State) -> None:
    class Holder:
        """What the finders need of a lab."""

        def __init__(self) -> None:
            self.state = state

    for namespace in ("one", "two"):
        spec = WorkloadSpec(workload=Workload(namespace, "StatefulSet", "web"))
        state.put(WorkloadObject(spec=spec, uid=namespace, revision="r"))
    lab = Holder()
    assert actions.find_workload(lab, "StatefulSet", "web", "two").uid == "two"  # type: ignore[arg-type]
    with pytest.raises(Exception, match="one/StatefulSet/web, two/StatefulSet/web"):
        actions.find_workload(lab, "StatefulSet", "web", None)  # type: ignore[arg-type]


RACE = """
import sys, threading, types
from homeport import wiring

SOURCE = '''
from __future__ import annotations
from collections.abc import Mapping
from typing import Any
import msgspec
class Inner(msgspec.Struct):
    a: int | None = None
    b: list[str] | None = None
    c: Mapping[str, Any] | None = None
class Outer(msgspec.Struct):
    a: Inner | None = None
    b: list[Inner] = []
    c: dict[str, Inner] = {}
'''
outers = []
for n in range(400):
    module = sys.modules[f"types{n}"] = types.ModuleType(f"types{n}")
    exec(SOURCE, module.__dict__)
    outers.append(module.Outer)
wiring.prepare_for_threads()

import msgspec
sys.setswitchinterval(1e-6)
for outer in outers:
    start = threading.Barrier(6)
    def decode():
        start.wait()
        msgspec.convert({"a": {"a": 1}, "b": [{"b": ["x"]}], "c": {"x": {}}}, outer)
    threads = [threading.Thread(target=decode) for _ in range(6)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
"""


def test_threads_may_be_the_first_to_decode_into_a_type() -> None:
    """In a process of its own: unprepared, msgspec 0.22 crashes the interpreter here."""
    ran = subprocess.run([sys.executable, "-c", RACE], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
