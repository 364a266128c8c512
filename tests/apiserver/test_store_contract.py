"""The contract of tests/contract/test_allocation_store.py, kept on a real API server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from testcluster.control_plane import ADMIN, ControlPlane
from tests.contract.test_allocation_store import TestAllocationStore as TestAllocationStore
from tests.contract.test_allocation_store import Ticking
from tests.stand_ins_keeping import Keeper, KeptStore

from homeport.host.files import LocalFiles
from homeport.kube import configs
from homeport.kube.objects import KubernetesObjects
from homeport.ports import AllocationStore
from homeport.stores.kubernetes.resources import IPALLOCATIONS, IPLEDGERS, IPSLOTS

pytestmark = pytest.mark.root


@pytest.fixture
def objects(control_plane: ControlPlane) -> Iterator[KubernetesObjects]:
    config = configs.load(str(control_plane.kubeconfig(ADMIN)), {}, LocalFiles())
    assert config is not None
    objects = KubernetesObjects.connect(config)
    yield objects
    for resource in (IPALLOCATIONS, IPSLOTS, IPLEDGERS):
        for stored in objects.list(resource):
            objects.delete(resource, stored.name)
    objects.close()


@pytest.fixture
def store(objects: KubernetesObjects) -> Iterator[AllocationStore]:
    now = Ticking()
    keeper = Keeper(objects, now)
    yield KeptStore(objects, keeper, now)
    keeper.stop()
