"""From annotations and configurations to what each plugin is run with: environment, capability arguments, stdin.

The plugins are players: whatever its type, each writes down what it was given.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import pytest

from homeport.cni import conflists, invocations, netconfs
from homeport.cni.invocations import Attachment
from homeport.cni.netconfs import NetConf
from homeport.host.kernel import Kernel
from homeport.model.errors import CniError, InvalidNetConf
from homeport.model.results import Result
from homeport.multinet import default_routes, requests, selections, settings
from homeport.multinet.delegates import Delegate
from homeport.multinet.requests import ResolvedNetwork
from homeport.ports import Exec, Shells
from homeport.runtime import chaining
from homeport.runtime.caching import ResultCache
from homeport.runtime.delegating import PluginDelegates
from homeport.wiring import build_shells

Json = dict[str, Any]

CONTAINER = {
    "IgnoreUnknown": "1",
    "K8S_POD_UID": "u",
    "K8S_POD_INFRA_CONTAINER_ID": "c1",
    "K8S_POD_NAME": "web-0",
    "K8S_POD_NAMESPACE": "pods",
}
POD = "IgnoreUnknown=true;K8S_POD_NAMESPACE=pods;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=c1;K8S_POD_UID=u"
CLUSTER: Json = {"cniVersion": "1.0.0", "name": "cluster", "plugins": [{"type": "main"}]}


def conf(name: str, *plugins: Json, version: str = "1.0.0") -> Json:
    return {"cniVersion": version, "name": name, "plugins": list(plugins)}


LAN = conf("lan", {"type": "macvlan", "ipam": {"type": "static"}})
ABLE = conf(
    "able",
    {"type": "macvlan", "capabilities": {"ips": True, "mac": True, "deviceID": True}, "ipam": {"type": "static"}},
    {"type": "portmap", "capabilities": {"portMappings": True, "bandwidth": True}},
)
SINGLE: Json = {"cniVersion": "0.3.1", "name": "single", "type": "bridge", "args": {"cni": {"a": 1, "b": 2}, "x": 3}}
NETWORKS: Mapping[str, Json] = {"pods/lan": LAN, "pods/able": ABLE, "pods/single": SINGLE, "other/lan": LAN}


def delegates(
    annotation: str = "",
    *,
    main: ResolvedNetwork | None = None,
    container_args: Mapping[str, str] = CONTAINER,
    runtime_config: Mapping[str, Any] | None = None,
    resources: Mapping[str, str] | None = None,
    devices: Mapping[str, Sequence[str]] | None = None,
    unhonoured: str = "Error",
) -> tuple[Delegate, ...]:
    """Those of a pod with a default network called cluster and this annotation."""
    wanted = selections.parse(annotation, "pods")
    resolved = [
        main or ResolvedNetwork(name="cluster", network=conflists.parse(CLUSTER), main=True),
        *(
            ResolvedNetwork(
                name=f"{s.namespace}/{s.name}",
                network=conflists.parse(NETWORKS[f"{s.namespace}/{s.name}"]),
                selection=s,
                resource_name=(resources or {}).get(s.name, ""),
            )
            for s in wanted
        ),
    ]
    return requests.delegates_of(
        resolved,
        container_args=container_args,
        runtime_config=runtime_config or {},
        main_ifname="eth0",
        settings=settings.parse(
            {**CLUSTER, "type": "multus", "clusterNetwork": "cluster", "unhonouredRequests": unhonoured}
        ),
        devices=devices or {},
    )


def entry(name: str, **keys: Any) -> str:
    return json.dumps([{"name": name, **keys}])


# --- interfaces ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "names"),
    [
        ("", ["eth0"]),
        ("lan", ["eth0", "net1"]),
        ("lan,other/lan", ["eth0", "net1", "net2"]),
        ("lan,lan", ["eth0", "net1", "net2"]),  # the same network twice
        ("lan@red,lan", ["eth0", "red", "net2"]),  # numbers count every network
        ("lan,lan@red,lan", ["eth0", "net1", "red", "net3"]),
        ('[{"name":"lan","interface":"a","interfaceRequest":"b"}]', ["eth0", "a"]),
    ],
)
def test_interfaces_are_named_or_numbered(annotation: str, names: list[str]) -> None:
    found = delegates(annotation)
    assert [d.ifname for d in found] == names
    assert [d.main for d in found] == [True] + [False] * (len(names) - 1)
    assert [d.name for d in found][:1] == ["cluster"]


def test_the_default_network_may_have_a_name_of_its_own() -> None:
    chosen = selections.parse_default('[{"name":"lan","interface":"up0"}]', "kube-system")
    main = ResolvedNetwork(name="kube-system/lan", network=conflists.parse(LAN), selection=chosen, main=True)
    assert [d.ifname for d in delegates("lan", main=main)] == ["up0", "net1"]


@pytest.mark.parametrize("annotation", ["lan@eth0", "lan@red,lan@red", "lan@net2,lan"])
def test_two_interfaces_of_one_name_are_refused(annotation: str) -> None:
    with pytest.raises(InvalidNetConf) as caught:
        delegates(annotation)
    assert "expected a name of its own" in caught.value.msg


# --- CNI_ARGS ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "given", "main", "other"),
    [
        ("lan", {}, POD, POD),
        ("lan", {"VLAN": "5"}, f"{POD};VLAN=5", f"{POD};VLAN=5"),
        # what the runtime gives to one interface is the default network's
        ("lan", {"IP": "10.0.0.5", "MAC": "m", "GATEWAY": "g"}, f"{POD};IP=10.0.0.5;MAC=m;GATEWAY=g", POD),
        (entry("lan", ips=["10.0.0.9/24"]), {"IP": "10.0.0.5"}, f"{POD};IP=10.0.0.5", f"{POD};IP=10.0.0.9/24"),
        (
            entry("lan", ips=["10.0.0.9/24", "fd00::9/64"], mac="02-00-00-00-00-01"),
            {},
            POD,
            f"{POD};MAC=02:00:00:00:00:01;IP=10.0.0.9/24,fd00::9/64",
        ),
    ],
)
def test_cni_args_in_order_and_no_key_twice(annotation: str, given: dict[str, str], main: str, other: str) -> None:
    first, second = delegates(annotation, container_args={**CONTAINER, **given})
    assert invocations.format_args(first.args) == main
    assert invocations.format_args(second.args) == other


def test_outside_kubernetes_there_is_no_pod_to_name() -> None:
    (only,) = delegates(container_args={})
    assert invocations.format_args(only.args) == "IgnoreUnknown=true"


def test_a_wish_on_the_default_network_goes_before_the_runtime_s() -> None:
    chosen = selections.parse_default(entry("able", ips=["10.0.0.9/24"]), "pods")
    main = ResolvedNetwork(name="pods/able", network=conflists.parse(ABLE), selection=chosen, main=True)
    (only,) = delegates(main=main, container_args={**CONTAINER, "IP": "10.0.0.5"}, runtime_config={"ips": ["x"]})
    assert invocations.format_args(only.args) == f"{POD};IP=10.0.0.9/24"
    assert only.capability_args == {"ips": ["10.0.0.9/24"]}


# --- capability arguments ------------------------------------------------------------------------------------------

PORTS = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
EVERYTHING = {
    "ips": ["10.0.0.9/24"],
    "mac": "02:00:00:00:00:01",
    "portMappings": [{"hostPort": 1, "containerPort": 2, "hostIP": "10.0.0.1"}],
    "bandwidth": {"ingressRate": 1, "ingressBurst": 2, "egressRate": 3, "egressBurst": 4},
}


def test_the_runtime_s_capability_arguments_are_the_default_network_s_alone() -> None:
    first, second = delegates("able", runtime_config={"portMappings": PORTS, "dns": {"servers": ["x"]}})
    assert first.capability_args == {"portMappings": PORTS, "dns": {"servers": ["x"]}}
    assert second.capability_args == {}


def test_other_networks_get_what_the_annotation_asks_for() -> None:
    _, second = delegates(entry("able", **EVERYTHING, deviceID="d"), runtime_config={"portMappings": PORTS})
    assert second.capability_args == {**EVERYTHING, "deviceID": "d"}


def test_a_request_that_no_plugin_honours_is_an_error_unless_told_otherwise() -> None:
    asked = entry("single", ips=["10.0.0.9/24"], portMappings=PORTS)
    with pytest.raises(InvalidNetConf, match='attach network "pods/single": found a request for "portMappings", "ips"'):
        delegates(asked)
    _, second = delegates(asked, unhonoured="Ignore")
    assert second.capability_args == {"portMappings": PORTS, "ips": ["10.0.0.9/24"]}


# --- devices, default routes -----------------------------------------------------------------------------------------


def test_devices_of_a_resource_go_round_in_order_and_before_a_wish() -> None:
    annotation = json.dumps([{"name": "able", "deviceID": "wish"}, {"name": "lan"}, {"name": "able"}])
    found = delegates(annotation, resources={"able": "vendor/vf"}, devices={"vendor/vf": ["d0", "d1"], "x": ["y"]})
    assert [d.device_id for d in found] == ["", "d0", "", "d1"]
    assert [d.resource_name for d in found] == ["", "vendor/vf", "", "vendor/vf"]
    assert [d.capability_args.get("deviceID") for d in found] == [None, "d0", None, "d1"]
    assert all((p["deviceID"], p["pciBusID"]) == ("d0", "d0") for p in found[1].network.plugins)
    assert not any("deviceID" in p for p in found[2].network.plugins)


def test_a_device_of_the_default_network_is_not_given_again() -> None:
    main = ResolvedNetwork(name="able", network=conflists.parse(ABLE), main=True, resource_name="vendor/vf")
    found = delegates("able", main=main, resources={"able": "vendor/vf"}, devices={"vendor/vf": ["d0", "d1"]})
    assert [d.device_id for d in found] == ["d0", "d1"]


def test_without_a_device_left_the_network_goes_without() -> None:
    found = delegates("able,able", resources={"able": "vendor/vf"}, devices={"vendor/vf": ["d0"]})
    assert [d.device_id for d in found] == ["", "d0", ""]


def test_a_device_asked_for_by_name_is_a_capability_argument_alone() -> None:
    _, second = delegates(entry("able", deviceID="d9"), resources={"able": "vendor/vf"})
    assert (second.device_id, second.capability_args) == ("d9", {"deviceID": "d9"})
    assert not any("pciBusID" in plugin for plugin in second.network.plugins)


@pytest.mark.parametrize(
    ("asked", "drops"),
    [
        ([{}, {}], [set(), set(), set()]),
        ([{}, {"default-route": ["10.0.0.1"]}], [{4, 6}, {4, 6}, {6}]),
        ([{"default-route": []}, {}], [{4, 6}, set(), {4, 6}]),
    ],
)
def test_default_routes_are_planned_over_all_networks(asked: list[Json], drops: list[set[int]]) -> None:
    found = delegates(json.dumps([{"name": "lan", **keys} for keys in asked]))
    assert [d.drops_default_routes for d in found] == drops


def test_a_second_gateway_is_refused() -> None:
    with pytest.raises(InvalidNetConf, match="one IPv4 gateway at most"):
        delegates(json.dumps([{"name": "lan", "default-route": [f"10.0.0.{n}"]} for n in (1, 2)]))


# --- what a plugin reads ---------------------------------------------------------------------------------------------


class Player:
    """A plugin of any type that writes down its calls: (type, interface, CNI_ARGS, stdin)."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, str, Json]] = []

    def find(self, plugin_type: str) -> Player:
        self.TYPE = plugin_type
        return self

    def add(self, conf: NetConf, attachment: Attachment, shells: Shells) -> Result:
        stdin = json.loads(msgspec.json.encode(netconfs.wire(conf)))
        self.calls.append((conf.type, attachment.ifname, invocations.format_args(attachment.args), stdin))
        return Result()

    def delete(self, conf: NetConf, attachment: Attachment, shells: Shells) -> None: ...
    def check(self, conf: NetConf, attachment: Attachment, shells: Shells) -> None: ...
    def gc(self, conf: NetConf, attachment: Attachment, shells: Shells) -> None: ...
    def status(self, conf: NetConf, attachment: Attachment, shells: Shells) -> None: ...


