"""A pod's networks from annotation to kernel and back, seen with iproute2."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.netns.metaplugin.conftest import Machine

pytestmark = pytest.mark.root

Names = Callable[[str], set[str]]
Ipv4 = Callable[[str, str], list[str]]


def test_a_pod_gets_all_it_asks_for(machine: Machine, names: Names, ipv4: Ipv4) -> None:
    machine.define("apps/lan", machine.macvlan("lan", "10.93.97.5/20"))
    pod = machine.pod(networks="lan,kube-system/main@second")
    sandbox = machine.sandbox(pod)
    result = machine.add(sandbox)
    assert names(sandbox.netns) == {"lo", "eth0", "net1", "second"}
    assert ipv4(sandbox.netns, "eth0") == [str(result.ips[0].address)] == ["10.11.0.2/24"]
    assert ipv4(sandbox.netns, "net1") == ["10.93.97.5/20"]
    assert [(s["name"], s["interface"], s["ips"], s.get("default", False)) for s in machine.status_of(pod)] == [
        ("kube-system/main", "eth0", ["10.11.0.2"], True),
        ("apps/lan", "net1", ["10.93.97.5"], False),
        ("kube-system/main", "second", ["10.11.0.3"], False),
    ]
    assert [event.message for event in machine.kubernetes.events] == [
        "Add eth0 [10.11.0.2/24] from kube-system/main",
        "Add net1 [10.93.97.5/20] from apps/lan",
        "Add second [10.11.0.3/24] from kube-system/main",
    ]
    assert machine.scratch(sandbox).stat().st_mode & 0o777 == 0o600
    machine.check(sandbox)
    machine.kubernetes.asked.clear()
    machine.delete(sandbox)
    assert names(sandbox.netns) == {"lo"}
    assert machine.is_clean()
    assert machine.kubernetes.asked == []
