"""Devices, chains from directories, the auxiliary chain, and many pods at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from homeport.cni import netconfs
from homeport.cni.invocations import Attachment
from homeport.model.errors import IncompatibleVersion
from homeport.plugins import passthru
from homeport.wiring import prepare_for_threads

if TYPE_CHECKING:
    from tests.netns.conftest import Node
    from tests.netns.metaplugin.conftest import Machine

pytestmark = pytest.mark.root

Names = Callable[[str], set[str]]

SAYING = """[ $CNI_COMMAND != ADD ] || echo '{"cniVersion": "1.1.0", "interfaces": [{"name": "'$CNI_IFNAME'",
    "sandbox": "'$CNI_NETNS'"}]}'; echo "$CONF" > HOME/stdin-$CNI_COMMAND-$CNI_IFNAME"""


@pytest.fixture
def devices(machine: Machine) -> Machine:
    """A node whose kubelet gives out two devices, described by their device plugin."""
    machine.foreign("vf", SAYING.replace("HOME", str(machine.home)))
    plugin = {"type": "vf", "capabilities": {"CNIDeviceInfoFile": True, "deviceID": True}}
    conf = {"cniVersion": "1.1.0", "plugins": [plugin, {"type": "vf"}]}
    machine.define("apps/vf", conf, {"k8s.v1.cni.cncf.io/resourceName": "intel.com/vf"})
    for device in ("0000:3b:02.4", "0000:3b:02.5"):
        path = described(machine, "dp") / f"intel.com-vf-{device}-device.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"type": "pci", "version": "1.1.0", "pci": {"pci-address": device}}))
    return machine


def described(machine: Machine, kind: str) -> Path:
    return machine.home / "var/run/k8s.cni.cncf.io/devinfo" / kind


def stdin(machine: Machine, verb: str, ifname: str) -> Any:
    return json.loads((machine.home / f"stdin-{verb}-{ifname}").read_text())


def test_each_network_gets_a_device_of_its_resource(devices: Machine) -> None:
    pod = devices.pod(networks="vf,vf,vf")
    devices.devices.given[pod.uid] = {"intel.com/vf": ["0000:3b:02.4", "0000:3b:02.5"]}
    sandbox = devices.sandbox(pod)
    devices.add(sandbox)
    for ifname, device in (("net1", "0000:3b:02.4"), ("net2", "0000:3b:02.5")):
        conf = stdin(devices, "ADD", ifname)
        assert (conf["deviceID"], conf["pciBusID"]) == (device, device)
    assert "deviceID" not in stdin(devices, "ADD", "net3")
    assert [(s["interface"], s.get("device-info", {}).get("pci")) for s in devices.status_of(pod)] == [
        ("eth0", None),
        ("net1", {"pci-address": "0000:3b:02.4"}),
        ("net2", {"pci-address": "0000:3b:02.5"}),
        ("net3", None),
    ]
    infos = {f"apps-vf-{sandbox.container_id}_net{n}" for n in (1, 2)}
    assert {path.name for path in described(devices, "cni").iterdir()} == infos
    devices.delete(sandbox)
    assert devices.is_clean()
    assert stdin(devices, "DEL", "net1")["deviceID"] == "0000:3b:02.4"


def test_a_failing_add_takes_the_descriptions_back(devices: Machine) -> None:
    devices.define("apps/bad", devices.macvlan("bad", "10.93.97.5/20", master="nothing"))
    pod = devices.pod(networks="vf,bad")
    devices.devices.given[pod.uid] = {"intel.com/vf": ["0000:3b:02.4"]}
    with pytest.raises(Exception, match='network "apps/bad"'):
        devices.add(devices.sandbox(pod))
    assert devices.is_clean()


