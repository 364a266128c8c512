"""The contract of tests/contract/test_allocation_store.py, kept on a real API server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.contract.test_allocation_store import TestAllocationStore as TestAllocationStore
from tests.contract.test_allocation_store import Ticking
from tests.stand_ins_keeping import Keeper, KeptStore

from homeport.kube.objects import KubernetesObjects
from homeport.ports import AllocationStore

pytestmark = pytest.mark.root


@pytest.fixture
def store(objects: KubernetesObjects) -> Iterator[AllocationStore]:
    now = Ticking()
    keeper = Keeper(objects, now)
    yield KeptStore(objects, keeper, now)
    keeper.stop()
