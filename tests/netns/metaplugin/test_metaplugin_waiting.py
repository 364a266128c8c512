"""A replica whose address is still in use waits, and its pod's events say for what (docs/identity.md R8)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from homeport.model.errors import WaitingForRelease

if TYPE_CHECKING:
    from tests.netns.metaplugin.conftest import Machine

pytestmark = pytest.mark.root


def test_the_pod_is_told_what_it_waits_for(machine: Machine) -> None:
    machine.define("apps/lan", machine.sticky("lan"))
    old = machine.sandbox(machine.replica("web-0", "lan"))
    machine.add(old)
    machine.kubernetes.events.clear()
    new = machine.sandbox(machine.replica("web-0", "lan"))  # its object was deleted by force, its sandbox runs on
    with pytest.raises(WaitingForRelease) as refused:
        machine.add(new)
    assert refused.value.code == 11
    assert f"the network namespace {old.netns} of container {old.container_id[:13]} still exists" in refused.value.msg
    (event,) = machine.kubernetes.events
    assert (event.reason, event.warning, str(event.pod)) == ("WaitingForRelease", True, "apps/web-0")
    assert event.pod_uid == new.args["K8S_POD_UID"]
    assert event.message == refused.value.msg
    machine.delete(old)
    machine.add(new)
    assert machine.kubernetes.events[-1].reason == "AddedInterface"