def test_the_kubelet_is_asked_only_for_resources(devices: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise AssertionError("nobody wants a device")

    monkeypatch.setattr(devices.devices, "of_pod", away)
    devices.add(devices.sandbox(devices.pod()))


def test_the_auxiliary_chain_comes_last(machine: Machine, names: Names) -> None:
    machine.foreign("watching", '[ $CNI_COMMAND != ADD ] || echo \'{"cniVersion": "1.0.0"}\'')
    path = machine.conf_dir / "10-main.conflist"
    path.write_text(json.dumps(machine.bridge()))
    chain = machine.conf_dir / "audit"
    chain.mkdir()
    (chain / "10-watching.conf").write_text('{"type": "watching"}')
    pod = machine.pod()
    sandbox = machine.sandbox(pod)
    keys = {"clusterNetwork": str(path), "auxiliaryCNIChainName": "audit"}
    machine.add(sandbox, **keys)
    assert machine.calls("watching") == ["ADD net1"]
    assert [status["name"] for status in machine.status_of(pod)] == ["main"]
    (chain / "10-watching.conf").unlink()
    machine.delete(sandbox, **keys)
    assert machine.calls("watching") == ["ADD net1", "DEL net1"]
    assert machine.is_clean()


def test_a_chain_of_files_is_taken_down_with_all_its_keys(machine: Machine) -> None:
    machine.foreign(
        "chained", 'echo "$CONF" > ' + f'{machine.home}/$CNI_COMMAND.json; echo "$CONF" | sed "s/.*/' + '{}/"'
    )
    path = machine.conf_dir / "10-main.conflist"
    path.write_text(json.dumps(machine.bridge()))
    (machine.conf_dir / "main").mkdir()
    (machine.conf_dir / "main" / "chained.conf").write_text('{"type": "chained", "kubernetes": {"kubeconfig": "/x"}}')
    sandbox = machine.sandbox(machine.pod())
    machine.add(sandbox, clusterNetwork=str(path))
    (machine.conf_dir / "main" / "chained.conf").unlink()
    machine.delete(sandbox, clusterNetwork=str(path))
    assert json.loads((machine.home / "DEL.json").read_text())["kubernetes"] == {"kubeconfig": "/x"}
    assert machine.is_clean()


@pytest.mark.parametrize("version", ["0.3.0", "0.4.0", "1.1.0"])
def test_passthru_does_nothing(machine: Machine, names: Names, version: str) -> None:
    conf = {"cniVersion": version, "name": "nothing", "type": "passthru"}
    machine.define("apps/nothing", conf)
    sandbox = machine.sandbox(machine.pod(networks="nothing"))
    machine.add(sandbox)
    (name,) = [name for name in machine.results() if name.startswith("nothing-")]
    result = json.loads((machine.cni_dir / "results" / name).read_text())["result"]
    assert {key: value for key, value in result.items() if value} == {"cniVersion": version}
    machine.check(sandbox)
    machine.delete(sandbox)
    assert names(sandbox.netns) == {"lo"}
    assert machine.is_clean()


def test_passthru_cannot_say_nothing_before_0_3(machine: Machine) -> None:
    machine.define("apps/nothing", {"cniVersion": "0.2.0", "name": "nothing", "type": "passthru"})
    with pytest.raises(IncompatibleVersion, match="found no address"):
        machine.add(machine.sandbox(machine.pod(networks="nothing")))
    assert machine.is_clean()


def test_passthru_hands_on_what_came_before(machine: Machine) -> None:
    given = {"cniVersion": "1.1.0", "ips": [{"address": "10.1.2.3/24"}]}
    conf = netconfs.parse({"cniVersion": "1.1.0", "name": "n", "type": "passthru", "prevResult": given})
    nowhere = Attachment(container_id="c", ifname="eth0")
    assert [str(ip.address) for ip in passthru.add(conf, nowhere, machine.shells).ips] == ["10.1.2.3/24"]


def test_many_pods_at_once(machine: Machine, names: Names, node: Node) -> None:
    prepare_for_threads("homeport.metaplugin.plugin")
    machine.define("apps/lan", machine.sticky("lan"))
    sandboxes = [machine.sandbox(machine.replica(f"web-{n}", "lan")) for n in range(9)]
    with ThreadPoolExecutor(9) as workers:
        results = list(workers.map(machine.add, sandboxes))
        assert len({str(result.ips[0].address) for result in results}) == 9
        assert [machine.status_of(pod)[1]["ips"] for pod in machine.kubernetes.pods.values()] == [
            [f"10.93.97.{12 + n}"] for n in range(9)
        ]
        list(workers.map(machine.check, sandboxes))
        list(workers.map(machine.delete, sandboxes))
    assert all(names(sandbox.netns) == {"lo"} for sandbox in sandboxes)
    assert names(node.netns) == {"lo", "eth1", "br-main"}
    assert machine.results() == machine.addresses() == []
    assert {a.phase.value for a in machine.shells.open_allocations(None).all()} == {"Retained"}
