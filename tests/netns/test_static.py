"""The static plugin behind macvlan on the real kernel: what the runtime asks for is what the interface has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from homeport.cni import netconfs
from homeport.cni.invocations import Attachment
from homeport.cni.netconfs import NetConf
from homeport.cni.versions import encode_result
from homeport.model.errors import Drift, InvalidNetConf
from homeport.plugins import macvlan
from homeport.ports import Shells

if TYPE_CHECKING:
    from tests.netns.conftest import IpJson, KernelState, MakeNetns

pytestmark = pytest.mark.root

CONFIGURED = {"addresses": [{"address": "10.93.97.12/20", "gateway": "10.93.96.1"}], "routes": [{"dst": "0.0.0.0/0"}]}


def conf(**keys: Any) -> NetConf:
    ipam = {"type": "static", **CONFIGURED}
    whole = {"cniVersion": "1.1.0", "name": "n", "type": "macvlan", "master": "eth1", "ipam": ipam, **keys}
    return netconfs.parse(whole)


def attachment(netns: str, **args: str) -> Attachment:
    return Attachment(container_id="c1", ifname="net1", netns_path=netns, args=args)


def addresses(ip_json: IpJson, netns: str) -> list[str]:
    (link,) = (entry for entry in ip_json(netns, "address", "show") if entry["ifname"] == "net1")
    return [f"{a['local']}/{a['prefixlen']}" for a in link["addr_info"] if not a["local"].startswith("fe80")]


SOURCES: list[tuple[dict[str, Any], dict[str, str], list[str], str | None]] = [
    ({}, {}, ["10.93.97.12/20"], "10.93.96.1"),
    ({}, {"IP": "10.93.97.13/20"}, ["10.93.97.12/20", "10.93.97.13/20"], "10.93.96.1"),
    ({}, {"GATEWAY": "10.93.96.9"}, ["10.93.97.12/20"], "10.93.96.9"),
    ({"runtimeConfig": {"ips": ["10.93.97.14/20"]}}, {"IP": "10.93.97.13/20"}, ["10.93.97.14/20"], None),
]


@pytest.mark.parametrize(("keys", "args", "expected", "gateway"), SOURCES)
def test_the_interface_has_what_was_asked_for(
    keys: dict[str, Any],
    args: dict[str, str],
    expected: list[str],
    gateway: str | None,
    shells: Shells,
    netns: MakeNetns,
    ip_json: IpJson,
) -> None:
    pod = netns("pod")
    made = conf(**keys)
    result = encode_result(macvlan.add(made, attachment(pod, **args), shells), "1.1.0")
    assert addresses(ip_json, pod) == expected
    assert [r.get("gateway") for r in ip_json(pod, "-4", "route", "show", "default")] == [gateway]

    checked = netconfs.parse({**made.raw, "prevResult": result})
    macvlan.check(checked, attachment(pod, **args), shells)
    lost = netconfs.parse({**made.raw, "prevResult": {**result, "ips": []}})
    with pytest.raises(Drift, match=r"check addresses in prevResult: found none, expected 10\.93\.97\.1"):
        macvlan.check(lost, attachment(pod, **args), shells)


def test_an_address_without_prefix_leaves_nothing(shells: Shells, netns: MakeNetns, kernel_state: KernelState) -> None:
    pod = netns("pod")
    before = kernel_state(pod)
    with pytest.raises(InvalidNetConf, match=r"CNI_ARGS IP.*expected an address with its prefix"):
        macvlan.add(conf(), attachment(pod, IP="10.93.97.13"), shells)
    assert kernel_state(pod) == before
