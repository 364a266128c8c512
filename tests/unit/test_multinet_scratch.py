"""The file that remembers a container's networks: ours read back whole, Multus's read as Multus would."""

from __future__ import annotations

import base64
import json
from ipaddress import ip_address, ip_interface
from typing import Any

import pytest

from homeport.cni import conflists
from homeport.model.errors import DecodeFailure
from homeport.multinet import scratch, selections
from homeport.multinet.delegates import Delegate

Json = dict[str, Any]

CALICO: Json = {
    "cniVersion": "0.3.1",
    "name": "k8s-pod-network",
    "plugins": [
        {"type": "calico", "kubernetes": {"kubeconfig": "/etc/cni/calico"}, "ipam": {"type": "calico-ipam", "x": 1}},
        {"type": "portmap", "snat": True, "capabilities": {"portMappings": True}},
    ],
}
MACVLAN: Json = {"cniVersion": "0.3.1", "name": "lan", "type": "macvlan", "master": "eth1", "ipam": {"type": "static"}}
CONTAINER = {"K8S_POD_NAME": "web-0", "K8S_POD_NAMESPACE": "pods", "IgnoreUnknown": "1", "IP": "10.1.1.1"}
EMPTY_CONF: Json = {"ipam": {}, "dns": {}}


def b64(value: object) -> str:
    return base64.b64encode(json.dumps(value, separators=(",", ":")).encode()).decode()


def of_single(name: str, config: Json, **requests: Any) -> Json:
    """An entry as Multus writes it for a configuration with a `type`."""
    summary = {k: config[k] for k in ("cniVersion", "name", "type")}
    return {
        "Conf": {**summary, "ipam": {"type": "static"}, "dns": {}},
        "ConfList": {"disableCheck": False},
        "Name": name,
        "IsFilterV4Gateway": False,
        "IsFilterV6Gateway": False,
        "Bytes": b64(config),
        **requests,
    }


def of_list(name: str, config: Json, **requests: Any) -> Json:
    """The same for a list."""
    generic = [{"type": p["type"], "ipam": {}, "dns": {}} for p in config["plugins"]]
    return {
        "Conf": {"cniVersion": "0.3.1", "name": config["name"], **EMPTY_CONF},
        "ConfList": {"cniVersion": "0.3.1", "name": config["name"], "plugins": generic},
        "Name": name,
        "IsFilterV4Gateway": False,
        "IsFilterV6Gateway": False,
        "Bytes": b64(config),
        **requests,
    }


def of_42(name: str, config: Json, known: Json, **requests: Any) -> Json:
    """A cluster network in a .conflist as 4.2 and 4.3 wrote it: `Bytes` lost the plugins' own keys."""
    libcni = {
        "Name": config["name"],
        "CNIVersion": "0.3.1",
        "DisableCheck": False,
        "DisableGC": False,
        "LoadOnlyInlinedPlugins": False,
        "Plugins": [{"Network": {"type": p["type"]}, "Bytes": b64(p)} for p in config["plugins"]],
        "Bytes": b64({**config, "plugins": config["plugins"][:1]}),  # without what a directory added
    }
    return {**of_list(name, config), "CNINetworkConfigList": libcni, "Bytes": b64(known), **requests}


def decode(*entries: Json, **more: Any) -> tuple[Delegate, ...]:
    given = {"container_id": "c1", "main_ifname": "eth0", "container_args": CONTAINER, **more}
    return scratch.decode(json.dumps(entries).encode(), **given)


# --- Multus's ----------------------------------------------------------------------------------------------------


def test_what_multus_wrote_is_read_with_all_keys_of_the_configuration() -> None:
    first, second = decode(of_list("k8s-pod-network", CALICO), of_single("pods/lan", MACVLAN))
    assert (first.main, first.name, first.ifname, first.selection) == (True, "k8s-pod-network", "eth0", None)
    assert first.network == conflists.parse(CALICO) or first.network.plugins == tuple(CALICO["plugins"])
    assert (second.main, second.name, second.ifname) == (False, "pods/lan", "net1")
    assert second.network.plugins == (MACVLAN,)
    assert (second.network.name, second.network.cni_version) == ("lan", "0.3.1")


def test_requests_come_back() -> None:
    _, second, third = decode(
        of_list("main", CALICO),
        of_single(
            "pods/lan",
            MACVLAN,
            ifnameRequest="up0",
            macRequest="02:00:00:00:00:01",
            infinibandGUIDRequest="c2:11:22:33:44:55:66:77",
            ipRequest=["10.0.0.9/24", "fd00::9/64"],
            deviceID="d1",
            **{"default-route": ["10.0.0.1"], "IsFilterV6Gateway": True},
        ),
        of_single("pods/lan", MACVLAN, IsFilterV4Gateway=True, IsFilterV6Gateway=True, **{"default-route": []}),
    )
    selection = second.selection
    assert selection is not None
    assert (second.ifname, selection.ifname, selection.namespace, selection.name) == ("up0", "up0", "pods", "lan")
    assert selection.ips == (ip_interface("10.0.0.9/24"), ip_interface("fd00::9/64"))
    assert (selection.mac, selection.device_id) == ("02:00:00:00:00:01", "d1")
    assert selection.default_route == (ip_address("10.0.0.1"),)
    assert second.drops_default_routes == {6}
    assert third.selection is not None
    assert (third.ifname, third.selection.default_route, set(third.drops_default_routes)) == ("net2", (), {4, 6})


