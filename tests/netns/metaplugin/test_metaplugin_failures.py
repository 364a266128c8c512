"""ADDs that fail half-way: nothing of them stays, and the error says which network it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from homeport.model.errors import (
    CniError,
    InvalidNetConf,
    IOFailure,
    NoSuchObject,
    PluginFailed,
    PluginNotFound,
    TryAgainLater,
)

if TYPE_CHECKING:
    from tests.netns.metaplugin.conftest import Machine

pytestmark = pytest.mark.root

Names = Callable[[str], set[str]]

GOES_AWAY = "[ $CNI_COMMAND != ADD ] || "
FAILURES = {
    "hangs": (f"{GOES_AWAY}sleep 30", PluginFailed, 106, "no answer within 1 s"),
    "prints garbage": (f"{GOES_AWAY}echo rubbish", PluginFailed, 106, "ADD succeeded with a bad result"),
    "dies by a signal": (f"{GOES_AWAY}kill -9 $$", PluginFailed, 106, "was killed by SIGKILL"),
    "fails in silence": (f"{GOES_AWAY}exit 3", PluginFailed, 106, "exit code 3"),
    "says later": (
        """[ $CNI_COMMAND != ADD ] || { echo '{"code": 11, "msg": "busy"}'; exit 1; }""",
        TryAgainLater,
        11,
        'plugin "stranger": busy',
    ),
    "has a code of its own": (
        """[ $CNI_COMMAND != ADD ] || { echo '{"code": 142, "msg": "no"}'; exit 1; }""",
        CniError,
        142,
        'plugin "stranger": no',
    ),
    "speaks another version": (
        """echo '{"code": 1, "msg": "incompatible CNI versions"}'; exit 1""",
        CniError,
        1,
        "incompatible CNI versions",
    ),
}


@pytest.mark.parametrize("way", FAILURES)
@pytest.mark.parametrize("place", ["first", "chained"])
def test_the_last_network_fails(build: Callable[..., Machine], names: Names, way: str, place: str) -> None:
    machine = build(timeout_seconds=1)
    body, kind, code, text = FAILURES[way]
    machine.foreign("stranger", body)
    machine.define("apps/lan", machine.sticky("lan"))
    bad = machine.macvlan("bad", "10.93.97.200/20", {"type": "stranger"})
    if place == "first":
        bad["plugins"] = [{"type": "stranger"}]
    machine.define("apps/bad", bad)
    pod = machine.pod(networks="lan,bad@late")
    sandbox = machine.sandbox(pod)
    with pytest.raises(kind) as caught:
        machine.add(sandbox)
    assert caught.value.code == code
    assert caught.value.msg.startswith('pod apps/web-0, network "apps/bad", interface "late": ')
    assert text in caught.value.msg
    assert names(sandbox.netns) == {"lo"}
    assert machine.is_clean()
    assert machine.status_of(pod) is None
    assert machine.plugin.recall(pod.ref) is None
    assert [event.reason for event in machine.kubernetes.events] == []
    machine.delete(sandbox)
    if way == "speaks another version":
        assert machine.calls("stranger") == ["ADD late", "DEL late"]  # none to undo; the runtime's own failed
    else:
        assert machine.calls("stranger") == ["ADD late", "DEL late", "DEL late"]


def test_a_replica_keeps_its_address_when_another_network_fails(machine: Machine) -> None:
    machine.define("apps/lan", machine.sticky("lan"))
    machine.define("apps/bad", machine.macvlan("bad", "10.93.97.200/20", master="nothing"))
    sandbox = machine.sandbox(machine.replica("web-0", "lan,bad"))
    with pytest.raises(CniError, match='network "apps/bad"'):
        machine.add(sandbox)
    (kept,) = machine.shells.open_allocations(None).all()
    assert (str(kept.address), kept.phase.value, kept.holder) == ("10.93.97.12", "Retained", None)


def test_a_network_that_is_not_there_is_told_to_the_pod(machine: Machine, names: Names) -> None:
    sandbox = machine.sandbox(machine.pod(networks="lan"))
    with pytest.raises(NoSuchObject, match='find network "apps/lan": no such NetworkAttachmentDefinition'):
        machine.add(sandbox)
    (event,) = machine.kubernetes.events
    assert (event.reason, event.warning) == ("NoNetworkFound", True)
    assert event.message == "cannot find a network-attachment-definition apps/lan"
    assert names(sandbox.netns) == {"lo"}
    assert machine.is_clean()


def test_a_plugin_that_is_nowhere(machine: Machine, names: Names) -> None:
    machine.define("apps/lan", machine.macvlan("lan", "10.93.97.5/20", {"type": "nowhere"}))
    sandbox = machine.sandbox(machine.pod(networks="lan"))
    with pytest.raises(PluginNotFound, match=f"no executable of this name in {machine.bin_dir}:/usr/lib/cni"):
        machine.add(sandbox)
    assert names(sandbox.netns) == {"lo"}
    assert machine.is_clean()


@pytest.mark.parametrize(
    ("networks", "text"),
    [
        ("lan@eth0", 'found interface "eth0" taken by network'),
        ("lan,@x", "annotation k8s.v1.cni.cncf.io/networks"),
        ([{"name": "lan", "ips": ["10.1.2.3/24"]}], 'found a request for "ips"'),
        ([{"name": "broken"}], 'network "apps/broken": spec.config: decode network configuration: not JSON'),
        ([{"name": "empty"}], 'network "apps/empty": spec.config: network "empty": found no plugin'),
        ([{"name": "typeless"}], 'network "apps/typeless": spec.config: key "plugins[0].type": missing'),
        ([{"name": "unwritten"}], 'network "apps/unwritten": find network "unwritten": found no such name'),
    ],
)
def test_a_wish_that_cannot_be_granted(machine: Machine, names: Names, networks: object, text: str) -> None:
    machine.define("apps/lan", {"cniVersion": "1.1.0", "plugins": [{"type": "macvlan", "master": "eth1"}]})
    machine.define("apps/broken", "{")
    machine.define("apps/empty", "{}")
    machine.define("apps/typeless", {"plugins": [{}]})
    machine.define("apps/unwritten", "")
    assert isinstance(networks, str | list)
    sandbox = machine.sandbox(machine.pod(networks=networks))
    with pytest.raises(CniError) as caught:
        machine.add(sandbox)
    assert text in caught.value.msg
    assert names(sandbox.netns) == {"lo"}
    assert machine.is_clean()


def test_isolated_namespaces(machine: Machine, names: Names) -> None:
    machine.define("other/lan", machine.macvlan("lan", "10.93.97.5/20"))
    sandbox = machine.sandbox(machine.pod(networks="other/lan"))
    with pytest.raises(InvalidNetConf, match='found namespace "other" with namespaceIsolation'):
        machine.add(sandbox, namespaceIsolation=True)
    machine.add(sandbox, namespaceIsolation=True, globalNamespaces="default, other")
    assert names(sandbox.netns) == {"lo", "eth0", "net1"}


def test_an_api_server_that_refuses_the_status(machine: Machine, names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> bool:
        raise IOFailure("write annotations of pod apps/web-0: forbidden")

    machine.define("apps/lan", machine.sticky("lan"))
    sandbox = machine.sandbox(machine.pod(networks="lan"))
    monkeypatch.setattr(machine.kubernetes, "write_annotations", forbidden)
    with pytest.raises(IOFailure, match="forbidden"):
        machine.add(sandbox)
    assert names(sandbox.netns) == {"lo"}
    assert machine.is_clean()


def test_what_cannot_be_undone_stays_written_down(machine: Machine, names: Names) -> None:
    """The chained plugin fails, and so does its DEL until somebody repairs it."""
    machine.foreign("stranger", f"[ -e {machine.home}/repaired ]")
    machine.define("apps/bad", machine.macvlan("bad", "10.93.97.200/20", {"type": "stranger"}))
    sandbox = machine.sandbox(machine.pod(networks="bad"))
    with pytest.raises(PluginFailed) as caught:
        machine.add(sandbox)
    assert 'undo "stranger"' in caught.value.details
    assert names(sandbox.netns) == {"lo"}
    assert machine.scratch(sandbox).exists()
    with pytest.raises(PluginFailed, match='network "apps/bad", interface "net1": plugin "stranger"'):
        machine.delete(sandbox)
    assert machine.scratch(sandbox).exists()
    (machine.home / "repaired").touch()
    machine.delete(sandbox)
    assert machine.calls("stranger") == ["ADD net1", "DEL net1", "DEL net1", "DEL net1"]
    assert machine.is_clean()


def test_a_result_that_cannot_be_kept(machine: Machine, names: Names) -> None:
    machine.cni_dir.mkdir()
    (machine.cni_dir / "results").write_text("a file where the directory should be")
    sandbox = machine.sandbox(machine.pod())
    with pytest.raises(IOFailure, match="save result"):
        machine.add(sandbox)
    assert names(sandbox.netns) == {"lo"}
    (machine.cni_dir / "results").unlink()
    assert machine.is_clean()


def test_a_scratch_file_that_cannot_be_written(machine: Machine, names: Names) -> None:
    machine.cni_dir.write_text("a file where the directory should be")
    sandbox = machine.sandbox(machine.pod())
    with pytest.raises(IOFailure, match=f"write {machine.scratch(sandbox)}"):
        machine.add(sandbox)
    assert names(sandbox.netns) == {"lo"}
    assert machine.addresses() == []


def test_a_record_that_cannot_be_kept(machine: Machine, names: Names) -> None:
    (machine.home / "state").write_text("a file where the directory should be")
    sandbox = machine.sandbox(machine.pod())
    with pytest.raises(IOFailure, match=r"write .*/state/pods"):
        machine.add(sandbox)
    assert names(sandbox.netns) == {"lo"}
    assert machine.is_clean()
