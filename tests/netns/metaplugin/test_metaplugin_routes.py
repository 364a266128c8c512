"""`default-route`: which interface has the pod's default route, in the kernel, the result, the status and the cache."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from homeport.model.errors import CniError, InvalidNetConf, KernelRefused
from homeport.model.results import Result

if TYPE_CHECKING:
    from tests.netns.conftest import IpJson
    from tests.netns.metaplugin.conftest import Machine

pytestmark = pytest.mark.root

Defaults = Callable[[str], list[tuple[str, str]]]
V4, V6 = "10.93.96.1", "fd00:93::1"


@pytest.fixture
def defaults(ip_json: IpJson) -> Defaults:
    """(interface, gateway) of a namespace's default routes, IPv4's first."""

    def ask(netns: str) -> list[tuple[str, str]]:
        found = [r for v in "46" for r in ip_json(netns, f"-{v}", "route", "show", "default")]
        return [(route["dev"], route.get("gateway", "")) for route in found]

    return ask


@pytest.fixture
def lan(machine: Machine) -> Machine:
    """Two networks more, dual stack, the second with default routes of its own."""
    for name, host in (("lan", 5), ("own", 6)):
        conf = machine.macvlan(name, f"10.93.97.{host}/20")
        ipam = conf["plugins"][0]["ipam"]
        ipam["addresses"].append({"address": f"fd00:93::{host}/64"})
        if name == "own":
            ipam["routes"] = [
                {"dst": "0.0.0.0/0", "gw": V4},
                {"dst": "::/0", "gw": V6},
                {"dst": "10.99.0.0/16", "gw": V4},
            ]
        machine.define(f"apps/{name}", conf)
    return machine


def written(result: Result) -> list[tuple[str, str]]:
    return [(str(route.dst), str(route.gw)) for route in result.routes]


def asking(name: str, *gateways: str, **keys: Any) -> dict[str, Any]:
    return {"name": name, "default-route": list(gateways), **keys}


def test_without_the_key_nothing_changes(lan: Machine, defaults: Defaults) -> None:
    sandbox = lan.sandbox(lan.pod(networks="lan"))
    assert written(lan.add(sandbox)) == [("0.0.0.0/0", "None")]
    assert defaults(sandbox.netns) == [("eth0", "10.11.0.1")]


def test_the_default_route_moves(lan: Machine, defaults: Defaults) -> None:
    pod = lan.pod(networks=[asking("lan", V4, V6)])
    sandbox = lan.sandbox(pod)
    assert written(lan.add(sandbox)) == []
    assert defaults(sandbox.netns) == [("net1", V4), ("net1", V6)]
    assert [s.get("gateway", []) for s in lan.status_of(pod)] == [[], [V4, V6]]
    cached = [json.loads((lan.cni_dir / "results" / name).read_text())["result"] for name in lan.results()]
    assert [result.get("routes", []) for result in cached] == [
        [{"dst": "0.0.0.0/0", "gw": V4}, {"dst": "::/0", "gw": V6}],
        [],
    ]
    lan.check(sandbox)
    lan.delete(sandbox)
    assert lan.is_clean()


def test_an_own_route_is_re_pointed(lan: Machine, defaults: Defaults, ip_json: IpJson) -> None:
    sandbox = lan.sandbox(lan.pod(networks=[asking("own", "10.93.96.77")]))
    lan.add(sandbox)
    assert defaults(sandbox.netns) == [("net1", "10.93.96.77")]  # of a family without a gateway there is none
    assert [r["dev"] for r in ip_json(sandbox.netns, "route", "show", "10.99.0.0/16")] == ["net1"]
    lan.check(sandbox)


def test_an_empty_list_keeps_what_the_plugins_made(lan: Machine, defaults: Defaults) -> None:
    sandbox = lan.sandbox(lan.pod(networks=[asking("own")]))
    lan.add(sandbox)
    assert defaults(sandbox.netns) == [("net1", V4), ("net1", V6)]
    lan.check(sandbox)


def test_other_networks_lose_theirs(lan: Machine, defaults: Defaults) -> None:
    sandbox = lan.sandbox(lan.pod(networks=[{"name": "own"}, asking("lan", V4)]))
    lan.add(sandbox)
    assert defaults(sandbox.netns) == [("net2", V4)]
    lan.check(sandbox)


def test_the_default_network_is_asked_itself(lan: Machine, defaults: Defaults) -> None:
    chosen = json.dumps([{"name": "main", "default-route": ["10.11.0.9"]}])
    sandbox = lan.sandbox(lan.pod(annotations={"v1.multus-cni.io/default-network": chosen}))
    assert written(lan.add(sandbox)) == [("0.0.0.0/0", "10.11.0.9")]
    assert defaults(sandbox.netns) == [("eth0", "10.11.0.9")]
    lan.check(sandbox)


def test_one_gateway_a_family(lan: Machine, defaults: Defaults) -> None:
    sandbox = lan.sandbox(lan.pod(networks=[asking("lan", V4), asking("own", "10.93.96.2")]))
    with pytest.raises(InvalidNetConf, match="expected one IPv4 gateway at most in a pod"):
        lan.add(sandbox)
    assert lan.is_clean()


@pytest.mark.parametrize("last", [False, True])
def test_a_gateway_that_cannot_be_reached(lan: Machine, ip_json: IpJson, last: bool) -> None:
    networks = [{"name": "own"}, asking("lan", "192.0.2.1")]
    sandbox = lan.sandbox(lan.pod(networks=networks if last else networks[::-1]))
    with pytest.raises(KernelRefused, match='network "apps/lan"'):
        lan.add(sandbox)
    assert [link["ifname"] for link in ip_json(sandbox.netns, "link", "show")] == ["lo"]
    assert lan.is_clean()


def test_a_failure_brings_back_a_route_of_somebody_else(lan: Machine, defaults: Defaults) -> None:
    """The interface of a plugin whose DEL leaves it alone, as an outer runtime may own it."""
    lan.foreign(
        "keeping",
        """[ $CNI_COMMAND = ADD ] || exit 0
        inside() { nsenter --net=$CNI_NETNS ip "$@"; }
        inside link add net1 type veth peer name far1; inside link set net1 up; inside link set far1 up
        inside address add 10.55.0.2/24 dev net1; inside route add default via 10.55.0.1 dev net1 metric 7
        echo '{"cniVersion": "1.0.0", "ips": [{"address": "10.55.0.2/24"}]}'""",
    )
    lan.define("apps/kept", {"cniVersion": "1.0.0", "name": "kept", "plugins": [{"type": "keeping"}]})
    sandbox = lan.sandbox(lan.pod(networks=[{"name": "kept"}, asking("lan", "192.0.2.1")]))
    with pytest.raises(CniError, match='network "apps/lan"'):
        lan.add(sandbox)
    assert defaults(sandbox.netns) == [("net1", "10.55.0.1")]
