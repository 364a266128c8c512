"""DEL of a pod: from whatever is known of it, in what order, at what price."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from homeport.metaplugin.plugin import Deferred
from homeport.model.errors import CniError, PluginFailed, SeveralErrors
from homeport.wiring import build_delegates

if TYPE_CHECKING:
    from tests.netns.conftest import Node
    from tests.netns.metaplugin.conftest import Machine, Sandbox
    from tests.stand_ins_kubernetes import Mood

    from homeport.ports import Host

pytestmark = pytest.mark.root

Names = Callable[[str], set[str]]

PASSES_ON = """[ $CNI_COMMAND != ADD ] || echo "$CONF" | python3 -IS -c '
import json, sys
conf = json.load(sys.stdin)
print(json.dumps(conf.get("prevResult") or {"cniVersion": conf["cniVersion"]}))'
"""


class Watching:
    """The host of a test, which notes the deletions of links that are there."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.deleted: list[list[str]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.host, name)

    def delete_links(self, names: list[str], netns: str | None = None) -> None:
        there = [name for name in names if self.host.link(name, netns) is not None]
        if there:
            self.deleted.append(there)
        self.host.delete_links(names, netns)


def watch(machine: Machine, node: Node) -> Watching:
    """Lets every plugin of ours act through a host that is watched."""
    watching = Watching(machine.shells.host)
    delegates = build_delegates(lambda: shells, netns=node.netns, environ={})
    shells = msgspec.structs.replace(machine.shells, host=watching, delegates=delegates)
    machine.restart(shells)
    return watching


def as_multus_writes(machine: Machine, *networks: tuple[str, dict[str, Any], str]) -> str:
    """The scratch file of Multus 4.2 for (name, configuration list, requested interface)."""
    entries = [
        {
            "Conf": {"cniVersion": "", "name": "", "type": "", "ipam": {}, "dns": {}},
            "ConfList": {**config, "plugins": [{"type": p["type"]} for p in config["plugins"]]},
            "CNINetworkConfigList": None,
            "Name": name,
            "ifnameRequest": ifname,
            "IsFilterV4Gateway": False,
            "IsFilterV6Gateway": False,
            "Bytes": base64.b64encode(json.dumps(config).encode()).decode(),
        }
        for name, config, ifname in networks
    ]
    return json.dumps(entries)


def test_the_links_of_our_plugins_go_together(machine: Machine, node: Node, names: Names) -> None:
    machine.define("apps/lan", machine.sticky("lan"))
    machine.define("apps/two", machine.macvlan("two", "10.93.97.77/20", {"type": "sbr"}))
    watching = watch(machine, node)
    sandbox = machine.sandbox(machine.pod(networks="lan,two"))
    machine.add(sandbox)
    machine.delete(sandbox)
    assert watching.deleted == [["net2", "net1", "eth0"]]
    assert names(sandbox.netns) == {"lo"}
    assert machine.is_clean()


def test_a_link_that_is_not_what_the_plugin_made_stays(machine: Machine, node: Node, names: Names) -> None:
    machine.define("apps/lan", machine.sticky("lan"))
    sandbox = machine.sandbox(machine.pod(networks="lan"))
    machine.add(sandbox)
    host = machine.shells.host
    host.delete_links(["net1"], sandbox.netns)
    host.create_veth("net1", netns=sandbox.netns, peer="there", peer_netns=sandbox.netns)
    watching = watch(machine, node)
    machine.delete(sandbox)
    assert watching.deleted == [["eth0"]]
    assert names(sandbox.netns) == {"lo", "net1", "there"}
    assert machine.is_clean()


def test_foreign_plugins_keep_their_place_and_their_links(machine: Machine, node: Node) -> None:
    for name in ("one", "two", "three"):
        machine.foreign(name, PASSES_ON + f'echo "$CNI_COMMAND {name}" >> {machine.home}/order')
    machine.define("apps/a", machine.macvlan("a", "10.93.97.5/20", {"type": "one"}))
    machine.define("apps/b", {"cniVersion": "1.1.0", "name": "b", "plugins": [{"type": "two"}]})
    machine.define("apps/c", machine.macvlan("c", "10.93.97.6/20", {"type": "three"}))
    watching = watch(machine, node)
    sandbox = machine.sandbox(machine.pod(networks="a,b,c"))
    machine.add(sandbox)
    machine.delete(sandbox)
    order = (machine.home / "order").read_text().splitlines()
    assert order == ["ADD one", "ADD two", "ADD three", "DEL three", "DEL two", "DEL one"]
    assert watching.deleted == [["net3"], ["net1", "eth0"]]


