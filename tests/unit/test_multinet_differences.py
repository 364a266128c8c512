"""Every deliberate difference from Multus is there: the rows of docs/compatibility.md, "From Multus".

A test is named for the row's ID.
"""

from __future__ import annotations

import base64
import json
import re
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from homeport.cni import conflists
from homeport.cni.conflists import ConfList
from homeport.model.errors import DecodeFailure, InvalidNetConf
from homeport.model.results import Interface, Result, Route
from homeport.multinet import requests, scratch, selections, settings, statuses
from homeport.multinet.delegates import Delegate
from homeport.multinet.requests import ResolvedNetwork

ROW = re.compile(r"^\|.*\| `([a-z0-9-]+)` \|$", re.MULTILINE)
NODE = {"cniVersion": "1.0.0", "name": "n", "type": "multus", "clusterNetwork": "cluster"}
ABLE = {"ips": True, "mac": True}


def test_every_row_has_its_test_and_every_test_its_row() -> None:
    page = (Path(__file__).parents[2] / "docs" / "compatibility.md").read_text()
    rows = ROW.findall(page.partition("### From Multus")[2])
    tests = [name.removeprefix("test_is_").replace("_", "-") for name in globals() if name.startswith("test_is_")]
    assert sorted(rows) == sorted(tests)


