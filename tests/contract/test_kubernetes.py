"""What every `Kubernetes` owes its callers, asked of each of them: here the one in memory that tests use.

tests/apiserver/test_kube_contract.py asks the same of the client on a real API server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import pytest
from tests.stand_ins_kubernetes import FakeKubernetes

from homeport.ipam.identities import Workload
from homeport.ipam.objects import NodeState, OwnerReference, Pod, WorkloadState
from homeport.model.errors import InvalidNetConf, IOFailure, TryAgainLater, UnsupportedField
from homeport.model.names import PodRef
from homeport.ports import Event, Kubernetes, NetworkDefinition

WaitUntil = Callable[..., None]
STRANGER = "00000000-0000-4000-8000-000000000000"


class World(Protocol):
    """A cluster that a test fills, apart from what is being tested. Every object is in `namespace`."""

    @property
    def namespace(self) -> str: ...
    @property
    def kubernetes(self) -> Kubernetes: ...
    @property
    def away(self) -> Kubernetes:
        """Whose API server does not answer."""

    @property
    def refused(self) -> Kubernetes:
        """Who may do nothing."""

    def create_pod(self, name: str, *, annotations: Mapping[str, str], owner: OwnerReference | None = None) -> str:
        """Its UID."""

    def delete_pod(self, name: str) -> None: ...
    def annotations(self, name: str) -> Mapping[str, str]: ...
    def events(self, name: str) -> list[tuple[str, str, int]]:
        """(reason, message, how often) of the pod's."""

    def create_definition(self, name: str, config: str, annotations: Mapping[str, str]) -> None: ...
    def change_definition(self, name: str, config: str) -> None: ...
    def create_stateful_set(self, name: str, *, replicas: int, annotations: Mapping[str, str]) -> str:
        """Its UID."""

    def create_node(self, *, out_of_service: bool) -> str:
        """Its name; it says that it is ready."""


class InMemory:
    def __init__(self) -> None:
        self.namespace = "shop"
        self.kubernetes = FakeKubernetes()
        self.away, self.refused = FakeKubernetes(), FakeKubernetes()
        self.away.mood, self.refused.mood = "unreachable", "refusing"
        self._made = 0

    def create_pod(self, name: str, *, annotations: Mapping[str, str], owner: OwnerReference | None = None) -> str:
        pod = Pod(ref=PodRef("shop", name), uid=self._uid(), node="n1", annotations=annotations, owner=owner)
        self.kubernetes.create_pod(pod)
        return pod.uid

    def delete_pod(self, name: str) -> None:
        self.kubernetes.delete_pod(PodRef("shop", name))

    def annotations(self, name: str) -> Mapping[str, str]:
        return self.kubernetes.pods[PodRef("shop", name)].annotations

    def events(self, name: str) -> list[tuple[str, str, int]]:
        found = [(e.reason, e.message) for e in self.kubernetes.events if e.pod == PodRef("shop", name)]
        return [(*what, found.count(what)) for what in dict.fromkeys(found)]

    def create_definition(self, name: str, config: str, annotations: Mapping[str, str]) -> None:
        self.kubernetes.create_definition(
            NetworkDefinition(namespace="shop", name=name, config=config, annotations=annotations)
        )

    def change_definition(self, name: str, config: str) -> None:
        self.create_definition(name, config, {})

    def create_stateful_set(self, name: str, *, replicas: int, annotations: Mapping[str, str]) -> str:
        workload = Workload("shop", "StatefulSet", name)
        state = WorkloadState(workload=workload, uid=self._uid(), replicas=replicas, annotations=annotations)
        self.kubernetes.workloads[workload] = state
        return state.uid

    def create_node(self, *, out_of_service: bool) -> str:
        self.kubernetes.nodes["n7"] = NodeState(name="n7", out_of_service=out_of_service)
        return "n7"

    def _uid(self) -> str:
        self._made += 1
        return f"uid-{self._made}"


@pytest.fixture
def world() -> World:
    return InMemory()


