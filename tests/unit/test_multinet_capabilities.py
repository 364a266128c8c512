"""Which requests of a pod some plugin of the network can honour."""

from __future__ import annotations

import inspect
import json
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import pytest

from homeport.cni import conflists
from homeport.cni.conflists import ConfList
from homeport.model.errors import InvalidNetConf
from homeport.multinet import capabilities, selections
from homeport.multinet.selections import NetworkSelection
from homeport.plugins.registry import MODULES

IPS = {"ips": ["10.0.0.9/24"]}
MAC = {"mac": "02:00:00:00:00:01"}
PORTS = {"portMappings": [{"hostPort": 80, "containerPort": 80}]}
RATE = {"bandwidth": {"ingressRate": 1}}
GUID = {"infiniband-guid": "c2:11:22:33:44:55:66:77"}
DEVICE = {"deviceID": "0000:00:01.0"}


def select(**keys: Any) -> NetworkSelection:
    return selections.parse(json.dumps([{"name": "net", **keys}]), "pods")[0]


def network(*plugins: dict[str, Any]) -> ConfList:
    return conflists.parse({"cniVersion": "1.0.0", "name": "net", "plugins": list(plugins)})


def plugin(kind: str, ipam: str = "", *declared: str, **keys: Any) -> dict[str, Any]:
    whole = {"type": kind, **keys}
    if ipam:
        whole["ipam"] = {"type": ipam}
    return {**whole, "capabilities": dict.fromkeys(declared, True)} if declared else whole


@pytest.mark.parametrize(
    ("plugins", "asked", "missing"),
    [
        # nothing asked, nothing missing
        ([plugin("ipvlan")], {}, ()),
        ([plugin("ipvlan")], {"ips": [], "portMappings": []}, ()),
        ([plugin("ipvlan")], {"cni-args": {"x": 1}, "default-route": ["10.0.0.1"], "interface": "a"}, ()),
        # declared, by any plugin of the network
        ([plugin("ipvlan", "dhcp", "ips")], IPS, ()),
        ([plugin("ipvlan"), plugin("sbr", "", "ips")], IPS, ()),
        ([plugin("bridge"), plugin("portmap", "", "portMappings")], PORTS, ()),
        ([plugin("bridge"), plugin("bandwidth", "", "bandwidth")], RATE, ()),
        ([plugin("ib-sriov", "", "infinibandGUID")], GUID, ()),
        ([plugin("host-device", "", "deviceID")], DEVICE, ()),
        # read from CNI_ARGS without declaring anything
        *(([plugin("ipvlan", ipam)], IPS, ()) for ipam in ("host-local", "static", "whereabouts")),
        *(([plugin(kind)], MAC, ()) for kind in ("bridge", "macvlan", "tap")),
        ([plugin("ipvlan"), plugin("tuning")], MAC, ()),
        *(([plugin(kind)], MAC, ()) for kind in ("sriov", "ovs", "macvtap", "cnv-bridge", "accelerated-bridge")),
        # read from the pod's annotation
        *(([plugin(kind)], {**IPS, **MAC}, ()) for kind in ("ovn-k8s-cni-overlay", "kube-ovn")),
        ([plugin("macvlan", "kube-ovn")], IPS, ()),
        ([plugin("ovn-k8s-cni-overlay")], {**PORTS, **RATE}, ("portMappings", "bandwidth")),
        # a plugin nobody knows has to declare what it takes
        ([plugin("our-own")], {**IPS, **MAC}, ("ips", "mac")),
        ([plugin("our-own", "", "ips", "mac")], {**IPS, **MAC}, ()),
        ([plugin("ipvlan", "our-own-ipam")], IPS, ("ips",)),
        # by none
        ([plugin("ipvlan", "dhcp")], IPS, ("ips",)),
        ([plugin("macvlan")], IPS, ("ips",)),
        ([plugin("ipvlan", "whereabouts")], MAC, ("mac",)),
        ([plugin("ipvlan", "whereabouts"), plugin("sbr")], {**IPS, **MAC}, ("mac",)),
        ([plugin("bridge", "host-local")], {**PORTS, **RATE}, ("portMappings", "bandwidth")),
        ([plugin("macvlan")], GUID, ("infinibandGUID",)),
        ([plugin("macvlan")], DEVICE, ("deviceID",)),
        # declared is declared true
        ([plugin("ipvlan", "dhcp", capabilities={"ips": False})], IPS, ("ips",)),
        ([plugin("ipvlan", "dhcp", capabilities={"mac": True})], IPS, ("ips",)),
        ([plugin("ipvlan", capabilities="ips")], IPS, ("ips",)),
    ],
)
def test_requests_that_no_plugin_can_honour(
    plugins: list[dict[str, Any]], asked: dict[str, Any], missing: tuple[str, ...]
) -> None:
    assert capabilities.unhonoured(network(*plugins), select(**asked)) == missing


def test_the_error_names_the_network_the_request_and_what_is_to_be_declared() -> None:
    asked = select(**IPS, **GUID)
    with pytest.raises(InvalidNetConf) as caught:
        capabilities.require_honoured("pods/net", network(plugin("ipvlan", "dhcp"), plugin("sbr")), asked)
    assert caught.value.msg == (
        'attach network "pods/net": found a request for "ips", "infiniband-guid", '
        'expected a plugin of it to declare "capabilities": {"ips": true, "infinibandGUID": true}'
    )
    assert "its plugins are ipvlan, sbr" in caught.value.details
    assert "unhonouredRequests: Ignore" in caught.value.details


@pytest.mark.parametrize("kind", sorted(MODULES))
def test_what_is_said_of_our_own_plugins_is_so(kind: str) -> None:
    """Those that read CNI_ARGS do it by these names, somewhere in their module."""
    module = import_module(MODULES[kind])
    parts = [f"{module.__name__}.{part.name}" for part in iter_modules(getattr(module, "__path__", ()))]
    parts += ["homeport.plugins.whereabouts_conf"] if kind == "whereabouts" else []
    source = "".join(inspect.getsource(part) for part in (module, *map(import_module, parts)))
    assert ('args.get("IP"' in source) == (kind in capabilities.READING_IP)
    assert ('args.get("MAC"' in source) == (kind in capabilities.READING_MAC)