@pytest.fixture(scope="module")
def machine() -> Iterator[Shells]:
    shells = build_shells()
    yield shells
    assert isinstance(shells.host, Kernel)
    shells.host.close()


@pytest.fixture
def player() -> Player:
    return Player()


@pytest.fixture
def shells(machine: Shells, player: Player) -> Shells:
    def no_executor() -> Exec:
        raise AssertionError("every plugin is a player")

    players = PluginDelegates(find=player.find, shells=lambda: machine, open_executor=no_executor, environ={})
    return msgspec.structs.replace(machine, delegates=players)


def stdin_of(delegate: Delegate, player: Player, shells: Shells, cache: ResultCache) -> list[Json]:
    attachment = Attachment(
        container_id="c1", ifname=delegate.ifname, netns_path="/proc/self/ns/net", args=delegate.args
    )
    chaining.add(delegate.network, attachment, shells, cache=cache, capability_args=delegate.capability_args)
    stdin = [call[3] for call in player.calls]
    for item in stdin:
        item.pop("prevResult", None)
    return stdin


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        ("lan", [{"type": "macvlan", "ipam": {"type": "static"}, "cniVersion": "1.0.0", "name": "lan"}]),
        # capabilities stay in the object; only declared arguments are handed over
        (
            entry("able", **EVERYTHING),
            [
                {
                    **ABLE["plugins"][0],
                    "cniVersion": "1.0.0",
                    "name": "able",
                    "runtimeConfig": {"ips": EVERYTHING["ips"], "mac": EVERYTHING["mac"]},
                },
                {
                    **ABLE["plugins"][1],
                    "cniVersion": "1.0.0",
                    "name": "able",
                    "runtimeConfig": {
                        "portMappings": EVERYTHING["portMappings"],
                        "bandwidth": EVERYTHING["bandwidth"],
                    },
                },
            ],
        ),
        # cni-args key by key, the pod's value wins, in every plugin
        (
            entry("single", **{"cni-args": {"b": 5, "c": {"d": None}}}),
            [{**SINGLE, "args": {"cni": {"a": 1, "b": 5, "c": {"d": None}}, "x": 3}}],
        ),
        (
            entry("lan", **{"cni-args": {"b": 5}}),
            [{**LAN["plugins"][0], "cniVersion": "1.0.0", "name": "lan", "args": {"cni": {"b": 5}}}],
        ),
    ],
)
def test_stdin(annotation: str, expected: list[Json], player: Player, shells: Shells, tmp_path: Any) -> None:
    _, second = delegates(annotation)
    assert stdin_of(second, player, shells, ResultCache(tmp_path)) == expected