class TestKubernetes:
    # --- pods ---

    def test_a_pod(self, world: World) -> None:
        uid = world.create_pod("web-0", annotations={"a": "b"})
        ref = PodRef(world.namespace, "web-0")
        for found in (
            world.kubernetes.pod(ref),
            world.kubernetes.pod_with_uid(ref, uid),
            world.kubernetes.pod_with_uid(ref, ""),
        ):
            assert found is not None
            assert (found.ref, found.uid, found.annotations["a"], found.owner) == (ref, uid, "b", None)
            assert (found.phase, found.deleting) == ("Pending", False)
            assert found.node

    def test_the_controller_of_a_pod(self, world: World) -> None:
        owner = OwnerReference(api_version="apps/v1", kind="StatefulSet", name="web", uid=STRANGER)
        world.create_pod("web-0", annotations={}, owner=owner)
        found = world.kubernetes.pod(PodRef(world.namespace, "web-0"))
        assert found is not None
        assert found.owner == owner

    def test_a_pod_that_never_was(self, world: World) -> None:
        for ref in (PodRef(world.namespace, "nobody"), PodRef("no-such-namespace", "web-0")):
            assert world.kubernetes.pod(ref) is None
            assert world.kubernetes.pod_with_uid(ref, STRANGER) is None

    def test_a_pod_made_just_now_is_found(self, world: World) -> None:
        for n in range(5):
            assert world.kubernetes.pod(PodRef(world.namespace, f"web-{n}")) is None
            uid = world.create_pod(f"web-{n}", annotations={})
            found = world.kubernetes.pod_with_uid(PodRef(world.namespace, f"web-{n}"), uid)
            assert found is not None
            assert found.uid == uid

    def test_the_successor_of_a_pod_is_found_by_its_uid(self, world: World) -> None:
        ref = PodRef(world.namespace, "web-0")
        former = world.create_pod("web-0", annotations={})
        assert world.kubernetes.pod_with_uid(ref, former) is not None
        world.delete_pod("web-0")
        uid = world.create_pod("web-0", annotations={})
        found = world.kubernetes.pod_with_uid(ref, uid)
        assert found is not None
        assert found.uid == uid

    def test_what_a_pod_is_now_is_never_an_earlier_answer(self, world: World) -> None:
        """What R8 and R12 conclude from: no watch and no memory is asked, however fresh."""
        ref = PodRef(world.namespace, "web-0")
        former = world.create_pod("web-0", annotations={})
        assert world.kubernetes.pod_with_uid(ref, former) is not None
        world.delete_pod("web-0")
        assert world.kubernetes.pod_now(ref) is None
        uid = world.create_pod("web-0", annotations={})
        found = world.kubernetes.pod_now(ref)
        assert found is not None
        assert found.uid == uid

    def test_a_pod_of_another_uid_is_returned_as_it_is(self, world: World) -> None:
        uid = world.create_pod("web-0", annotations={})
        found = world.kubernetes.pod_with_uid(PodRef(world.namespace, "web-0"), STRANGER)
        assert found is not None
        assert found.uid == uid

    def test_a_deleted_pod_is_gone(self, world: World, wait_until: WaitUntil) -> None:
        ref = PodRef(world.namespace, "web-0")
        world.create_pod("web-0", annotations={})
        assert world.kubernetes.pod(ref) is not None
        world.delete_pod("web-0")
        wait_until(lambda: world.kubernetes.pod(ref) is None)
        assert world.kubernetes.pod_with_uid(ref, STRANGER) is None

    # --- definitions ---

    def test_a_definition(self, world: World) -> None:
        assert world.kubernetes.definition(world.namespace, "vlan10") is None
        world.create_definition("vlan10", '{"type": "macvlan"}', {"k8s.v1.cni.cncf.io/resourceName": "x/y"})
        found = world.kubernetes.definition(world.namespace, "vlan10")
        assert found is not None
        assert (found.namespace, found.name, found.config) == (world.namespace, "vlan10", '{"type": "macvlan"}')
        assert found.annotations["k8s.v1.cni.cncf.io/resourceName"] == "x/y"
        assert world.kubernetes.definition("no-such-namespace", "vlan10") is None

    def test_a_definition_without_a_configuration(self, world: World) -> None:
        world.create_definition("empty", "", {})
        found = world.kubernetes.definition(world.namespace, "empty")
        assert found is not None
        assert found.config == ""

    def test_a_changed_definition_is_soon_seen(self, world: World, wait_until: WaitUntil) -> None:
        def config() -> str:
            found = world.kubernetes.definition(world.namespace, "vlan10")
            assert found is not None
            return found.config

        world.create_definition("vlan10", "{}", {})
        assert config() == "{}"
        world.change_definition("vlan10", '{"mtu": 9000}')
        wait_until(lambda: config() == '{"mtu": 9000}')

    # --- workloads and nodes ---

    def test_a_workload(self, world: World) -> None:
        workload = Workload(world.namespace, "StatefulSet", "web")
        assert world.kubernetes.workload(workload) is None
        uid = world.create_stateful_set("web", replicas=3, annotations={"a": "b"})
        found = world.kubernetes.workload(workload)
        assert found is not None
        assert (found.workload, found.uid, found.replicas, found.annotations["a"]) == (workload, uid, 3, "b")
        assert (found.ordinals_start, found.deleting) == (0, False)

    def test_a_kind_that_nobody_knows(self, world: World) -> None:
        with pytest.raises(UnsupportedField, match='kind "Gizmo"'):
            world.kubernetes.workload(Workload(world.namespace, "Gizmo", "web"))

    @pytest.mark.parametrize("out_of_service", [False, True])
    def test_a_node(self, world: World, *, out_of_service: bool) -> None:
        name = world.create_node(out_of_service=out_of_service)
        assert world.kubernetes.node(name) == NodeState(name=name, ready=True, out_of_service=out_of_service)
        assert world.kubernetes.node("no-such-node") is None

    # --- writes ---

    def test_annotations_are_added_to_those_there_are(self, world: World) -> None:
        ref = PodRef(world.namespace, "web-0")
        uid = world.create_pod("web-0", annotations={"keep": "1", "change": "1"})
        assert world.kubernetes.write_annotations(ref, uid, {"change": "2", "add": '[{"ü": "\\n"}]'})
        assert world.kubernetes.write_annotations(ref, uid, {"change": "2", "add": '[{"ü": "\\n"}]'})  # again is fine
        assert world.annotations("web-0") == {"keep": "1", "change": "2", "add": '[{"ü": "\\n"}]'}

    def test_annotations_of_a_pod_that_is_gone(self, world: World) -> None:
        assert not world.kubernetes.write_annotations(PodRef(world.namespace, "nobody"), STRANGER, {"a": "b"})
        assert not world.kubernetes.write_annotations(PodRef("no-such-namespace", "nobody"), STRANGER, {"a": "b"})

    def test_annotations_never_reach_another_pod_of_the_name(self, world: World) -> None:
        world.create_pod("web-0", annotations={"a": "1"})
        assert not world.kubernetes.write_annotations(PodRef(world.namespace, "web-0"), STRANGER, {"a": "2"})
        assert world.annotations("web-0") == {"a": "1"}

    def test_events_are_there_in_the_end(self, world: World, wait_until: WaitUntil) -> None:
        uid = world.create_pod("web-0", annotations={})
        ref = PodRef(world.namespace, "web-0")
        for _ in range(3):
            world.kubernetes.emit(Event(pod=ref, pod_uid=uid, reason="AddedInterface", message="Add net1"))
        world.kubernetes.emit(Event(pod=ref, pod_uid=uid, reason="NoNetworkFound", message="x", warning=True))
        expected = [("AddedInterface", "Add net1", 3), ("NoNetworkFound", "x", 1)]
        wait_until(lambda: sorted(world.events("web-0")) == expected)

    # --- trouble ---

    def test_hostile_names_are_refused_before_anything_is_asked(self, world: World) -> None:
        for name in ("..", "../secrets", "a/b", "a%2fb", "", "A\0"):
            with pytest.raises(InvalidNetConf):
                world.kubernetes.pod(PodRef(world.namespace, name))
            with pytest.raises(InvalidNetConf):
                world.kubernetes.definition(name, "vlan10")
            with pytest.raises(InvalidNetConf):
                world.kubernetes.write_annotations(PodRef(world.namespace, name), STRANGER, {})
            world.kubernetes.emit(Event(pod=PodRef(name, "x"), pod_uid="", reason="r", message="m"))

    @pytest.mark.parametrize(("whose", "kind"), [("away", TryAgainLater), ("refused", IOFailure)])
    def test_no_answer_is_never_absence(self, world: World, whose: str, kind: type[Exception]) -> None:
        kubernetes: Kubernetes = getattr(world, whose)
        ref = PodRef(world.namespace, "web-0")
        questions: list[Callable[[], object]] = [
            lambda: kubernetes.pod(ref),
            lambda: kubernetes.pod_now(ref),
            lambda: kubernetes.pod_with_uid(ref, STRANGER),
            lambda: kubernetes.definition(world.namespace, "vlan10"),
            lambda: kubernetes.workload(Workload(world.namespace, "StatefulSet", "web")),
            lambda: kubernetes.node("n1"),
            lambda: kubernetes.write_annotations(ref, STRANGER, {"a": "b"}),
        ]
        for question in questions:
            with pytest.raises(kind):
                question()
        kubernetes.emit(Event(pod=ref, pod_uid="", reason="r", message="m"))