def test_the_address_is_given_back_after_the_link_is_gone(machine: Machine, node: Node, names: Names) -> None:
    """A stranger's IPAM plugin that looks whether the interface is still there when it gets its DEL."""
    machine.foreign(
        "looking",
        """[ $CNI_COMMAND = ADD ] && echo '{"cniVersion": "1.0.0", "ips": [{"address": "10.93.97.9/20"}]}'
        nsenter --net=$CNI_NETNS ip link show $CNI_IFNAME >/dev/null 2>&1 && exit $([ $CNI_COMMAND = ADD ]; echo $?)
        exit 0""",
    )
    lan = machine.macvlan("lan", "10.93.97.9/20")
    lan["plugins"][0]["ipam"] = {"type": "looking"}
    machine.define("apps/lan", lan)
    sandbox = machine.sandbox(machine.pod(networks="lan"))
    machine.add(sandbox)
    machine.delete(sandbox)
    assert machine.calls("looking") == ["ADD net1", "DEL net1"]


def test_every_network_gets_its_del(machine: Machine, names: Names) -> None:
    """All errors together, each with its network; what could be done is done, and the next DEL does the rest."""
    machine.foreign("stubborn", PASSES_ON + f"[ $CNI_COMMAND != DEL ] || [ -e {machine.home}/repaired ]")
    machine.define("apps/a", machine.macvlan("a", "10.93.97.5/20", {"type": "stubborn"}))
    machine.define("apps/b", machine.macvlan("b", "10.93.97.6/20", {"type": "stubborn"}))
    sandbox = machine.sandbox(machine.pod(networks="a,b"))
    machine.add(sandbox)
    with pytest.raises(SeveralErrors) as caught:
        machine.delete(sandbox)
    assert caught.value.code == PluginFailed.code
    assert 'network "apps/b", interface "net2"' in caught.value.msg
    assert 'network "apps/a", interface "net1"' in caught.value.msg
    assert names(sandbox.netns) == {"lo"}
    assert machine.addresses() == []
    assert machine.scratch(sandbox).exists()
    (machine.home / "repaired").touch()
    machine.delete(sandbox)
    assert machine.is_clean()


def test_del_does_not_follow_what_was_written_since(machine: Machine, names: Names) -> None:
    machine.define("apps/lan", machine.sticky("lan"))
    pod = machine.pod(networks="lan")
    sandbox = machine.sandbox(pod)
    machine.add(sandbox)
    machine.define("apps/lan", machine.macvlan("elsewhere", "10.93.97.5/20", {"type": "nowhere"}))
    machine.kubernetes.delete_pod(pod.ref)
    machine.delete(sandbox)
    assert machine.is_clean()


# --- pods that Multus added -----------------------------------------------------------------------------------------


@pytest.fixture
def taken_over(machine: Machine) -> Sandbox:
    """A pod added by us, about which only what Multus would have written is left."""
    lan = machine.sticky("lan")
    machine.define("apps/lan", lan)
    sandbox = machine.sandbox(machine.pod(networks="lan@own"))
    machine.add(sandbox)
    networks = (("kube-system/main", machine.bridge(), ""), ("apps/lan", lan, "own"))
    machine.scratch(sandbox).write_text(as_multus_writes(machine, *networks))
    machine.kubernetes.mood = "unreachable"
    machine.plugin.forget_pod(next(iter(machine.kubernetes.pods)), sandbox.args["K8S_POD_UID"])
    return sandbox


def test_a_pod_that_multus_added(machine: Machine, taken_over: Sandbox, names: Names) -> None:
    machine.check(taken_over)
    machine.delete(taken_over)
    assert names(taken_over.netns) == {"lo"}
    assert machine.is_clean()


# --- without a scratch file, or with one that cannot be read ---------------------------------------------------------