def test_what_multus_does_not_write_is_worked_out_as_multus_does() -> None:
    """The runtime's capability arguments went to every network, those Multus knows of; the annotation's before them."""
    runtime = {"portMappings": [{"hostPort": 1}], "mac": "m", "dns": {"x": 1}, "ipRanges": []}
    first, second = decode(
        of_list("main", CALICO),
        of_single("pods/lan", MACVLAN, macRequest="02:00:00:00:00:01", ipRequest=["10.0.0.9/24"]),
        runtime_config=runtime,
    )
    assert first.capability_args == {"portMappings": [{"hostPort": 1}], "mac": "m"}
    assert second.capability_args == {
        "portMappings": [{"hostPort": 1}],
        "mac": "02:00:00:00:00:01",
        "ips": ["10.0.0.9/24"],
    }
    pod = {"IgnoreUnknown": "true", "K8S_POD_NAMESPACE": "pods", "K8S_POD_NAME": "web-0"}
    assert first.args == {**pod, "IP": "10.1.1.1"}
    assert second.args == {**pod, "MAC": "02:00:00:00:00:01", "IP": "10.0.0.9/24"}


def test_a_default_network_s_requests_went_through_cni_args_alone() -> None:
    (only,) = decode(of_single("kube-system/lan", MACVLAN, ipRequest=["10.0.0.9/24"], deviceID="d", resourceName="r"))
    assert only.args["IP"] == "10.0.0.9/24"
    assert only.capability_args == {}
    assert (only.device_id, only.resource_name) == ("d", "r")
    assert only.selection is not None
    assert only.selection.device_id is None  # the kubelet gave it


def test_a_device_comes_with_the_file_that_describes_it() -> None:
    _, second = decode(of_list("main", CALICO), of_single("pods/lan", MACVLAN, deviceID="d", resourceName="r"))
    assert second.capability_args == {
        "deviceID": "d",
        "CNIDeviceInfoFile": "/var/run/k8s.cni.cncf.io/devinfo/cni/pods-lan-c1_net1",
    }


def test_a_configuration_with_a_type_is_none_of_a_list() -> None:
    """Multus looked at `type` first."""
    (only,) = decode(of_single("main", {**MACVLAN, "plugins": "something else"}))
    assert only.network.plugins == (MACVLAN,)


KNOWN = {**CALICO, "plugins": [{"type": "calico", "ipam": {"type": "calico-ipam"}}, {"type": "portmap"}]}


def test_the_keys_that_4_2_lost_are_found_elsewhere_in_its_file() -> None:
    (only,) = decode(of_42("k8s-pod-network", CALICO, KNOWN))
    assert only.network.plugins == tuple(CALICO["plugins"])
    assert (only.network.name, only.network.cni_version) == ("k8s-pod-network", "0.3.1")


def test_what_4_2_put_into_the_plugins_is_kept() -> None:
    put = {"deviceID": "d", "pciBusID": "d", "args": {"cni": {"a": 1}}}
    (only,) = decode(of_42("main", CALICO, {**KNOWN, "plugins": [{**p, **put} for p in KNOWN["plugins"]]}))
    assert only.network.plugins == tuple({**plugin, **put} for plugin in CALICO["plugins"])


def test_an_empty_list_of_libcni_says_nothing() -> None:
    """4.2 wrote one beside every configuration that was no .conflist."""
    empty = {"Name": "", "CNIVersion": "", "Plugins": None, "Bytes": None}
    (only,) = decode(of_single("main", MACVLAN, CNINetworkConfigList=empty))
    assert only.network.plugins == (MACVLAN,)


def test_a_name_that_the_kernel_refused_is_no_obstacle() -> None:
    """Multus writes the file first; the DEL of such a pod must still find its other networks."""
    _, second = decode(of_list("main", CALICO), of_single("pods/lan", MACVLAN, ifnameRequest="a:b"))
    assert second.ifname == "a:b"


# --- undecodable -------------------------------------------------------------------------------------------------

GOOD = of_single("pods/lan", MACVLAN)


