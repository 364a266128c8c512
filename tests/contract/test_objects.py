"""What every `Objects` owes its callers, asked of each of them: here the one in memory that tests use.

tests/apiserver/test_objects_contract.py asks the same of the client on a real API server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import msgspec
import pytest
from tests.stand_ins_objects import MemoryObjects, MemoryServer

from homeport.model.errors import IOFailure, TryAgainLater, Unreachable
from homeport.ports import ApiObject, ObjectChanged, ObjectExists, Objects, PatchRefused, Resource

WaitUntil = Callable[..., None]
MAPS = Resource(group="", version="v1", plural="configmaps", kind="ConfigMap", namespaced=True)
WIDE = Resource(group="scheduling.k8s.io", version="v1", plural="priorityclasses", kind="PriorityClass")
UNKNOWN = Resource(group="nobody.example", version="v1", plural="things", kind="Thing")


class World(Protocol):
    """An API server; every object with a namespace is in `namespace`."""

    @property
    def namespace(self) -> str: ...
    @property
    def objects(self) -> Objects: ...
    @property
    def others(self) -> Objects:
        """Somebody else's client, who may do everything."""

    @property
    def away(self) -> Objects:
        """Whose API server does not answer: nothing listens."""

    @property
    def refused(self) -> Objects:
        """Who may do nothing."""

    def expired_version(self) -> str:
        """A version that the API server no longer knows."""


class InMemory:
    namespace = "shop"

    def __init__(self) -> None:
        self._server = MemoryServer()
        self._server.lacking.add(UNKNOWN)
        self.objects, self.others = MemoryObjects(self._server), MemoryObjects(self._server)
        self.away, self.refused = MemoryObjects(self._server), MemoryObjects(self._server)
        self.away.reachable = False
        self.refused.allowed = False

    def expired_version(self) -> str:
        version = str(self._server.version)
        self.others.create(MAPS, {"metadata": {"name": "after-expiry"}}, namespace="elsewhere")
        self._server.compact()
        return version

    def close(self) -> None:
        for client in (self.objects, self.others, self.away, self.refused):
            client.close()


@pytest.fixture
def world() -> Iterator[World]:
    memory = InMemory()
    yield memory
    memory.close()