def network(**plugin: Any) -> ConfList:
    return conflists.parse({"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "ipvlan", **plugin}]})


def delegates(
    annotation: str,
    net: ConfList,
    *,
    chosen: str = "",
    args: dict[str, str] | None = None,
    runtime_config: dict[str, Any] | None = None,
    devices: dict[str, list[str]] | None = None,
    **keys: Any,
) -> tuple[Delegate, ...]:
    """Those of a pod with this annotation, and `chosen` for its default network."""
    main = ResolvedNetwork(name="cluster", network=network(capabilities=ABLE), main=True, resource_name="vf")
    if chosen:
        main = ResolvedNetwork(
            name=main.name,
            network=main.network,
            main=True,
            resource_name="vf",
            selection=selections.parse_default(chosen, "kube-system"),
        )
    others = [
        ResolvedNetwork(name=s.name, network=net, selection=s, resource_name="vf")
        for s in selections.parse(annotation, "pods")
    ]
    return requests.delegates_of(
        [main, *others],
        container_args=args or {},
        runtime_config=runtime_config or {},
        main_ifname="eth0",
        settings=settings.parse({**NODE, **keys}),
        devices=devices or {},
    )


@pytest.mark.parametrize(
    "request_",
    [
        {"ips": ["10.0.0.9"]},
        {"mac": "02:00:00:00:00:01"},
        {"portMappings": [{"hostPort": 1}]},
        {"bandwidth": {"ingressRate": 1}},
        {"infiniband-guid": "c2:11:22:33:44:55:66:77"},
        {"deviceID": "d"},
    ],
)
def test_is_unhonoured(request_: dict[str, Any]) -> None:
    asked = json.dumps([{"name": "a", **request_}])
    with pytest.raises(InvalidNetConf, match="found a request for"):
        delegates(asked, network())
    assert len(delegates(asked, network(), unhonouredRequests="Ignore")) == 2


def test_is_runtime_config() -> None:
    main, other = delegates("a", network(), runtime_config={"portMappings": [{"hostPort": 1}]})
    assert (main.capability_args, other.capability_args) == ({"portMappings": [{"hostPort": 1}]}, {})


def test_is_runtime_config_keys() -> None:
    given = {key: {"x": 1} for key in ("dns", "ipRanges", "cgroupPath", "aliases")}
    (main,) = delegates("", network(), runtime_config=given)
    assert main.capability_args == given


def test_is_cni_args() -> None:
    main, other = delegates("a", network(), args={"IgnoreUnknown": "1", "VLAN": "5", "K8S_POD_NAME": "p"})
    assert list(main.args.items()) == [("IgnoreUnknown", "true"), ("K8S_POD_NAME", "p"), ("VLAN", "5")]
    assert other.args == main.args


def test_is_cni_args_of_one() -> None:
    main, other = delegates("a", network(), args={"IP": "10.0.0.5", "MAC": "m"})
    assert main.args == {"IgnoreUnknown": "true", "IP": "10.0.0.5", "MAC": "m"}
    assert other.args == {"IgnoreUnknown": "true"}


def test_is_default_network_requests() -> None:
    (main,) = delegates("", network(), chosen='[{"name":"a","ips":["10.0.0.9/24"],"mac":"02:00:00:00:00:01"}]')
    assert main.args["IP"] == "10.0.0.9/24"
    assert main.capability_args == {"ips": ["10.0.0.9/24"], "mac": "02:00:00:00:00:01"}


def test_is_empty_default_route() -> None:
    main, other = delegates('[{"name":"a","default-route":[]}]', network())
    assert (set(main.drops_default_routes), set(other.drops_default_routes)) == ({4, 6}, set())


def test_is_devices_once() -> None:
    found = delegates("a", network(), chosen="b", devices={"vf": ["d0", "d1"]})
    assert [d.device_id for d in found] == ["d0", "d1"]


def test_is_interface_names() -> None:
    with pytest.raises(InvalidNetConf, match='interface "net2" taken'):
        delegates("a@net2,a", network())


@pytest.mark.parametrize(
    "entry",
    [
        {"name": "../a"},
        {"name": "a", "namespace": "a/b"},
        {"name": "a", "interface": "a/b"},
        {"name": "a", "ips": ["fe80::1%a"]},
    ],
)
def test_is_names(entry: dict[str, Any]) -> None:
    with pytest.raises(InvalidNetConf):
        selections.parse(json.dumps([entry]), "pods")


@pytest.mark.parametrize("annotation", ["/a", "a@"])
def test_is_half_names(annotation: str) -> None:
    with pytest.raises(InvalidNetConf):
        selections.parse(annotation, "pods")


def test_is_braces() -> None:
    with pytest.raises(InvalidNetConf, match="braces only in"):
        selections.parse('[{"name":"a","interface":"lan{ordnal}"}]', "pods")


def test_is_nil_gateway() -> None:
    inside = Interface(name="eth0", sandbox="/x")
    result = Result(interfaces=(inside,), routes=(Route(dst=ip_network("0.0.0.0/0")),))
    assert "gateway" not in statuses.text(statuses.of_result("a", result))


def encoded(value: object) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()


def of_multus(config: dict[str, Any], *, libcni: dict[str, Any] | None = None) -> bytes:
    entry = {
        "Name": "cluster",
        "ConfList": {"plugins": [{"type": "calico"}]},
        "Bytes": encoded(config),
    }
    if libcni is not None:
        entry["CNINetworkConfigList"] = libcni
    return json.dumps([entry]).encode()


def test_is_lost_keys() -> None:
    whole = {"type": "calico", "kubernetes": {"kubeconfig": "/k"}}
    listed = {"cniVersion": "0.3.1", "name": "n", "plugins": [{"type": "calico"}]}
    file = of_multus(listed, libcni={"Plugins": [{"Bytes": encoded(whole)}], "Bytes": encoded(listed)})
    (main,) = scratch.decode(file, container_id="c", main_ifname="eth0")
    assert main.network.plugins == (whole,)


def test_is_unreadable() -> None:
    with pytest.raises(DecodeFailure):
        scratch.decode(b"", container_id="c", main_ifname="eth0")


def test_is_del_version() -> None:
    file = of_multus({"name": "n", "plugins": [{"type": "calico"}]})
    (main,) = scratch.decode(file, container_id="c", main_ifname="eth0")
    assert main.network.cni_version == "0.1.0"


def test_is_empty_paths() -> None:
    read = settings.parse({**NODE, "confDir": "", "cniDir": "", "binDir": "", "multusNamespace": ""})
    assert read == settings.parse(NODE)