@pytest.mark.parametrize("text", ["", "[{", "[]", "{}", '[{"Name": 7}]', '[{"Bytes": "!"}]', "\0" * 40])
@pytest.mark.parametrize("knows", ["record", "api server", "results"])
def test_a_scratch_file_that_cannot_be_read(machine: Machine, names: Names, text: str, knows: str) -> None:
    machine.define("apps/lan", machine.sticky("lan"))
    pod = machine.pod(networks="lan")
    sandbox = machine.sandbox(pod)
    machine.add(sandbox)
    machine.scratch(sandbox).write_text(text)
    if knows != "record":
        machine.plugin.forget_pod(pod.ref, pod.uid)
    if knows == "results":
        machine.kubernetes.delete_pod(pod.ref)
    else:
        for name in machine.results():
            (machine.cni_dir / "results" / name).unlink()
    machine.delete(sandbox)
    assert names(sandbox.netns) == {"lo"}
    assert machine.results() == machine.addresses() == machine.sticky_addresses() == []
    assert not machine.scratch(sandbox).exists()
    assert (machine.cni_dir / f".unreadable-{sandbox.container_id}").read_text() == text
    machine.delete(sandbox)


def test_a_lost_scratch_file_and_a_pod_that_is_gone(machine: Machine, names: Names) -> None:
    machine.define("apps/lan", machine.sticky("lan"))
    pod = machine.pod(networks="lan")
    sandbox, other = machine.sandbox(pod), machine.sandbox(machine.pod("other", "lan"))
    machine.add(sandbox)
    machine.add(other)
    machine.scratch(sandbox).unlink()
    machine.kubernetes.delete_pod(pod.ref)
    machine.plugin.forget_pod(pod.ref, pod.uid)
    machine.delete(sandbox)
    assert names(sandbox.netns) == {"lo"}
    machine.check(other)
    assert len(machine.addresses()) == len(machine.sticky_addresses()) == 1


def test_a_lost_scratch_file_and_a_pod_that_was_replaced(machine: Machine, names: Names) -> None:
    """The new pod's networks are not the old container's; what the old one's results tell of goes."""
    sandbox = machine.sandbox(machine.pod())
    machine.add(sandbox)
    machine.scratch(sandbox).unlink()
    machine.plugin.forget_pod(next(iter(machine.kubernetes.pods)), sandbox.args["K8S_POD_UID"])
    machine.define("apps/lan", machine.sticky("lan"))
    machine.pod(networks="lan")
    machine.delete(sandbox)
    assert names(sandbox.netns) == {"lo"}
    assert machine.is_clean()


@pytest.mark.parametrize("mood", ["unreachable", "refusing"])
@pytest.mark.parametrize("scratch", ["lost", "unreadable"])
def test_nothing_is_known_and_nobody_to_ask(machine: Machine, names: Names, scratch: str, mood: Mood) -> None:
    """A refusal, as an API server gives one that has not read its roles yet, proves nothing either."""
    pod = machine.pod()
    sandbox = machine.sandbox(pod)
    machine.add(sandbox)
    machine.plugin.forget_pod(pod.ref, pod.uid)
    if scratch == "lost":
        machine.scratch(sandbox).unlink()
    else:
        machine.scratch(sandbox).write_text("[{")
    machine.kubernetes.mood = mood
    with pytest.raises(Deferred) as caught:
        machine.delete(sandbox)
    assert caught.value.code == 11
    machine.kubernetes.mood = "answering"
    machine.delete(sandbox)
    assert names(sandbox.netns) == {"lo"}
    assert machine.is_clean()


def test_networks_that_cannot_be_told_any_more(machine: Machine, names: Names) -> None:
    machine.define("apps/lan", machine.sticky("lan"))
    pod = machine.pod(networks="lan")
    sandbox = machine.sandbox(pod)
    machine.add(sandbox)
    machine.scratch(sandbox).write_text("[{")
    machine.plugin.forget_pod(pod.ref, pod.uid)
    del machine.kubernetes.definitions["apps", "lan"]
    machine.delete(sandbox)
    assert names(sandbox.netns) == {"lo"}
    assert machine.is_clean()


def test_a_scratch_file_that_is_a_directory(machine: Machine, names: Names) -> None:
    sandbox = machine.sandbox(machine.pod())
    machine.add(sandbox)
    machine.scratch(sandbox).unlink()
    machine.scratch(sandbox).mkdir()
    machine.delete(sandbox)
    assert names(sandbox.netns) == {"lo"}
    assert machine.is_clean()


def test_a_configuration_that_cannot_be_right(machine: Machine) -> None:
    sandbox = machine.sandbox(machine.pod())
    for verb in (machine.add, machine.delete, machine.check):
        with pytest.raises(CniError, match='key "namespaceIsolation": found 7'):
            verb(sandbox, namespaceIsolation=7)
