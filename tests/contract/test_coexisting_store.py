"""The store of a cluster that Whereabouts shares keeps the contract of all allocation stores."""

from __future__ import annotations

import pytest
from tests.contract.test_allocation_store import TestAllocationStore as TestAllocationStore
from tests.contract.test_allocation_store import Ticking
from tests.stand_ins_objects import MemoryObjects

from homeport.ports import AllocationStore
from homeport.stores.coexisting import CoexistingStore
from homeport.stores.memory import MemoryStore
from homeport.stores.whereabouts import POOLS


@pytest.fixture
def store() -> AllocationStore:
    objects = MemoryObjects()
    for name, range_ in (("10.0.0.0-8", "10.0.0.0/8"), ("fd00---64", "fd00::/64"), ("blue-10.0.0.0-24", "10.0.0.0/24")):
        body = {"metadata": {"name": name}, "spec": {"range": range_, "allocations": {}}}
        objects.create(POOLS, body, namespace="kube-system")
    return CoexistingStore(MemoryStore(now=Ticking()), objects)
