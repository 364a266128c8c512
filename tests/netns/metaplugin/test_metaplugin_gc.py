"""GC: what dead containers left goes, on every network, and nothing of the living."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from homeport.model.errors import CniError, InvalidNetConf

if TYPE_CHECKING:
    from tests.netns.metaplugin.conftest import Machine, Sandbox

pytestmark = pytest.mark.root

Names = Callable[[str], set[str]]


@pytest.fixture
def two(machine: Machine) -> tuple[Sandbox, Sandbox]:
    """Two pods on two networks each."""
    machine.define("apps/lan", machine.sticky("lan"))
    alive, dead = machine.sandbox(machine.pod("a", "lan")), machine.sandbox(machine.pod("b", "lan"))
    machine.add(alive)
    machine.add(dead)
    return alive, dead


def is_whole(machine: Machine, alive: Sandbox) -> bool:
    """Whether the living container has everything, and nobody else anything."""
    machine.check(alive)
    holders = [allocation.holder for allocation in machine.shells.open_allocations(None).all()]
    owners = {holder.container_id for holder in holders if holder is not None}
    files = [Path(path) for path in (machine.home / "host-local").rglob("*") if path.name[0].isdigit()]
    return owners == {alive.container_id} and [alive.container_id in path.read_text() for path in files] == [True]


def test_the_dead_go(machine: Machine, two: tuple[Sandbox, Sandbox], names: Names) -> None:
    alive, dead = two
    machine.gc(alive, dead)
    assert len(machine.addresses()) == len(machine.sticky_addresses()) == 2
    machine.gc(alive)
    assert names(dead.netns) == {"lo"}
    assert is_whole(machine, alive)
    assert [name for name in machine.results() if dead.container_id in name] == []
    assert not machine.scratch(dead).exists()
    machine.gc()
    assert names(alive.netns) == {"lo"}
    assert machine.is_clean()


@pytest.mark.parametrize("lost", ["scratch", "results", "both", "namespace", "unreadable"])
def test_the_dead_go_whatever_is_left_of_them(machine: Machine, two: tuple[Sandbox, Sandbox], lost: str) -> None:
    alive, dead = two
    if lost in ("scratch", "both"):
        machine.scratch(dead).unlink()
    if lost in ("results", "both"):
        for name in machine.results():
            if dead.container_id in name:
                (machine.cni_dir / "results" / name).unlink()
    if lost in ("namespace", "both", "results"):
        machine.shells.host.delete_namespace(dead.netns)
    if lost == "unreadable":
        machine.scratch(dead).write_text("[{")
        with pytest.raises(CniError, match="decode networks of container"):
            machine.gc(alive)
        assert machine.scratch(dead).exists()
    else:
        machine.gc(alive)
    assert is_whole(machine, alive)


def test_while_a_living_container_is_not_known_nothing_is_guessed(
    machine: Machine, two: tuple[Sandbox, Sandbox], names: Names
) -> None:
    alive, dead = two
    text = machine.scratch(alive).read_bytes()
    machine.scratch(alive).write_text("[{")
    for name in machine.results():
        if alive.container_id in name:
            (machine.cni_dir / "results" / name).unlink()
    with pytest.raises(CniError, match="decode networks of container"):
        machine.gc(alive)
    assert names(dead.netns) == {"lo"}
    machine.scratch(alive).write_bytes(text)
    assert len(machine.addresses()) == len(machine.sticky_addresses()) == 1


def test_a_result_that_cannot_be_read(machine: Machine, two: tuple[Sandbox, Sandbox]) -> None:
    alive, _ = two
    (machine.cni_dir / "results" / "lan-of-somebody").write_text("{")
    with pytest.raises(CniError, match="lan-of-somebody"):
        machine.gc(alive)
    (machine.cni_dir / "results" / "lan-of-somebody").unlink()
    assert is_whole(machine, alive)


def test_a_container_that_had_the_network_before_us(machine: Machine, names: Names) -> None:
    """Attached by the runtime itself, when the network was not yet ours: nothing here speaks of it."""
    before = machine.sandbox(machine.pod())
    machine.add(before)
    machine.scratch(before).unlink()
    for name in machine.results():
        (machine.cni_dir / "results" / name).unlink()
    machine.gc(before)
    assert machine.addresses() == ["10.11.0.2"]
    machine.gc()
    assert machine.addresses() == []


def test_networks_of_pods_that_were_here_are_collected(machine: Machine) -> None:
    """Their plugins may keep what no file of ours tells of any more."""
    machine.foreign("keeping", """[ $CNI_COMMAND != ADD ] || echo '{"cniVersion": "1.1.0"}'""")
    machine.define("apps/kept", {"cniVersion": "1.1.0", "name": "kept", "plugins": [{"type": "keeping"}]})
    pod = machine.pod(networks="kept")
    sandbox = machine.sandbox(pod)
    machine.add(sandbox)
    machine.delete(sandbox)
    machine.gc()
    machine.plugin.forget_pod(pod.ref, pod.uid)
    machine.gc()
    assert machine.calls("keeping") == ["ADD net1", "DEL net1", "GC "]


def test_errors_come_together(machine: Machine, two: tuple[Sandbox, Sandbox], names: Names) -> None:
    alive, dead = two
    machine.foreign("stubborn", """[ $CNI_COMMAND = ADD ] && echo '{"cniVersion": "1.0.0"}'""")
    machine.define("apps/bad", {"cniVersion": "1.0.0", "name": "bad", "plugins": [{"type": "stubborn"}]})
    third = machine.sandbox(machine.pod("c", "bad"))
    machine.add(third)
    with pytest.raises(CniError, match='network "apps/bad", interface "net1": plugin "stubborn"'):
        machine.gc(alive)
    assert names(dead.netns) == names(third.netns) == {"lo"}
    assert machine.scratch(third).exists()
    assert is_whole(machine, alive)


def test_the_main_network_is_not_to_be_found(machine: Machine, two: tuple[Sandbox, Sandbox], names: Names) -> None:
    alive, dead = two
    machine.kubernetes.mood = "unreachable"
    with pytest.raises(CniError, match="connection refused"):
        machine.gc(alive)
    assert names(dead.netns) == {"lo"}
    machine.kubernetes.mood = "answering"
    assert is_whole(machine, alive)


def test_gc_without_its_list(machine: Machine, two: tuple[Sandbox, Sandbox]) -> None:
    invocation = machine.invocation("GC", two[0])
    with pytest.raises(InvalidNetConf, match=r"cni\.dev/valid-attachments"):
        machine.plugin.gc(machine.conf, invocation)
    assert len(machine.addresses()) == 2
