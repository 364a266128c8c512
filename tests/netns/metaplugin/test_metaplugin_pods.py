"""A pod's networks from annotation to kernel and back, seen with iproute2."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from homeport.model.errors import InvalidNetns, LinkExists, NoSuchObject
from homeport.model.names import PodRef

if TYPE_CHECKING:
    from tests.netns.conftest import IpJson
    from tests.netns.metaplugin.conftest import Machine

pytestmark = pytest.mark.root

Names = Callable[[str], set[str]]
Ipv4 = Callable[[str, str], list[str]]

# What a foreign plugin was called with, and a result that passes the one before it on.
NOTING = """
echo "$CONF" > {home}/stdin.json
env | sort > {home}/env
[ "$CNI_COMMAND" != ADD ] || echo "$CONF" | python3 -IS -c '
import json, sys
conf = json.load(sys.stdin)
print(json.dumps(conf.get("prevResult") or {{"cniVersion": conf["cniVersion"]}}))'
"""


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
        "Add eth0 [10.11.0.2/24] from kube-system/main, net1 [10.93.97.5/20] from apps/lan, "
        "second [10.11.0.3/24] from kube-system/main"
    ]
    assert machine.scratch(sandbox).stat().st_mode & 0o777 == 0o600
    machine.check(sandbox)
    machine.kubernetes.asked.clear()
    machine.delete(sandbox)
    assert names(sandbox.netns) == {"lo"}
    assert machine.is_clean()
    assert machine.kubernetes.asked == []


def test_a_second_del_is_success(machine: Machine) -> None:
    sandbox = machine.sandbox(machine.pod())
    machine.add(sandbox)
    machine.delete(sandbox)
    machine.delete(sandbox)
    machine.delete(machine.sandbox(machine.pod("never-added")))
    assert machine.is_clean()


@pytest.mark.parametrize("given", ["gone", "none"])
def test_del_without_its_namespace(machine: Machine, names: Names, given: str, node: Any) -> None:
    machine.define("apps/lan", machine.sticky("lan"))
    sandbox = machine.sandbox(machine.pod(networks="lan"))
    machine.add(sandbox)
    machine.shells.host.delete_namespace(sandbox.netns)
    machine.delete(sandbox, netns="same" if given == "gone" else None)
    assert machine.is_clean()
    assert names(node.netns) == {"lo", "eth1", "br-main"}


def test_annotations_choose_the_default_network(machine: Machine, ipv4: Ipv4) -> None:
    machine.define("kube-system/other", machine.bridge("other", "10.12.0.0/24"))
    annotations = {"v1.multus-cni.io/default-network": '[{"name": "other", "interface": "lan0"}]'}
    pod = machine.pod(annotations=annotations)
    sandbox = machine.sandbox(pod)
    machine.add(sandbox)
    assert ipv4(sandbox.netns, "lan0") == ["10.12.0.2/24"]
    (status,) = machine.status_of(pod)
    assert (status["name"], status["interface"], status["default"]) == ("kube-system/other", "lan0", True)
    machine.delete(sandbox)
    assert machine.is_clean()


def test_default_networks_are_for_pods_outside_the_system(machine: Machine, names: Names) -> None:
    machine.define("kube-system/extra", machine.macvlan("extra", "10.93.97.6/20"))
    inside = machine.sandbox(machine.pod())
    machine.add(inside, defaultNetworks=["extra"], systemNamespaces=["apps"])
    assert names(inside.netns) == {"lo", "eth0"}
    outside = machine.sandbox(machine.pod("other"))
    machine.add(outside, defaultNetworks=["extra"])
    assert names(outside.netns) == {"lo", "eth0", "net1"}
    machine.delete(outside)  # the runtime's configuration may have changed since
    machine.delete(inside)
    assert machine.is_clean()


def test_only_a_replica_has_an_ordinal(machine: Machine, ipv4: Ipv4) -> None:
    lan = machine.macvlan("lan3", "10.93.97.5/20", capabilities={"ips": True})
    lan["plugins"][0]["ipam"] = {"type": "static"}
    machine.define("apps/lan3", lan)
    networks = [{"name": "lan{ordinal}", "interface": "vlan{ordinal}", "ips": ["10.13.19.{ordinal+10}/24"]}]
    sandbox = machine.sandbox(machine.replica("web-3", networks))
    machine.add(sandbox)
    assert ipv4(sandbox.netns, "vlan3") == ["10.13.19.13/24"]
    with pytest.raises(Exception, match="only for replicas"):
        machine.add(machine.sandbox(machine.pod("plain", networks)))


def test_what_a_plugin_of_somebody_else_receives(machine: Machine) -> None:
    machine.foreign("noting", NOTING.format(home=machine.home))
    chained = {"type": "noting", "capabilities": {"mac": True}}
    machine.define("apps/lan", machine.macvlan("lan", "10.93.97.5/20", chained))
    networks = [{"name": "lan", "mac": "0a:58:0a:00:00:07", "cni-args": {"color": "red"}}]
    pod = machine.pod(networks=networks)
    sandbox = machine.sandbox(pod, TENANT="blue")
    machine.add(sandbox)
    env = dict(line.split("=", 1) for line in (machine.home / "env").read_text().splitlines())
    assert env["CNI_PATH"] == f"{machine.bin_dir}:/usr/lib/cni"
    assert env["CNI_ARGS"] == (
        f"IgnoreUnknown=true;K8S_POD_NAMESPACE=apps;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID="
        f"{sandbox.container_id};K8S_POD_UID={pod.uid};TENANT=blue;MAC=0a:58:0a:00:00:07"
    )
    stdin = json.loads((machine.home / "stdin.json").read_text())
    assert stdin["runtimeConfig"] == {"mac": "0a:58:0a:00:00:07"}
    assert stdin["args"] == {"cni": {"color": "red"}}
    machine.delete(sandbox)
    assert machine.calls("noting") == ["ADD net1", "DEL net1"]


def test_plugins_of_ours_and_others_in_one_chain(machine: Machine, names: Names, ip_json: IpJson) -> None:
    lan = machine.macvlan("lan", "10.93.97.5/20", {"type": "tuning", "mtu": 1400}, {"type": "sbr"})
    lan["cniVersion"] = "1.0.0"  # the latest that Debian's plugins speak
    lan["plugins"][0]["ipam"]["addresses"][0]["gateway"] = "10.93.96.1"
    machine.define("apps/lan", lan)
    sandbox = machine.sandbox(machine.pod(networks="lan"))
    machine.add(sandbox)
    (link,) = ip_json(sandbox.netns, "link", "show", "dev", "net1")
    assert link["mtu"] == 1400
    assert [rule["src"] for rule in ip_json(sandbox.netns, "rule", "show") if rule["src"] != "all"] == ["10.93.97.5"]
    machine.check(sandbox)
    machine.delete(sandbox)
    assert names(sandbox.netns) == {"lo"}
    assert len(ip_json(sandbox.netns, "rule", "show")) == 3
    assert machine.is_clean()


def test_a_type_is_executed_where_the_configuration_says_so(machine: Machine) -> None:
    marked = '{"cniVersion": "1.1.0", "ips": [{"address": "10.11.0.77/24"}]}'
    machine.foreign("host-local", f"[ $CNI_COMMAND != ADD ] || echo '{marked}'")
    ours, theirs = machine.sandbox(machine.pod()), machine.sandbox(machine.pod("other"))
    assert str(machine.add(ours).ips[0].address) == "10.11.0.2/24"
    assert str(machine.add(theirs, execTypes=["host-local"]).ips[0].address) == "10.11.0.77/24"
    machine.delete(theirs, execTypes=["host-local"])
    assert machine.calls("host-local") == ["ADD eth0", "DEL eth0"]


def test_a_node_without_kubernetes_attaches_its_delegates(machine: Machine, names: Names) -> None:
    machine.conf |= {"clusterNetwork": "", "delegates": [machine.bridge(), machine.macvlan("lan", "10.93.97.5/20")]}
    machine.plugin = type(machine.plugin)(
        machine.shells,
        kubernetes=None,
        devices=None,
        daemon_config={"cniDir": str(machine.cni_dir)},
        state_dir=machine.home / "state",
    )
    sandbox = machine.sandbox()
    machine.add(sandbox)
    assert names(sandbox.netns) == {"lo", "eth0", "net1"}
    machine.check(sandbox)
    machine.delete(sandbox)
    assert machine.is_clean()
    assert not (machine.home / "state").exists()


# --- whose pod it is ---------------------------------------------------------------------------------------------


def test_a_pod_that_is_gone_is_attached_to_nothing(machine: Machine, names: Names) -> None:
    pod = machine.pod()
    sandbox = machine.sandbox(pod)
    machine.kubernetes.delete_pod(pod.ref)
    result = machine.add(sandbox)
    assert [(i.name, i.sandbox) for i in result.interfaces] == [("eth0", sandbox.netns)]
    assert [(str(ip.address), str(ip.gateway)) for ip in result.ips] == [("0.0.0.0/0", "0.0.0.0")]
    assert names(sandbox.netns) == {"lo"}
    assert machine.is_clean()


def test_a_pod_that_was_replaced_is_refused(machine: Machine, names: Names) -> None:
    sandbox = machine.sandbox(machine.pod())
    machine.pod()
    with pytest.raises(NoSuchObject, match="the pod was replaced"):
        machine.add(sandbox)
    assert names(sandbox.netns) == {"lo"}
    assert machine.is_clean()


def test_a_static_pod_has_a_uid_of_its_own(machine: Machine, names: Names) -> None:
    pod = machine.pod(annotations={"kubernetes.io/config.source": "file"})
    sandbox = machine.sandbox(pod, K8S_POD_UID="the-kubelets-own")
    machine.add(sandbox)
    assert names(sandbox.netns) == {"lo", "eth0"}
    assert machine.status_of(pod)[0]["interface"] == "eth0"
    machine.plugin.forget_pod(pod.ref, pod.uid)
    assert machine.plugin.recall(pod.ref) is None


def test_a_runtime_that_gives_no_uid(machine: Machine, names: Names) -> None:
    pod = machine.pod()
    sandbox = machine.sandbox(pod, K8S_POD_UID="")
    machine.add(sandbox)
    assert machine.status_of(pod)[0]["interface"] == "eth0"
    machine.delete(sandbox)
    assert machine.is_clean()


def test_the_nodes_own_namespace_is_refused(machine: Machine, node: Any) -> None:
    sandbox = machine.sandbox(machine.pod())
    sandbox.netns = node.netns
    for verb in (machine.add, machine.delete):
        with pytest.raises(InvalidNetns, match="the node's own network namespace"):
            verb(sandbox)


# --- what is there already ---------------------------------------------------------------------------------------


def test_an_interface_of_the_asked_name_stays(machine: Machine, names: Names, ipv4: Ipv4) -> None:
    machine.define("apps/lan", machine.macvlan("lan", "10.93.97.5/20"))
    sandbox = machine.sandbox(machine.pod(networks="lan"))
    host = machine.shells.host
    host.create_veth("net1", netns=sandbox.netns, peer="there", peer_netns=sandbox.netns)
    with pytest.raises(LinkExists, match='pod apps/web-0, network "apps/lan", interface "net1": make interface'):
        machine.add(sandbox)
    assert names(sandbox.netns) == {"lo", "net1", "there"}
    assert machine.is_clean()


def test_another_add_leaves_the_first_as_it_is(machine: Machine, names: Names, ipv4: Ipv4) -> None:
    pod = machine.pod()
    sandbox = machine.sandbox(pod)
    machine.add(sandbox)
    with pytest.raises(LinkExists, match="expected a DEL before another ADD"):
        machine.add(sandbox)
    assert ipv4(sandbox.netns, "eth0") == ["10.11.0.2/24"]
    machine.check(sandbox)
    machine.delete(sandbox)
    assert machine.is_clean()


def test_an_add_that_never_ended_is_taken_down_first(machine: Machine, ipv4: Ipv4) -> None:
    machine.define("apps/lan", machine.sticky("lan"))
    sandbox = machine.sandbox(machine.replica("web-0", "lan"))
    machine.add(sandbox)
    lost = next(name for name in machine.results() if name.startswith("lan-"))
    (machine.cni_dir / "results" / lost).unlink()  # as when the daemon was killed before it had a result
    machine.add(sandbox)
    assert ipv4(sandbox.netns, "net1") == ["10.93.97.12/20"]
    machine.delete(sandbox)
    assert machine.results() == machine.addresses() == []


def test_a_scratch_file_that_cannot_be_read_is_not_overwritten(machine: Machine, names: Names) -> None:
    sandbox = machine.sandbox(machine.pod())
    machine.add(sandbox)
    machine.scratch(sandbox).write_text("[{")
    with pytest.raises(Exception, match="decode networks of container"):
        machine.add(sandbox)
    assert machine.scratch(sandbox).read_text() == "[{"
    assert names(sandbox.netns) == {"lo", "eth0"}


def test_recall_knows_whom_it_added(machine: Machine) -> None:
    pod = machine.pod()
    machine.add(machine.sandbox(pod))
    assert machine.plugin.recall(pod.ref) == pod
    assert machine.plugin.recall(PodRef("apps", "other")) is None
    machine.restart()
    assert machine.plugin.recall(pod.ref) == pod
