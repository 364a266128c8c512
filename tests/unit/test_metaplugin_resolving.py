"""Which networks a pod is to have, from configuration, files, objects and annotations."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.stand_ins_kubernetes import FakeKubernetes

from homeport.host.files import LocalFiles
from homeport.ipam.objects import OwnerReference, Pod
from homeport.metaplugin.resolving import Resolver
from homeport.model.errors import CniError, InvalidNetConf, IOFailure, NoSuchObject, TryAgainLater
from homeport.model.names import PodRef
from homeport.multinet import settings
from homeport.multinet.requests import ResolvedNetwork
from homeport.ports import NetworkDefinition

PLUGIN = {"type": "bridge", "own": {"kept": None}}


class Cluster:
    """An API server, a directory of files, and the networks that were missed."""

    def __init__(self, home: Path) -> None:
        self.kubernetes = FakeKubernetes()
        self.home = home
        self.missed: list[str] = []

    def define(self, namespace: str, name: str, config: Mapping[str, Any] | str, **annotations: str) -> None:
        text = config if isinstance(config, str) else json.dumps(config)
        self.kubernetes.create_definition(
            NetworkDefinition(namespace=namespace, name=name, config=text, annotations=annotations)
        )

    def write(self, name: str, config: Mapping[str, Any] | str) -> Path:
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(config if isinstance(config, str) else json.dumps(config))
        return path

    def resolver(self, *, api: bool = True, **keys: Any) -> Resolver:
        conf = {"cniVersion": "1.1.0", "name": "pods", "type": "homeport", "confDir": str(self.home), **keys}
        kubernetes = self.kubernetes if api else None
        return Resolver(settings.parse(conf), LocalFiles(), kubernetes, self.missed.append)

    def of_pod(self, pod: Pod | None = None, *, api: bool = True, **keys: Any) -> tuple[ResolvedNetwork, ...]:
        return self.resolver(api=api, **keys).of_pod(pod)


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


def listed(name: str, *plugins: Mapping[str, Any], version: str = "1.1.0", **keys: Any) -> dict[str, Any]:
    return {"cniVersion": version, "name": name, "plugins": list(plugins or [PLUGIN]), **keys}


def pod(networks: str = "", name: str = "web-0", **annotations: str) -> Pod:
    return Pod(
        ref=PodRef("apps", name),
        uid="u1",
        annotations={"k8s.v1.cni.cncf.io/networks": networks, **annotations},
        owner=OwnerReference(api_version="apps/v1", kind="StatefulSet", name="web", uid="w1"),
    )


def names(found: tuple[ResolvedNetwork, ...]) -> list[str]:
    return [network.name for network in found]


# --- the default network -----------------------------------------------------------------------------------------


def test_an_object_goes_before_a_file(cluster: Cluster) -> None:
    cluster.write("10-main.conflist", listed("main"))
    assert names(cluster.of_pod(clusterNetwork="main")) == ["main"]
    cluster.define("kube-system", "main", listed("of-the-object"))
    (found,) = cluster.of_pod(clusterNetwork="main")
    assert (found.name, found.network.name, found.main) == ("kube-system/main", "of-the-object", True)
    cluster.define("nets", "main", listed("elsewhere"))
    assert names(cluster.of_pod(clusterNetwork="main", multusNamespace="nets")) == ["nets/main"]


def test_a_file_of_that_name_beside_a_broken_one(cluster: Cluster) -> None:
    cluster.write("00-broken.conflist", "{")
    cluster.write("20-main.conf", {"cniVersion": "1.0.0", "name": "main", **PLUGIN})
    (found,) = cluster.of_pod(clusterNetwork="main", api=False)
    assert [dict(plugin) for plugin in found.network.plugins] == [{"cniVersion": "1.0.0", "name": "main", **PLUGIN}]


def test_nowhere(cluster: Cluster) -> None:
    with pytest.raises(NoSuchObject, match='find network "main": found no NetworkAttachmentDefinition in namespace'):
        cluster.of_pod(clusterNetwork="main")
    assert cluster.missed == ["kube-system/main"]


def test_a_file_serves_while_the_api_server_is_away(cluster: Cluster) -> None:
    cluster.kubernetes.mood = "unreachable"
    with pytest.raises(TryAgainLater):
        cluster.of_pod(clusterNetwork="main")
    assert cluster.missed == []
    cluster.write("main.conflist", listed("main"))
    assert names(cluster.of_pod(clusterNetwork="main")) == ["main"]


def test_an_api_server_that_refuses_us_is_no_absence(cluster: Cluster) -> None:
    cluster.kubernetes.mood = "refusing"
    cluster.write("main.conflist", listed("main"))
    with pytest.raises(IOFailure, match="forbidden"):
        cluster.of_pod(clusterNetwork="main")


def test_a_path_of_a_list_takes_the_directory_beside_it(cluster: Cluster) -> None:
    path = cluster.write("10-main.conflist", listed("main"))
    cluster.write("main/20-b.conf", {"type": "b", "kept": {"all": [1]}})
    cluster.write("main/10-a.conf", {"type": "a"})
    cluster.write("main/ignored.json", {"type": "c"})
    (found,) = cluster.of_pod(clusterNetwork=str(path))
    assert [plugin["type"] for plugin in found.network.plugins] == ["bridge", "a", "b"]
    assert json.loads(found.network.raw)["plugins"][2] == {"type": "b", "kept": {"all": [1]}}
    cluster.write("10-main.conflist", listed("main", loadOnlyInlinedPlugins=True))
    (found,) = cluster.of_pod(clusterNetwork=str(path))
    assert [plugin["type"] for plugin in found.network.plugins] == ["bridge"]


def test_a_path_of_a_directory_or_of_one_plugin(cluster: Cluster) -> None:
    cluster.write("net.d/20-second.conflist", listed("second"))
    cluster.write("net.d/10-first.conf", {"cniVersion": "1.0.0", "name": "first", **PLUGIN})
    cluster.write("net.d/00-skipped.json", {"name": "skipped", **PLUGIN})
    assert names(cluster.of_pod(clusterNetwork=str(cluster.home / "net.d"))) == ["first"]
    assert names(cluster.of_pod(clusterNetwork=str(cluster.home / "net.d" / "20-second.conflist"))) == ["second"]


@pytest.mark.parametrize(
    ("path", "text"),
    [("absent.conf", "no such file"), ("empty.d", "found no .conf or .conflist"), ("typeless.conf", "found no plugin")],
)
def test_a_path_that_leads_nowhere(cluster: Cluster, path: str, text: str) -> None:
    (cluster.home / "empty.d").mkdir()
    cluster.write("typeless.conf", {"name": "typeless"})
    with pytest.raises(CniError, match=text):
        cluster.of_pod(clusterNetwork=str(cluster.home / path))


def test_delegates_in_the_configuration(cluster: Cluster) -> None:
    found = cluster.of_pod(delegates=[listed("a"), {"cniVersion": "1.0.0", "name": "b", **PLUGIN}], api=False)
    assert [(n.name, n.main) for n in found] == [("a", True), ("b", False)]
    with pytest.raises(InvalidNetConf, match=r'delegates\[1\]: key "name": missing'):
        cluster.of_pod(delegates=[listed("a"), PLUGIN])


# --- what the pod says -------------------------------------------------------------------------------------------


@pytest.fixture
def filled(cluster: Cluster) -> Cluster:
    for namespace, name in (("kube-system", "main"), ("kube-system", "extra"), ("apps", "lan"), ("other", "wan")):
        cluster.define(namespace, name, listed(name))
    return cluster


def test_the_order_of_networks(filled: Cluster) -> None:
    path = filled.write("chain.conflist", listed("chain"))
    filled.write("aux/10-a.conf", {"type": "a"})
    found = filled.of_pod(
        pod("lan,other/wan,lan"),
        clusterNetwork=str(path),
        defaultNetworks=["extra"],
        auxiliaryCNIChainName="aux",
    )
    assert names(found) == ["chain", "kube-system/extra", "apps/lan", "other/wan", "apps/lan", "aux"]
    assert [network.main for network in found] == [True, False, False, False, False, False]
    assert [str(network.selection) for network in found] == [
        "None",
        "None",
        "apps/lan",
        "other/wan",
        "apps/lan",
        "None",
    ]


def test_another_default_network(filled: Cluster) -> None:
    chosen = {"v1.multus-cni.io/default-network": "extra@lan0"}
    found = filled.of_pod(pod("lan", **chosen), clusterNetwork="main", namespaceIsolation=True)
    assert [(n.name, n.main, n.selection and n.selection.ifname) for n in found] == [
        ("kube-system/extra", True, "lan0"),
        ("apps/lan", False, None),
    ]
    with pytest.raises(InvalidNetConf, match="expected exactly one"):
        filled.of_pod(pod("", **{"v1.multus-cni.io/default-network": "extra,main"}), clusterNetwork="main")


def test_default_networks_are_not_for_system_pods(filled: Cluster) -> None:
    keys: dict[str, Any] = {"clusterNetwork": "main", "defaultNetworks": ["extra"]}
    assert names(filled.of_pod(pod(), **keys)) == ["kube-system/main", "kube-system/extra"]
    assert names(filled.of_pod(pod(), **keys, systemNamespaces=["apps"])) == ["kube-system/main"]
    assert names(filled.of_pod(None, **keys)) == ["kube-system/main"]


@pytest.mark.parametrize(("allowed", "fails"), [("", True), ("default", True), ("x, other", False)])
def test_isolation(filled: Cluster, allowed: str, fails: bool) -> None:
    keys: dict[str, Any] = {"clusterNetwork": "main", "namespaceIsolation": True, "globalNamespaces": allowed}
    if fails:
        with pytest.raises(InvalidNetConf, match="namespaceIsolation"):
            filled.of_pod(pod("other/wan"), **keys)
    else:
        assert names(filled.of_pod(pod("other/wan"), **keys)) == ["kube-system/main", "other/wan"]
    assert filled.missed == []


def test_the_number_of_a_replica(filled: Cluster) -> None:
    filled.define("apps", "lan-7", listed("lan-7"))
    found = filled.of_pod(pod("lan-{ordinal}", "web-7"), clusterNetwork="main")
    assert names(found) == ["kube-system/main", "apps/lan-7"]
    with pytest.raises(InvalidNetConf, match="only for replicas"):
        filled.of_pod(pod("lan-{ordinal}", "stranger-x"), clusterNetwork="main")
    with pytest.raises(InvalidNetConf, match=r"replicaKinds\[0\]"):
        filled.of_pod(pod(), clusterNetwork="main", replicaKinds=[{"kind": 7}])


def test_a_missing_object_and_one_nobody_can_tell_of(filled: Cluster) -> None:
    with pytest.raises(NoSuchObject, match='find network "apps/absent": no such NetworkAttachmentDefinition'):
        filled.of_pod(pod("absent"), clusterNetwork="main")
    assert filled.missed == ["apps/absent"]
    filled.kubernetes.mood = "unreachable"
    filled.write("main.conflist", listed("main"))
    with pytest.raises(TryAgainLater):
        filled.of_pod(pod("lan"), clusterNetwork="main")
    assert filled.missed == ["apps/absent"]


# --- configurations of objects -----------------------------------------------------------------------------------


def test_an_object_without_a_configuration_names_a_file(filled: Cluster) -> None:
    filled.define("apps", "written", "  ", **{"k8s.v1.cni.cncf.io/resourceName": "example.com/vf"})
    filled.write("77.conflist", listed("written", {"type": "macvlan"}))
    _, found = filled.of_pod(pod("written"), clusterNetwork="main")
    assert (found.name, found.network.name, found.resource_name) == ("apps/written", "written", "example.com/vf")


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"cniVersion": "1.0.0", **PLUGIN}, "lan"),
        ({"cniVersion": "1.0.0", "name": "", "plugins": [PLUGIN]}, "lan"),
        ({"cniVersion": "1.0.0", "name": "own", **PLUGIN}, "own"),
    ],
)
def test_the_name_of_an_objects_network(filled: Cluster, config: dict[str, Any], name: str) -> None:
    filled.define("apps", "lan", config)
    _, found = filled.of_pod(pod("lan"), clusterNetwork="main")
    assert (found.name, found.network.name) == ("apps/lan", name)
    assert json.loads(found.network.raw)["name"] == name


# --- the auxiliary chain -----------------------------------------------------------------------------------------


def test_the_auxiliary_chain(cluster: Cluster) -> None:
    path = cluster.write("chain.conflist", listed("chain"))
    keys: dict[str, Any] = {"clusterNetwork": str(path), "auxiliaryCNIChainName": "aux"}
    assert names(cluster.of_pod(**keys)) == ["chain"]
    cluster.write("aux/20-b.conf", {"type": "b"})
    cluster.write("aux/10-a.conf", {"type": "a", "own": 1})
    _, found = cluster.of_pod(**keys)
    assert (found.name, found.network.cni_version) == ("aux", "1.0.0")
    assert [dict(plugin) for plugin in found.network.plugins] == [
        {"type": "passthru"},
        {"type": "a", "own": 1},
        {"type": "b"},
    ]
    cluster.write("aux/30-c.conf", "{")
    with pytest.raises(CniError, match=r'key "auxiliaryCNIChainName": decode plugin configuration .*30-c\.conf'):
        cluster.of_pod(**keys)


def test_the_auxiliary_chain_stands_beside_a_path(filled: Cluster) -> None:
    with pytest.raises(InvalidNetConf, match='key "auxiliaryCNIChainName": found "aux" with clusterNetwork "main"'):
        filled.of_pod(clusterNetwork="main", auxiliaryCNIChainName="aux")
