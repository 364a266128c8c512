"""The controllers' decisions: what comes next, and that it comes to an end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeport.ipam.identities import Workload
from homeport.lab import controllers
from homeport.lab.controllers import AdoptPod, CreatePod, DeletePod, RemovePod, ResumePod, StartPod, StopSandbox
from homeport.lab.objects import NodeObject, PodObject, Sandbox, WorkloadKind, WorkloadObject, WorkloadSpec
from homeport.model.names import PodRef

Pods = dict[PodRef, PodObject]


def workload(
    kind: WorkloadKind = "StatefulSet", *, revision: str = "r1", uid: str = "w", **spec: object
) -> WorkloadObject:
    wanted = msgspec.convert({"workload": Workload("ns", kind, "web"), **spec}, WorkloadSpec)
    return WorkloadObject(spec=wanted, uid=uid, revision=revision)


def pod(ordinal: int, *, running: bool = True, revision: str = "r1", uid: str = "w", **more: Any) -> PodObject:
    base = PodObject(
        ref=PodRef("ns", f"web-{ordinal}"),
        uid=f"uid-{ordinal}",
        workload=Workload("ns", "StatefulSet", "web"),
        workload_uid=uid,
        ordinal=ordinal,
        revision=revision,
        running=running,
        node="n1",
    )
    return msgspec.structs.replace(base, **more)


def asked(actions: Iterable[object]) -> list[tuple[str, int | None]]:
    """Actions as (verb, ordinal)."""
    said: list[tuple[str, int | None]] = []
    for action in actions:
        match action:
            case CreatePod(_, ordinal):
                said.append(("create", ordinal))
            case DeletePod(found, _):
                said.append(("delete", found.ordinal))
            case AdoptPod(found, _):
                said.append(("adopt", found.ordinal))
            case _:
                said.append((type(action).__name__, None))
    return said


@pytest.mark.parametrize(
    ("spec", "pods", "wanted"),
    [
        pytest.param({"replicas": 3}, [], [("create", 0)], id="the first alone"),
        pytest.param({"replicas": 3}, [pod(0, running=False)], [], id="waits for the first"),
        pytest.param({"replicas": 3}, [pod(0)], [("create", 1)], id="then the second"),
        pytest.param({"replicas": 3}, [pod(0), pod(2)], [("create", 1)], id="a gap is filled"),
        pytest.param({"replicas": 3, "pod_management": "Parallel"}, [], [("create", 0), ("create", 1), ("create", 2)],
                     id="parallel: all"),
        pytest.param({"replicas": 1}, [pod(0), pod(1), pod(2)], [("delete", 2)], id="down from the highest"),
        pytest.param({"replicas": 1}, [pod(0), pod(1), pod(2, deleting=True)], [], id="one after the other"),
        pytest.param({"replicas": 1}, [pod(0, running=False), pod(1)], [], id="not down while a lower one is missing"),
        pytest.param({"replicas": 0, "pod_management": "Parallel"}, [pod(0), pod(1)], [("delete", 1), ("delete", 0)],
                     id="parallel: down at once"),
        pytest.param({"replicas": 2, "ordinals_start": 5}, [pod(5)], [("create", 6)], id="counts from ordinals.start"),
        pytest.param({"replicas": 2, "ordinals_start": 5}, [pod(0), pod(1), pod(5), pod(6)], [("delete", 1)],
                     id="ordinals below the start are scaled down"),
        pytest.param({"replicas": 2}, [pod(0, revision="r0"), pod(1, revision="r0")], [("delete", 1)],
                     id="updates from the highest"),
        pytest.param({"replicas": 2}, [pod(0, revision="r0"), pod(1, running=False)], [], id="an update waits"),
        pytest.param({"replicas": 2}, [pod(0, revision="r0"), pod(1)], [("delete", 0)], id="and goes on"),
        pytest.param({"replicas": 2, "partition": 1}, [pod(0, revision="r0"), pod(1)], [], id="above a partition"),
        pytest.param({"replicas": 1, "update_strategy": "OnDelete"}, [pod(0, revision="r0")], [], id="on delete"),
        pytest.param({"replicas": 2, "pod_management": "Parallel"}, [pod(0, revision="r0"), pod(1, revision="r0")],
                     [("delete", 1)], id="parallel: updates are still one at a time"),
        pytest.param({"replicas": 1}, [pod(0, uid="")], [("adopt", 0)], id="orphans are adopted"),
        pytest.param({"replicas": 1}, [pod(0, uid="old")], [], id="a predecessor's pod is waited for"),
    ],
)  # fmt: skip
def test_stateful_set(spec: dict[str, Any], pods: list[PodObject], wanted: list[tuple[str, int | None]]) -> None:
    assert asked(controllers.decide_workload(workload(**spec), pods)) == wanted


def visitor(n: int, **more: Any) -> PodObject:
    return msgspec.structs.replace(pod(n, **more), ordinal=None, workload=Workload("ns", "Deployment", "web"))


@pytest.mark.parametrize(
    ("replicas", "pods", "wanted"),
    [
        pytest.param(2, [], ["create", "create"], id="all at once"),
        pytest.param(1, [visitor(0), visitor(1)], ["delete"], id="down"),
        pytest.param(2, [visitor(0, revision="r0"), visitor(1, revision="r0")], ["create"], id="one of surge"),
        pytest.param(2, [visitor(0, revision="r0"), visitor(1, revision="r0"), visitor(2, running=False)], [],
                     id="waits for it"),
        pytest.param(2, [visitor(0, revision="r0"), visitor(1, revision="r0"), visitor(2)], ["delete"],
                     id="then an old one"),
        pytest.param(2, [visitor(0, revision="r0", running=False), visitor(1, running=False), visitor(2)], ["delete"],
                     id="old ones that serve nobody go"),
        pytest.param(0, [visitor(0, revision="r0")], ["delete"], id="to nothing"),
    ],
)  # fmt: skip
def test_deployment(replicas: int, pods: list[PodObject], wanted: list[str]) -> None:
    found = controllers.decide_workload(workload("Deployment", replicas=replicas), pods)
    assert [verb for verb, _ in asked(found)] == wanted


def test_the_nearest_to_serving_nobody_is_deleted_first() -> None:
    (action,) = controllers.decide_workload(workload("Deployment"), [visitor(0), visitor(1, running=False)])
    assert isinstance(action, DeletePod)
    assert action.pod.ref.name == "web-1"


def test_garbage_is_what_nobody_owns() -> None:
    owned, stray, orphan = pod(0), pod(1, uid="gone"), pod(2, uid="")
    unbound = pod(3, uid="gone", deleting=True, node="")
    found = controllers.collect_garbage({"w": workload()}, [owned, stray, orphan, unbound])
    assert found == [DeletePod(stray, "owner deleted"), RemovePod(unbound)]


def test_pods_are_spread_and_stay_away_from_nodes_that_cannot_take_them() -> None:
    nodes = [NodeObject(name="n1"), NodeObject(name="n2"), NodeObject(name="n3", killed=True),
             NodeObject(name="n4", partitioned=True), NodeObject(name="n5", cordoned=True)]  # fmt: skip
    waiting = [pod(n, node="") for n in range(1, 4)]
    bound = controllers.schedule([pod(0, node="n1"), *waiting], nodes)
    assert [b.node for b in bound] == ["n2", "n1", "n2"]
    assert controllers.schedule(waiting, nodes[2:]) == []


def sandbox(of: PodObject, *, ready: bool = True, uid: str = "") -> Sandbox:
    return Sandbox(
        container_id=f"c-{uid or of.uid}", ref=of.ref, pod_uid=uid or of.uid, node="n1", netns_path="/x", ready=ready
    )


def on_node(pods: list[PodObject], sandboxes: list[Sandbox], **node: bool) -> list[object]:
    return list(controllers.decide_node(NodeObject(name="n1", **node), {p.ref: p for p in pods}, sandboxes))


def test_a_node_starts_what_is_its_own_and_not_there() -> None:
    new, elsewhere, there = pod(0, running=False), pod(1, running=False, node="n2"), pod(2)
    assert on_node([new, elsewhere, there], [sandbox(there)]) == [StartPod(new)]


def test_a_node_starts_before_it_stops_the_forgotten() -> None:
    new = pod(0, running=False)
    old = sandbox(new, uid="before")
    assert on_node([new], [old]) == [StartPod(new), StopSandbox(old, late=True)]


def test_a_deleting_pod_is_stopped_and_then_done() -> None:
    going = pod(0, deleting=True)
    assert on_node([going], [sandbox(going)]) == [StopSandbox(sandbox(going), late=False)]
    assert on_node([going], []) == [RemovePod(going)]


def test_what_a_killed_command_left_is_torn_down_before_a_new_start() -> None:
    new = pod(0, running=False)
    half = sandbox(new, ready=False)
    assert on_node([new], [half]) == [StopSandbox(half, late=False)]


def test_a_node_that_came_back_still_has_its_pods() -> None:
    there = pod(0, running=False)
    assert on_node([there], [sandbox(there)]) == [ResumePod(there)]


@pytest.mark.parametrize("lost", ["killed", "partitioned"])
def test_a_node_nobody_reaches_does_nothing(lost: str) -> None:
    assert on_node([pod(0, running=False)], [sandbox(pod(1), uid="before")], **{lost: True}) == []


@given(
    spec=st.fixed_dictionaries(
        {
            "replicas": st.integers(0, 5),
            "ordinals_start": st.integers(0, 3),
            "pod_management": st.sampled_from(["OrderedReady", "Parallel"]),
        }
    ),
    kind=st.sampled_from(["StatefulSet", "Deployment"]),
    start=st.dictionaries(st.integers(0, 7), st.tuples(st.sampled_from(["r0", "r1"]), st.booleans(), st.booleans())),
)
def test_every_start_leads_to_the_wanted_pods_and_then_rest(
    spec: dict[str, Any], kind: WorkloadKind, start: dict[int, tuple[str, bool, bool]]
) -> None:
    wanted = workload(kind, **spec)
    make: Callable[..., PodObject] = pod if kind == "StatefulSet" else visitor
    pods: Pods = {}
    for ordinal, (revision, running, deleting) in start.items():
        one = make(ordinal, revision=revision, running=running, deleting=deleting)
        pods[one.ref] = one
    for round_ in range(200):
        pods = {r: msgspec.structs.replace(p, running=True) for r, p in pods.items() if not p.deleting}  # the kubelet
        actions = controllers.decide_workload(wanted, pods.values())
        if not actions:
            break
        for action in actions:
            match action:
                case CreatePod(_, place):
                    new = make(100 + round_ * 10 + len(pods) if place is None else place, running=False)
                    assert new.ref not in pods, "one pod of a name at a time"
                    pods[new.ref] = new
                case DeletePod(found, _):
                    pods[found.ref] = msgspec.structs.replace(found, deleting=True)
                case _:
                    raise AssertionError(action)
    else:
        pytest.fail("never at rest")
    assert len(pods) == wanted.spec.replicas
    assert {p.revision for p in pods.values()} <= {"r1"}
    if kind == "StatefulSet":
        first = wanted.spec.ordinals_start
        assert {p.ordinal for p in pods.values()} == set(range(first, first + wanted.spec.replicas))
