"""A claim that was given up and is made after all, while the same interface claims again (docs/protocol.md P3)."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from tests.contract.test_allocation_store import allocation, holder
from tests.stand_ins_objects import MemoryObjects

from homeport.ipam.identities import PodOwner
from homeport.model.errors import TryAgainLater
from homeport.ports import AlreadyExists
from homeport.stores.claims import Claims
from homeport.stores.kubernetes.resources import IPALLOCATIONS
from homeport.stores.kubernetes.store import KubernetesStore
from homeport.stores.nodes import NodeStore


@pytest.fixture
def objects() -> MemoryObjects:
    return MemoryObjects()


@pytest.fixture
def store(objects: MemoryObjects, tmp_path: Path) -> NodeStore:
    return NodeStore(KubernetesStore(objects), Claims(tmp_path / "claims.db"), node="n1")


def test_the_late_claim_of_the_same_interface_is_its_own(objects: MemoryObjects, store: NodeStore) -> None:
    wanted = allocation("10.0.0.1", PodOwner("ns", "p", "u"))
    objects.fail("create", "later", resource=IPALLOCATIONS)
    with pytest.raises(TryAgainLater):
        store.create(wanted, cause="allocated")
    assert store.of_slot(wanted.slot) == (), "not there yet: so it is claimed once more"
    objects.land()
    made = store.create(wanted, cause="allocated")
    assert store.of_holder("c1", "net1") == (made,), "so that its DEL finds it"
    store.delete(made, cause="DEL")
    assert store.deliver() == 0
    assert tuple(store.all()) == ()


def test_anybody_elses_claim_is_not(store: NodeStore) -> None:
    theirs = allocation("10.0.0.1", PodOwner("ns", "q", "u"))
    theirs = msgspec.structs.replace(theirs, holder=holder("c2"))
    store.remote.create(theirs, cause="allocated")
    with pytest.raises(AlreadyExists):
        store.create(allocation("10.0.0.1", PodOwner("ns", "p", "u")), cause="allocated")
    assert store.of_holder("c1", "net1") == ()