@pytest.mark.parametrize(
    ("contents", "text"),
    [
        (b"", "found nothing"),
        (b"\xff", "not JSON"),
        (b"[", "not JSON"),
        (b"null", "expected a list of networks"),
        (b"{}", "expected a list of networks"),
        (b"[]", "found an empty list"),
        (b"[null]", "network 0"),
        (b"[5]", "network 0"),
        (b"[{}]", "network 0: decode Bytes: found nothing"),
        (json.dumps([GOOD, {**GOOD, "Bytes": "%"}]).encode(), "network 1"),
        (json.dumps([{**GOOD, "Bytes": b64([])}]).encode(), "network 0: decode Bytes"),
        (json.dumps([{**GOOD, "Bytes": b64({"type": "x"})}]).encode(), 'network 0: key "name"'),
        (json.dumps([{**GOOD, "Bytes": b64({"name": "x"})}]).encode(), "network 0"),
        (json.dumps([{**GOOD, "ipRequest": ["x"]}]).encode(), "network 0: annotation selection.ips[0]"),
        (json.dumps([{**GOOD, "Name": "a/b/c"}]).encode(), "network 0"),
        (json.dumps([{**GOOD, "ifnameRequest": 5}]).encode(), "ifnameRequest"),
        (json.dumps([{**GOOD, "homeport": {}}]).encode(), "homeport.ifname"),
        (json.dumps([{**GOOD, "homeport": {"ifname": "a", "selection": {"name": "A"}}}]).encode(), "selection"),
        (
            json.dumps([of_42("m", CALICO, {**KNOWN, "plugins": KNOWN["plugins"][:1]})]).encode(),
            "found 1 plugins, expected 2",
        ),
    ],
)
def test_what_cannot_be_read_is_never_no_networks(contents: bytes, text: str) -> None:
    with pytest.raises(DecodeFailure) as caught:
        scratch.decode(contents, container_id="c1", main_ifname="eth0")
    assert text in caught.value.msg


# --- ours --------------------------------------------------------------------------------------------------------

SELECTION = selections.parse(
    json.dumps(
        [
            {
                "name": "lan",
                "interface": "up0",
                "ips": ["10.0.0.9", "10.0.0.10/24"],
                "mac": "02:00:00:00:00:01",
                "infiniband-guid": "c2:11:22:33:44:55:66:77",
                "portMappings": [{"hostPort": 1}],
                "bandwidth": {},
                "deviceID": "d",
                "cni-args": {"a": None},
                "default-route": [],
            }
        ]
    ),
    "pods",
)[0]
OURS = (
    Delegate(
        name="cluster",
        network=conflists.parse(json.dumps(CALICO, indent=2).encode()),
        ifname="eth0",
        main=True,
        args={"B": "1", "A": "2"},
        capability_args={"dns": {"x": None}},
        drops_default_routes=frozenset({4, 6}),
    ),
    Delegate(
        name="pods/lan",
        network=conflists.parse(MACVLAN),
        ifname="up0",
        selection=SELECTION,
        resource_name="r",
        device_id="d",
        drops_default_routes=frozenset({6}),
    ),
    Delegate(name="more", network=conflists.parse(CALICO), ifname="net2"),
)


def test_ours_comes_back_whole() -> None:
    """Whatever the runtime says by then."""
    back = scratch.decode(scratch.encode(OURS), container_id="other", main_ifname="x", container_args={"C": "3"})
    assert back == OURS
    assert list(back[0].args) == ["B", "A"]


def test_a_file_of_ours_is_one_that_multus_reads() -> None:
    main, second, third = json.loads(scratch.encode(OURS))
    assert [json.loads(base64.b64decode(e["Bytes"])) for e in (main, third)] == [CALICO, CALICO]
    assert all(e["ConfList"]["plugins"] for e in (main, second, third))
    assert [e["Name"] for e in (main, second, third)] == ["cluster", "pods/lan", "more"]
    # Multus numbers interfaces by itself, but knows CNI_IFNAME only for the first.
    assert [e.get("ifnameRequest") for e in (main, second, third)] == [None, "up0", "net2"]
    assert (second["macRequest"], second["ipRequest"]) == ("02:00:00:00:00:01", ["10.0.0.9", "10.0.0.10/24"])
    assert second["infinibandGUIDRequest"] == "c2:11:22:33:44:55:66:77"
    assert (second["deviceID"], second["resourceName"], second["default-route"]) == ("d", "r", [])
    assert [(e["IsFilterV4Gateway"], e["IsFilterV6Gateway"]) for e in (main, second, third)] == [
        (True, True),
        (False, True),
        (False, False),
    ]
    assert not {"macRequest", "ipRequest", "default-route", "deviceID"} & main.keys()


def test_multus_would_run_ours_as_we_do() -> None:
    """Without our own key it reads as a file of Multus does."""
    entries = [{k: v for k, v in e.items() if k != "homeport"} for e in json.loads(scratch.encode(OURS))]
    back = decode(*entries)
    assert [(d.ifname, d.network, d.main) for d in back] == [(d.ifname, d.network, d.main) for d in OURS]