def manifest(name: str, labels: Mapping[str, str] | None = None, **data: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": dict(labels or {})}, "data": data}


def body(found: ApiObject | None) -> Any:
    assert found is not None
    return msgspec.json.decode(found.body)


class Heard:
    """What a watch told, in order: (what, name, its datum `k`)."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, str]] = []
        self.objects: list[ApiObject] = []
        self.lists: list[str] = []

    def changed(self, found: ApiObject) -> None:
        self._hear("changed", found)

    def gone(self, found: ApiObject) -> None:
        self._hear("gone", found)

    def listed(self, version: str) -> None:
        self.told.append(("listed", "", ""))
        self.lists.append(version)

    def of(self, what: str) -> list[str]:
        return [name for told, name, _ in self.told if told == what]

    def _hear(self, what: str, found: ApiObject) -> None:
        self.told.append((what, found.name, (body(found).get("data") or {}).get("k", "")))
        self.objects.append(found)


class TestObjects:
    # --- reading and creating ---

    def test_what_was_created_is_read_back(self, world: World) -> None:
        made = world.objects.create(MAPS, manifest("a", {"l": "1"}, k="v"), namespace=world.namespace)
        assert (made.namespace, made.name) == (world.namespace, "a")
        assert made.uid
        assert int(made.version) > 0
        assert world.others.get(MAPS, "a", namespace=world.namespace) == made
        assert body(made)["data"] == {"k": "v"}
        metadata = body(made)["metadata"]
        assert (metadata["uid"], metadata["resourceVersion"]) == (made.uid, made.version)
        assert metadata["labels"] == {"l": "1"}
        assert metadata["creationTimestamp"]

    def test_nothing_is_there_before_it_was_made(self, world: World) -> None:
        assert world.objects.get(MAPS, "a", namespace=world.namespace) is None
        assert world.objects.list(MAPS, namespace=world.namespace, labels={"l": "none"}) == []

    def test_a_name_is_taken_once(self, world: World) -> None:
        first = world.objects.create(MAPS, manifest("a", k="1"), namespace=world.namespace)
        with pytest.raises(ObjectExists):
            world.others.create(MAPS, manifest("a", k="2"), namespace=world.namespace)
        assert world.objects.get(MAPS, "a", namespace=world.namespace) == first

    def test_an_object_without_namespace(self, world: World) -> None:
        name = f"homeport-{world.namespace}"
        made = world.objects.create(WIDE, {"metadata": {"name": name}, "value": 7})
        try:
            assert made.namespace == ""
            assert world.objects.get(WIDE, name) == made
            with pytest.raises(ObjectExists):
                world.objects.create(WIDE, {"metadata": {"name": name}, "value": 8})
        finally:
            world.objects.delete(WIDE, name)
        assert world.objects.get(WIDE, name) is None

    def test_a_resource_that_is_not_there_is_an_error_and_no_absence(self, world: World) -> None:
        with pytest.raises(IOFailure):
            world.objects.get(UNKNOWN, "a")
        with pytest.raises(IOFailure):
            world.objects.list(UNKNOWN)
        with pytest.raises(IOFailure):
            world.objects.create(UNKNOWN, {"metadata": {"name": "a"}})

    def test_versions_ascend_over_all_objects(self, world: World) -> None:
        made = [world.objects.create(MAPS, manifest(n), namespace=world.namespace) for n in ("c", "a", "b")]
        changed = world.objects.patch(MAPS, "c", {"data": {"k": "1"}}, namespace=world.namespace)
        versions = [int(o.version) for o in (*made, changed)]
        assert versions == sorted(set(versions))

    def test_a_list_is_chosen_by_labels_and_namespace(self, world: World) -> None:
        for name, labels in (("a", {"x": "1", "y": "1"}), ("b", {"x": "1"}), ("c", {"x": "2", "y": "1"})):
            world.objects.create(MAPS, manifest(name, labels), namespace=world.namespace)

        def names(**labels: str) -> list[str]:
            return [o.name for o in world.objects.list(MAPS, namespace=world.namespace, labels=labels)]

        assert names(x="1") == ["a", "b"]
        assert names(x="1", y="1") == ["a"]
        assert names(x="3") == []
        everywhere = world.objects.list(MAPS)
        assert {o.name for o in everywhere if o.namespace == world.namespace} >= {"a", "b", "c"}
        found = world.objects.list(MAPS, namespace=world.namespace, labels={"y": "1"})[0]
        alone = world.objects.get(MAPS, "a", namespace=world.namespace)
        assert alone is not None
        assert (found.uid, found.version) == (alone.uid, alone.version)
        assert body(alone) == {"apiVersion": "v1", "kind": "ConfigMap", **body(found)}, "a list may leave these out"

    def test_names_are_what_lists_have_a_moment_later(self, world: World, wait_until: WaitUntil) -> None:
        def names(**labels: str) -> list[str]:
            return sorted(world.objects.names(MAPS, namespace=world.namespace, labels=labels))

        assert names(x="1") == []
        for name, labels in (("a", {"x": "1", "y": "1"}), ("b", {"x": "1"}), ("c", {"x": "2", "y": "1"})):
            world.objects.create(MAPS, manifest(name, labels), namespace=world.namespace)
        wait_until(lambda: (names(x="1"), names(x="1", y="1")) == (["a", "b"], ["a"]))
        world.objects.delete(MAPS, "a", namespace=world.namespace)
        wait_until(lambda: names(y="1") == ["c"])
        with pytest.raises(IOFailure):
            world.objects.names(UNKNOWN)

    # --- changing ---

    def test_a_merge_patch_of_the_version_seen(self, world: World) -> None:
        made = world.objects.create(MAPS, manifest("a", {"l": "1"}, k="1", gone="x"), namespace=world.namespace)
        patch = {"metadata": {"labels": {"m": "2"}}, "data": {"k": "2", "gone": None}}
        changed = world.objects.patch(MAPS, "a", patch, namespace=world.namespace, version=made.version)
        assert body(changed)["data"] == {"k": "2"}
        assert body(changed)["metadata"]["labels"] == {"l": "1", "m": "2"}
        assert (changed.uid, changed.version != made.version) == (made.uid, True)
        with pytest.raises(ObjectChanged):
            world.objects.patch(MAPS, "a", {"data": {"k": "3"}}, namespace=world.namespace, version=made.version)
        assert world.objects.get(MAPS, "a", namespace=world.namespace) == changed

    def test_a_patch_that_changes_nothing_makes_no_version(self, world: World) -> None:
        made = world.objects.create(MAPS, manifest("a", k="1"), namespace=world.namespace)
        same = world.objects.patch(MAPS, "a", {"data": {"k": "1"}}, namespace=world.namespace, version=made.version)
        assert same.version == made.version

    def test_an_object_that_is_gone_cannot_be_changed(self, world: World) -> None:
        with pytest.raises(ObjectChanged):
            world.objects.patch(MAPS, "a", {"data": {"k": "1"}}, namespace=world.namespace)
        with pytest.raises(PatchRefused):
            world.objects.patch_json(
                MAPS, "a", [{"op": "add", "path": "/data/k", "value": "1"}], namespace=world.namespace
            )
        with pytest.raises(ObjectChanged):
            world.objects.delete(MAPS, "a", namespace=world.namespace)

    def test_a_json_patch_is_done_where_its_tests_hold(self, world: World) -> None:
        made = world.objects.create(MAPS, manifest("a", {"l": "1"}, k="1"), namespace=world.namespace)
        operations = [
            {"op": "test", "path": "/metadata/resourceVersion", "value": made.version},
            {"op": "replace", "path": "/data/k", "value": "2"},
            {"op": "add", "path": "/metadata/labels/a.example~1l", "value": "3"},
        ]
        changed = world.objects.patch_json(MAPS, "a", operations[1:], namespace=world.namespace)
        assert body(changed)["data"]["k"] == "2"
        assert body(changed)["metadata"]["labels"] == {"l": "1", "a.example/l": "3"}
        with pytest.raises(PatchRefused):
            world.objects.patch_json(MAPS, "a", operations, namespace=world.namespace)
        fresh = [{"op": "test", "path": "/metadata/resourceVersion", "value": changed.version}, operations[1]]
        with pytest.raises(PatchRefused):
            world.objects.patch_json(
                MAPS, "a", [*fresh, {"op": "remove", "path": "/data/none"}], namespace=world.namespace
            )
        assert world.objects.get(MAPS, "a", namespace=world.namespace) == changed

    def test_a_deletion_of_the_version_and_uid_seen(self, world: World) -> None:
        made = world.objects.create(MAPS, manifest("a"), namespace=world.namespace)
        changed = world.objects.patch(MAPS, "a", {"data": {"k": "1"}}, namespace=world.namespace)
        with pytest.raises(ObjectChanged):
            world.objects.delete(MAPS, "a", namespace=world.namespace, version=made.version)
        with pytest.raises(ObjectChanged):
            world.objects.delete(MAPS, "a", namespace=world.namespace, uid="00000000-0000-4000-8000-000000000000")
        assert world.objects.get(MAPS, "a", namespace=world.namespace) == changed
        world.objects.delete(MAPS, "a", namespace=world.namespace, version=changed.version, uid=made.uid)
        assert world.objects.get(MAPS, "a", namespace=world.namespace) is None
        again = world.objects.create(MAPS, manifest("a"), namespace=world.namespace)
        assert again.uid != made.uid
        assert int(again.version) > int(changed.version)

    # --- refusals ---

    def test_an_api_server_that_is_away_was_told_nothing(self, world: World) -> None:
        for call in calls(world.away, world.namespace):
            with pytest.raises(Unreachable):
                call()

    def test_a_refusal_for_good_is_no_answer(self, world: World) -> None:
        for call in calls(world.refused, world.namespace):
            with pytest.raises(IOFailure):
                call()

    def test_what_cannot_be_is_refused_and_changes_nothing(self, world: World) -> None:
        with pytest.raises(IOFailure) as refused:
            world.objects.create(MAPS, manifest("a", {"l": "no label!"}), namespace=world.namespace)
        assert not isinstance(refused.value, TryAgainLater)
        assert world.objects.get(MAPS, "a", namespace=world.namespace) is None

    # --- watching ---

    def test_a_watch_tells_what_is_there_and_then_what_happens(self, world: World, wait_until: WaitUntil) -> None:
        heard, labels = Heard(), {"l": "1"}
        world.others.create(MAPS, manifest("a", labels, k="1"), namespace=world.namespace)
        watch = watching(world, heard, labels)
        try:
            assert watch.wait_listed(10.0)
            assert heard.told == [("changed", "a", "1"), ("listed", "", "")]
            assert watch.is_current()
            world.others.create(MAPS, manifest("b", labels, k="2"), namespace=world.namespace)
            world.others.create(MAPS, manifest("c", {"l": "2"}, k="3"), namespace=world.namespace)
            world.others.patch(MAPS, "a", {"data": {"k": "4"}}, namespace=world.namespace)
            world.others.delete(MAPS, "b", namespace=world.namespace)
            wait_until(lambda: heard.told[2:] == [("changed", "b", "2"), ("changed", "a", "4"), ("gone", "b", "2")])
        finally:
            watch.stop()
        last = world.objects.get(MAPS, "a", namespace=world.namespace)
        assert (body(heard.objects[2]), heard.objects[2].version) == (body(last), last.version if last else "")
        versions = [int(o.version) for o in heard.objects]
        assert versions == sorted(set(versions)), "the last word on what is gone is of its end"

    def test_a_stopped_watch_tells_nothing(self, world: World, wait_until: WaitUntil) -> None:
        stopped, going = Heard(), Heard()
        first, second = watching(world, stopped), watching(world, going)
        assert first.wait_listed(10.0)
        assert second.wait_listed(10.0)
        first.stop()
        world.others.create(MAPS, manifest("late"), namespace=world.namespace)
        wait_until(lambda: "late" in going.of("changed"))
        second.stop()
        assert "late" not in stopped.of("changed")

    def test_what_no_longer_has_the_labels_is_told_as_gone(self, world: World, wait_until: WaitUntil) -> None:
        heard = Heard()
        world.others.create(MAPS, manifest("a", {"l": "1"}), namespace=world.namespace)
        watch = watching(world, heard, {"l": "1"})
        try:
            assert watch.wait_listed(10.0)
            world.others.patch(MAPS, "a", {"metadata": {"labels": {"l": "2"}}}, namespace=world.namespace)
            wait_until(lambda: heard.of("gone") == ["a"])
            world.others.patch(MAPS, "a", {"metadata": {"labels": {"l": "1"}}}, namespace=world.namespace)
            wait_until(lambda: heard.of("changed") == ["a", "a"])
        finally:
            watch.stop()

    def test_a_watch_goes_on_from_a_version(self, world: World, wait_until: WaitUntil) -> None:
        heard, labels = Heard(), {"l": "1"}
        world.others.create(MAPS, manifest("a", labels), namespace=world.namespace)
        seen = world.others.create(MAPS, manifest("b", labels), namespace=world.namespace)
        world.others.patch(MAPS, "a", {"data": {"k": "1"}}, namespace=world.namespace)
        watch = watching(world, heard, labels, since=seen.version)
        try:
            world.others.delete(MAPS, "b", namespace=world.namespace)
            wait_until(lambda: heard.told[3:] == [("changed", "a", "1"), ("gone", "b", "")])
            assert sorted(heard.told[:2]) == [("changed", "a", ""), ("changed", "b", "")]
            assert heard.lists == [seen.version]
            last = world.others.create(MAPS, manifest("c", labels), namespace=world.namespace)
            wait_until(lambda: int(watch.version()) >= int(last.version))
            assert heard.told[-1] == ("changed", "c", "")
        finally:
            watch.stop()

    def test_a_watch_from_any_version_tells_all_in_the_end(self, world: World, wait_until: WaitUntil) -> None:
        heard, labels = Heard(), {"l": "1"}
        world.others.create(MAPS, manifest("a", labels), namespace=world.namespace)
        watch = watching(world, heard, labels, since="0")
        try:
            assert watch.wait_listed(10.0)
            wait_until(lambda: heard.of("changed") == ["a"])
            world.others.delete(MAPS, "a", namespace=world.namespace)
            wait_until(lambda: heard.of("gone") == ["a"])
        finally:
            watch.stop()

    def test_a_watch_from_a_forgotten_version_lists(self, world: World, wait_until: WaitUntil) -> None:
        heard = Heard()
        world.others.create(MAPS, manifest("a", {"l": "1"}), namespace=world.namespace)
        watch = watching(world, heard, {"l": "1"}, since=world.expired_version())
        try:
            wait_until(lambda: heard.told == [("changed", "a", ""), ("listed", "", "")], deadline=15.0)
            last = world.others.create(MAPS, manifest("b", {"l": "1"}), namespace=world.namespace)
            wait_until(lambda: heard.of("changed") == ["a", "b"])
        finally:
            watch.stop()
        assert int(heard.lists[0]) < int(last.version)


def watching(world: World, heard: Heard, labels: Mapping[str, str] | None = None, *, since: str = "") -> Any:
    return world.objects.watch(
        MAPS,
        namespace=world.namespace,
        labels=labels,
        on_change=heard.changed,
        on_gone=heard.gone,
        on_listed=heard.listed,
        since=since,
    )


def calls(objects: Objects, namespace: str) -> list[Callable[[], object]]:
    """One of each."""
    operations = [{"op": "add", "path": "/data", "value": {}}]
    return [
        lambda: objects.get(MAPS, "a", namespace=namespace),
        lambda: objects.create(MAPS, manifest("a"), namespace=namespace),
        lambda: objects.patch(MAPS, "a", {"data": {"k": "1"}}, namespace=namespace),
        lambda: objects.patch_json(MAPS, "a", operations, namespace=namespace),
        lambda: objects.delete(MAPS, "a", namespace=namespace),
        lambda: objects.list(MAPS, namespace=namespace),
        lambda: objects.names(MAPS, namespace=namespace),
    ]
