"""The API server is away (docs/identity.md E20): pods come and go by what the node has written down."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from homeport.model.errors import TryAgainLater
from homeport.multinet import statuses

if TYPE_CHECKING:
    from tests.netns.metaplugin.conftest import Machine

pytestmark = pytest.mark.root

Names = Callable[[str], set[str]]
Ipv4 = Callable[[str, str], list[str]]


def test_a_sandbox_is_recreated(machine: Machine, names: Names, ipv4: Ipv4) -> None:
    machine.define("apps/lan", machine.sticky("lan"))
    pod = machine.replica("web-0", "lan@data")
    first, second = machine.sandbox(pod), machine.sandbox(pod)
    machine.add(first)
    machine.kubernetes.mood = "unreachable"
    machine.restart()
    machine.delete(first)
    assert names(first.netns) == {"lo"}
    result = machine.add(second)
    assert ipv4(second.netns, "data") == ["10.93.97.12/20"]
    assert ipv4(second.netns, "eth0") == [str(result.ips[0].address)]
    machine.check(second)
    (allocation,) = machine.shells.open_allocations(None).all()
    assert allocation.holder is not None
    assert allocation.holder.container_id == second.container_id
    assert str(allocation.slot.owner) == "apps/web-0"
    before = machine.status_of(pod)
    assert machine.plugin.deliver_pending() == 1
    assert machine.status_of(pod) == before
    machine.kubernetes.mood = "answering"
    assert machine.plugin.deliver_pending() == 0
    assert machine.status_of(pod)[0]["ips"] == [str(result.ips[0].address.ip)] != before[0]["ips"]
    machine.kubernetes.asked.clear()
    assert machine.plugin.deliver_pending() == 0
    assert machine.kubernetes.asked == []
    machine.delete(second)
    assert machine.results() == machine.addresses() == []


def test_what_a_plugin_receives_is_of_the_new_container(machine: Machine) -> None:
    machine.foreign(
        "noting", f"""env | sort > {machine.home}/env; [ $CNI_COMMAND != ADD ] || echo '{{"cniVersion": "1.1.0"}}'"""
    )
    machine.define("apps/lan", {"cniVersion": "1.1.0", "name": "lan", "plugins": [{"type": "noting"}]})
    pod = machine.pod(networks="lan")
    first, second = machine.sandbox(pod), machine.sandbox(pod)
    machine.add(first)
    machine.kubernetes.mood = "unreachable"
    machine.delete(first)
    machine.add(second)
    env = (machine.home / "env").read_text()
    assert f"K8S_POD_INFRA_CONTAINER_ID={second.container_id}" in env
    assert first.container_id not in env


def test_the_status_is_delivered_later(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    pod = machine.pod()
    sandbox = machine.sandbox(pod)

    def unreachable(*_: object) -> bool:
        raise TryAgainLater("write annotations: connection refused")

    with monkeypatch.context() as away:
        away.setattr(machine.kubernetes, "write_annotations", unreachable)
        machine.add(sandbox)
        assert machine.plugin.deliver_pending() == 1
    machine.restart()
    assert machine.plugin.deliver_pending() == 0
    assert machine.status_of(pod)[0]["interface"] == "eth0"


def test_a_status_of_a_pod_that_is_gone_is_dropped(machine: Machine) -> None:
    pod = machine.pod()
    first, second = machine.sandbox(pod), machine.sandbox(pod)
    machine.add(first)
    machine.kubernetes.mood = "unreachable"
    machine.delete(first)
    machine.add(second)
    machine.kubernetes.mood = "answering"
    machine.kubernetes.delete_pod(pod.ref)
    newer = machine.pod()
    assert machine.plugin.deliver_pending() == 0
    assert statuses.ANNOTATION not in machine.kubernetes.pods[newer.ref].annotations


@pytest.mark.parametrize("known", ["never added", "of another uid", "forgotten", "record unreadable"])
def test_a_pod_that_is_not_known(machine: Machine, names: Names, known: str) -> None:
    pod = machine.pod()
    if known != "never added":
        first = machine.sandbox(pod)
        machine.add(first)
        machine.delete(first)
    if known == "of another uid":
        pod = machine.pod()
    elif known == "forgotten":
        machine.plugin.forget_pod(pod.ref, pod.uid)
    elif known == "record unreadable":
        (machine.home / "state" / "pods" / pod.uid).write_text("{")
        machine.restart()
    machine.kubernetes.mood = "unreachable"
    sandbox = machine.sandbox(pod)
    with pytest.raises(TryAgainLater):
        machine.add(sandbox)
    assert names(sandbox.netns) == {"lo"}
    assert machine.is_clean()


def test_the_watch_still_knows_the_pod_but_not_its_networks(machine: Machine, ipv4: Ipv4) -> None:
    pod = machine.pod()
    first, second = machine.sandbox(pod), machine.sandbox(pod)
    machine.add(first)
    machine.delete(first)
    machine.kubernetes.recall = machine.plugin.recall
    machine.kubernetes.mood = "unreachable"
    machine.add(second)
    assert ipv4(second.netns, "eth0") == ["10.11.0.3/24"]


def test_records_go_only_when_the_pod_is_proven_gone(machine: Machine) -> None:
    pod, other = machine.pod(), machine.pod("other")
    for one in (pod, other):
        sandbox = machine.sandbox(one)
        machine.add(sandbox)
        machine.delete(sandbox)
    records = machine.home / "state" / "pods"
    assert {path.name for path in records.iterdir()} == {pod.uid, other.uid}
    assert {path.stat().st_mode & 0o777 for path in records.iterdir()} == {0o600}
    machine.plugin.forget_pod(pod.ref, pod.uid)
    machine.plugin.forget_pod(pod.ref, pod.uid)
    assert [path.name for path in records.iterdir()] == [other.uid]
