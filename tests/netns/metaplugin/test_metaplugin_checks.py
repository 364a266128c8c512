"""CHECK and STATUS, and one network more for a container that runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from homeport.model.errors import CniError, Drift, IncompatibleVersion, LinkExists, PluginNotAvailable
from homeport.model.names import PodRef

if TYPE_CHECKING:
    from tests.netns.metaplugin.conftest import Machine, Sandbox

pytestmark = pytest.mark.root

Names = Callable[[str], set[str]]
Ipv4 = Callable[[str, str], list[str]]


@pytest.fixture
def sandbox(machine: Machine) -> Sandbox:
    machine.define("apps/lan", machine.sticky("lan"))
    made = machine.sandbox(machine.pod(networks="lan"))
    machine.add(made)
    return made


# --- CHECK -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ifname", "network"), [("eth0", "kube-system/main"), ("net1", "apps/lan")])
def test_check_covers_every_network(machine: Machine, sandbox: Sandbox, ifname: str, network: str) -> None:
    machine.check(sandbox)
    machine.shells.host.set_link(ifname, sandbox.netns, up=False)
    for address in machine.shells.host.addresses(ifname, sandbox.netns):
        machine.shells.host.delete_address(ifname, address.address, sandbox.netns)
    with pytest.raises(Drift, match=f'network "{network}", interface "{ifname}"'):
        machine.check(sandbox)


def test_check_of_a_lost_result(machine: Machine, sandbox: Sandbox) -> None:
    for name in machine.results():
        (machine.cni_dir / "results" / name).unlink()
    with pytest.raises(Drift, match="found no result of an ADD"):
        machine.check(sandbox)


def test_check_of_what_was_never_added(machine: Machine) -> None:
    with pytest.raises(Drift, match="found no record of its ADD"):
        machine.check(machine.sandbox(machine.pod()))


def test_check_passes_over_networks_that_have_none(machine: Machine) -> None:
    machine.define("apps/old", {**machine.macvlan("old", "10.93.97.5/20"), "cniVersion": "0.3.1"})
    made = machine.sandbox(machine.pod(networks="old"))
    machine.add(made)
    machine.check(made)
    with pytest.raises(IncompatibleVersion):
        machine.check(made, cniVersion="0.3.1")


def test_check_asks_no_api_server(machine: Machine, sandbox: Sandbox) -> None:
    machine.kubernetes.asked.clear()
    machine.kubernetes.mood = "unreachable"
    machine.check(sandbox)
    assert machine.kubernetes.asked == []


# --- STATUS ------------------------------------------------------------------------------------------------------


def test_status(machine: Machine) -> None:
    machine.status()
    machine.kubernetes.mood = "unreachable"
    machine.status()


def test_status_waits_for_nobody(machine: Machine) -> None:
    indicator = machine.home / "ready"
    with pytest.raises(PluginNotAvailable, match=f"found no file {indicator}") as caught:
        machine.status(readinessindicatorfile=str(indicator))
    assert caught.value.code == 50
    indicator.touch()
    machine.status(readinessindicatorfile=str(indicator))


def test_status_without_a_default_network(machine: Machine) -> None:
    with pytest.raises(PluginNotAvailable, match='find the default network: find network "absent"'):
        machine.status(clusterNetwork="absent")
    with pytest.raises(PluginNotAvailable, match="no such file"):
        machine.status(clusterNetwork=str(machine.home / "absent.conf"))


def test_status_says_what_the_default_networks_plugins_say(machine: Machine) -> None:
    machine.foreign("sick", """echo '{"code": 51, "msg": "half the links are down"}'; exit 1""")
    conf = {"cniVersion": "1.1.0", "name": "main", "plugins": [{"type": "sick"}]}
    machine.define("kube-system/main", conf)
    with pytest.raises(CniError, match="half the links are down") as caught:
        machine.status()
    assert caught.value.code == 51
    machine.define("kube-system/main", {**conf, "cniVersion": "1.0.0"})
    machine.status()


# --- waiting for the default network ------------------------------------------------------------------------------


def test_an_add_waits_for_the_indicator_until_the_daemon_stops(machine: Machine) -> None:
    made = machine.sandbox(machine.pod())
    machine.plugin.close()
    with pytest.raises(CniError, match="the daemon is stopping") as caught:
        machine.add(made, readinessindicatorfile=str(machine.home / "ready"))
    assert caught.value.code == 11
    assert machine.kubernetes.asked == []
    (machine.home / "ready").touch()
    machine.add(made, readinessindicatorfile=str(machine.home / "ready"))


# --- hotplug -----------------------------------------------------------------------------------------------------


def test_one_network_more(machine: Machine, sandbox: Sandbox, names: Names, ipv4: Ipv4) -> None:
    conf = machine.macvlan("plugged", "10.93.97.50/20", capabilities={"ips": True})
    conf["plugins"][0]["ipam"] = {"type": "static"}
    sandbox.args = {k: v for k, v in sandbox.args.items() if k != "K8S_POD_UID"}
    call = machine.hotplug("ADD", sandbox, "hot0")
    attributes = {"ips": ["10.93.97.60/20"], "mac": "0a:58:0a:00:00:60", "cni-args": {"a": "b"}}
    before = machine.scratch(sandbox).read_bytes(), machine.status_of(machine.kubernetes.pods[PodRef("apps", "web-0")])
    result = machine.plugin.delegate_add(conf, call, attributes)
    assert (result.interfaces[0].name, result.interfaces[0].mac) == ("hot0", "0a:58:0a:00:00:60")
    assert ipv4(sandbox.netns, "hot0") == ["10.93.97.60/20"]
    with pytest.raises(LinkExists):
        machine.plugin.delegate_add(conf, call, attributes)
    machine.plugin.delegate_check(conf, machine.hotplug("CHECK", sandbox, "hot0"), attributes)
    machine.plugin.delegate_status(conf, machine.hotplug("STATUS", sandbox, "hot0"))
    for _ in range(2):
        machine.plugin.delegate_delete(conf, machine.hotplug("DEL", sandbox, "hot0"), attributes)
    assert names(sandbox.netns) == {"lo", "eth0", "net1"}
    after = machine.scratch(sandbox).read_bytes(), machine.status_of(machine.kubernetes.pods[PodRef("apps", "web-0")])
    assert before == after


def test_what_was_plugged_in_goes_with_the_pod(machine: Machine, sandbox: Sandbox, names: Names) -> None:
    machine.plugin.delegate_add(machine.sticky("plugged"), machine.hotplug("ADD", sandbox, "hot0"))
    machine.gc(sandbox)
    assert len(machine.sticky_addresses()) == 2
    machine.check(sandbox)
    machine.delete(sandbox)
    assert names(sandbox.netns) == {"lo"}
    assert machine.is_clean()


def test_a_plug_that_does_not_fit(machine: Machine, sandbox: Sandbox, names: Names) -> None:
    conf = machine.macvlan("plugged", "10.93.97.50/20", master="nothing")
    with pytest.raises(CniError, match='network "plugged", interface "hot0"'):
        machine.plugin.delegate_add(conf, machine.hotplug("ADD", sandbox, "hot0"))
    with pytest.raises(CniError, match=r'key "interfaceAttributes\.ips"'):
        machine.plugin.delegate_add(conf, machine.hotplug("ADD", sandbox, "hot0"), {"ips": "10.0.0.1"})
    with pytest.raises(CniError, match=r"interfaceAttributes\.mac"):
        machine.plugin.delegate_add(conf, machine.hotplug("ADD", sandbox, "hot0"), {"mac": "nonsense"})
    assert names(sandbox.netns) == {"lo", "eth0", "net1"}
