"""A watch across the restoring of an older backup: etcd's versions are given a second time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from testcluster.control_plane import ADMIN, ControlPlane
from tests.contract.test_objects import MAPS, Heard, manifest

from homeport.host.files import LocalFiles
from homeport.kube import configs
from homeport.kube.objects import KubernetesObjects

pytestmark = pytest.mark.root


@pytest.mark.timeout(180)
def test_a_watch_tells_what_was_taken_back(
    private_control_plane: ControlPlane, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    plane, heard, labels = private_control_plane, Heard(), {"l": "1"}
    config = configs.load(str(plane.kubeconfig(ADMIN)), {}, LocalFiles())
    assert config is not None
    objects = KubernetesObjects.connect(config)

    def create(name: str) -> None:
        objects.create(MAPS, manifest(name, labels), namespace="default")

    try:
        create("kept")
        create("deleted")
        objects.watch(
            MAPS, labels=labels, on_change=heard.changed, on_gone=lambda o: heard.told.append(("gone", o.name, ""))
        )
        wait_until(lambda: len(heard.told) == 2)
        plane.save(tmp_path / "backup")
        create("made")
        objects.delete(MAPS, "deleted", namespace="default")
        wait_until(lambda: heard.of("gone") == ["deleted"])
        heard.told.clear()
        plane.restore(tmp_path / "backup")
        wait_until(lambda: set(heard.told) == {("gone", "made", ""), ("changed", "deleted", "")}, 30)
        create("made")
        wait_until(lambda: heard.told[-1][:2] == ("changed", "made"), 10)
    finally:
        objects.close()
