"""The contract of tests/contract/test_objects.py, kept by the client on a real API server."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator

import msgspec
import pytest
from testcluster.api import Api
from testcluster.control_plane import ADMIN, ControlPlane
from tests.contract.test_objects import MAPS, World
from tests.contract.test_objects import TestObjects as TestObjects

from homeport.host.files import LocalFiles
from homeport.kube import configs
from homeport.kube.configs import ApiConfig
from homeport.kube.objects import KubernetesObjects
from homeport.model.errors import IOFailure, TryAgainLater
from homeport.ports import PatchRefused
from homeport.stores.kubernetes.resources import IPALLOCATIONS

pytestmark = pytest.mark.root


def config_of(plane: ControlPlane, user: str) -> ApiConfig:
    config = configs.load(str(plane.kubeconfig(user)), {}, LocalFiles())
    assert config is not None
    return config


class RealApiServer:
    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self.namespace = namespace
        self._plane = plane
        mighty = config_of(plane, ADMIN)
        with socket.create_server(("127.0.0.1", 0)) as unused:
            closed = msgspec.structs.replace(mighty, host="127.0.0.1", port=unused.getsockname()[1])
        self.objects, self.others = KubernetesObjects.connect(mighty), KubernetesObjects.connect(mighty)
        self.away = KubernetesObjects.connect(closed)
        self.refused = KubernetesObjects.connect(config_of(plane, f"nobody-{secrets.token_hex(4)}"))

    def expired_version(self) -> str:
        former = self.others.create(MAPS, {"metadata": {"name": "before"}}, namespace=self.namespace)
        last = self.others.create(MAPS, {"metadata": {"name": "after"}}, namespace=self.namespace)
        self._plane.forget_versions(last.version)
        return former.version

    def close(self) -> None:
        for client in (self.objects, self.others, self.away, self.refused):
            client.close()


@pytest.fixture
def world(control_plane: ControlPlane, admin: Api, namespace: str) -> Iterator[World]:
    real = RealApiServer(control_plane, namespace)
    yield real
    real.close()


def test_a_patch_that_makes_nonsense_is_told_from_a_test_that_failed(world: World) -> None:
    """Both are answered 422, and of custom resources too."""
    body = {
        "metadata": {"name": "10.250.0.1"},
        "spec": {
            "address": "10.250.0.1",
            "network": "net",
            "interface": "net1",
            "owner": {"kind": "Container", "containerID": "c1"},
            "retention": {"whenScaled": "Retain", "whenDeleted": "Release", "adopt": "SameName"},
        },
        "status": {"phase": "Retained", "since": "2026-01-01T00:00:00.000000Z"},
    }
    made = world.others.create(IPALLOCATIONS, body)
    try:
        nonsense = [{"op": "replace", "path": "/status/phase", "value": "Nonsense"}]
        with pytest.raises(IOFailure) as refused:
            world.objects.patch_json(IPALLOCATIONS, "10.250.0.1", nonsense)
        assert not isinstance(refused.value, TryAgainLater)
        assert "status.phase" in refused.value.details
        with pytest.raises(IOFailure, match="answered 422"):
            world.objects.patch(IPALLOCATIONS, "10.250.0.1", {"status": {"phase": "Nonsense"}}, version=made.version)
        failing = [{"op": "test", "path": "/metadata/resourceVersion", "value": "1"}, *nonsense]
        with pytest.raises(PatchRefused):
            world.objects.patch_json(IPALLOCATIONS, "10.250.0.1", failing)
        assert world.objects.get(IPALLOCATIONS, "10.250.0.1") == made
    finally:
        world.others.delete(IPALLOCATIONS, "10.250.0.1")