def test_stdin_of_the_default_network(player: Player, shells: Shells, tmp_path: Any) -> None:
    able = ResolvedNetwork(name="able", network=conflists.parse(ABLE), main=True)
    (only,) = delegates(main=able, runtime_config={"portMappings": PORTS, "dns": {}})
    _, portmap = stdin_of(only, player, shells, ResultCache(tmp_path))
    assert portmap["runtimeConfig"] == {"portMappings": PORTS}


def test_the_cached_configuration_is_the_one_that_was_run() -> None:
    _, second = delegates(entry("single", **{"cni-args": {"b": 5}}))
    assert conflists.parse(second.network.raw) == second.network


@pytest.mark.parametrize("args", [5, ["x"], {"cni": ["x"]}, "x"])
def test_cni_args_need_an_object_to_go_into(args: Any) -> None:
    network = conflists.parse(conf("n", {"type": "bridge", "args": args}))
    with pytest.raises(CniError) as caught:
        requests.with_cni_args(network, {"a": 1})
    assert 'key "args" of plugin "bridge" of network "n"' in caught.value.msg


def test_changes_are_readable_by_their_plan() -> None:
    _, second = delegates(entry("lan", **{"default-route": ["10.0.0.1"]}))
    assert second.selection is not None
    change = default_routes.change(second.drops_default_routes, second.selection.default_route)
    assert (set(change.drops), [str(g) for g in change.gateways]) == ({4, 6}, ["10.0.0.1"])
