"""The store and the real client on an API server whose replies are lost: what was done is found to be done."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec
import pytest
from tests.contract.test_allocation_store import allocation as plain_allocation
from tests.stand_ins_api import Asked, Piece, Reset, ScriptedServer, answer, not_found, status
from tests.stand_ins_objects import MemoryObjects

from homeport.ipam.allocations import Allocation, released
from homeport.ipam.identities import Owner, PodOwner, Replica, Workload
from homeport.kube.objects import KubernetesObjects
from homeport.model.errors import TryAgainLater
from homeport.ports import AlreadyExists, ApiObject, Conflict, ObjectChanged, ObjectExists, Resource
from homeport.stores.kubernetes.resources import IPALLOCATIONS, IPSLOTS
from homeport.stores.kubernetes.store import KubernetesStore

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
WEB = Replica(Workload("shop", "StatefulSet", "web"), 0)
RESOURCES = {resource.plural: resource for resource in (IPALLOCATIONS, IPSLOTS)}


class Forgetful:
    """An API server of our resources over HTTP. The replies to the requests numbered in `lost` never arrive."""

    def __init__(self) -> None:
        self.behind = MemoryObjects()
        self.lost: set[int] = set()
        self.requests: list[str] = []

    def __call__(self, asked: Asked) -> Iterator[Piece]:
        number = len(self.requests)
        plural, _, name = asked.path.removeprefix("/apis/homeport.dev/v1alpha1/").partition("/")
        self.requests.append(f"{asked.method} {plural}")
        reply = self._reply(asked, RESOURCES[plural], name)
        yield Reset() if number in self.lost else reply

    def _reply(self, asked: Asked, resource: Resource, name: str) -> bytes:
        body = msgspec.json.decode(asked.body) if asked.body else {}
        try:
            match asked.method:
                case "GET":
                    return _told(200, self.behind.get(resource, name), resource, name)
                case "POST":
                    return _told(201, self.behind.create(resource, body), resource, name)
                case "PATCH":
                    return _told(200, self.behind.patch(resource, name, body), resource, name)
            version = (body.get("preconditions") or {}).get("resourceVersion", "")
            self.behind.delete(resource, name, version=version)
        except ObjectExists:
            return status(409, "AlreadyExists", f'{resource.plural} "{name}" already exists')
        except ObjectChanged:
            if self.behind.get(resource, name) is None:
                return not_found(name, resource.plural)
            return status(409, "Conflict", "the object has been modified")
        return answer(200, {"kind": "Status", "status": "Success"})


def _told(code: int, stored: ApiObject | None, resource: Resource, name: str) -> bytes:
    return not_found(name, resource.plural) if stored is None else answer(code, stored.body)


@pytest.fixture
def api() -> Forgetful:
    return Forgetful()


@pytest.fixture
def store(api: Forgetful) -> Iterator[KubernetesStore]:
    server = ScriptedServer(api)
    objects = KubernetesObjects.connect(server.config, deadline_seconds=2.5)
    yield KubernetesStore(objects)
    objects.close()
    server.close()


def allocation(owner: Owner = WEB) -> Allocation:
    return plain_allocation("10.9.0.1", owner)


def retained(bound: Allocation) -> Allocation:
    left = released(bound, at=NOW)
    assert left is not None
    return left


@pytest.mark.parametrize("lost", [{0}, {1}, {0, 2}, {1, 2}])
def test_a_claim_is_made_once_whichever_reply_is_lost(api: Forgetful, store: KubernetesStore, lost: set[int]) -> None:
    api.lost = lost
    made = store.create(allocation(), cause="allocated")
    assert store.get("", made.address) == made
    assert store.of_slot(made.slot) == (made,)
    assert api.requests.count("POST ipallocations") <= 3


def test_a_change_and_a_deletion_are_made_once(api: Forgetful, store: KubernetesStore) -> None:
    made = store.create(allocation(), cause="allocated")
    api.lost = {len(api.requests)}
    kept = store.replace(retained(made), cause="DEL")
    assert store.get("", made.address) == kept
    api.lost = {len(api.requests)}
    store.delete(kept, cause="scaled")
    assert store.get("", made.address) is None


def test_a_deletion_whose_reply_was_lost_is_no_more_than_a_conflict(api: Forgetful, store: KubernetesStore) -> None:
    """The second copy finds nothing; who deleted it is not known, and does not matter."""
    made = store.create(allocation(PodOwner("shop", "p", "u")), cause="allocated")
    api.lost = {len(api.requests)}
    with pytest.raises(Conflict):
        store.delete(made, cause="DEL")
    assert store.get("", made.address) is None


def test_somebody_elses_claim_is_not_taken_for_ones_own(api: Forgetful, store: KubernetesStore) -> None:
    other = KubernetesStore(api.behind).create(allocation(PodOwner("shop", "p", "u")), cause="allocated")
    api.lost = {2}  # after the record of the slot: the first copy of the claim
    with pytest.raises(AlreadyExists) as refused:
        store.create(allocation(), cause="allocated")
    assert refused.value.present == other


def test_replies_that_are_always_lost_leave_the_outcome_open(api: Forgetful, store: KubernetesStore) -> None:
    api.lost = set(range(100))
    with pytest.raises(TryAgainLater):
        store.create(allocation(), cause="allocated")
    assert len(api.requests) < 10, "there is an end to repetitions"
    api.lost = set()
    assert store.create(allocation(), cause="allocated").slot == allocation().slot
