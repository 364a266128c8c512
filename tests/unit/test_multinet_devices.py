"""Devices: which network gets which, what its plugins are told, and the files they are described in."""

from __future__ import annotations

import json
from typing import Any

import pytest

from homeport.cni import conflists
from homeport.model.errors import CniError, DecodeFailure
from homeport.multinet import devices
from homeport.multinet.statuses import NetworkStatus, text

VF = "intel.com/sriov"


@pytest.mark.parametrize(
    ("resources", "given", "assigned"),
    [
        ([], {VF: ["a"]}, ()),
        (["", ""], {VF: ["a"]}, ("", "")),
        ([VF, "", VF], {VF: ["a", "b"]}, ("a", "", "b")),
        ([VF, VF], {VF: ["a"]}, ("a", "")),  # exhausted: goes without
        ([VF], {}, ("",)),  # a resource that counts something else, such as bridges
        ([VF, "x/y", VF], {VF: ["a", "b"], "x/y": ["c"]}, ("a", "c", "b")),
    ],
)
def test_the_nth_network_of_a_resource_gets_its_nth_device(
    resources: list[str], given: dict[str, list[str]], assigned: tuple[str, ...]
) -> None:
    assert devices.assign(resources, given) == assigned


def test_every_plugin_is_told_under_both_keys() -> None:
    network = conflists.parse({"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "sriov"}, {"type": "tuning"}]})
    told = devices.with_device(network, "0000:00:01.0")
    both = {"deviceID": "0000:00:01.0", "pciBusID": "0000:00:01.0"}
    assert [dict(plugin) for plugin in told.plugins] == [{"type": "sriov", **both}, {"type": "tuning", **both}]
    assert json.loads(told.raw)["plugins"] == list(told.plugins)


def test_the_files_are_where_device_plugins_and_others_expect_them() -> None:
    assert devices.device_plugin_file("intel.com/sriov", "0000:00:01.0") == (
        "/var/run/k8s.cni.cncf.io/devinfo/dp/intel.com-sriov-0000:00:01.0-device.json"
    )
    assert devices.attachment_file("pods/net", "c1", "net1") == "/var/run/k8s.cni.cncf.io/devinfo/cni/pods-net-c1_net1"


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ({}, {}),
        (
            {"pci": {"vhost-net": "/v", "pci-address": "0"}, "version": "1.1.0", "type": "pci", "colour": "red"},
            {"type": "pci", "version": "1.1.0", "pci": {"pci-address": "0", "vhost-net": "/v"}},
        ),
        (
            {
                "vdpa": {"path": "p", "parent-device": "d", "driver": "vhost", "representor-device": "r"},
                "type": "vdpa",
            },
            {
                "type": "vdpa",
                "vdpa": {"parent-device": "d", "driver": "vhost", "path": "p", "representor-device": "r"},
            },
        ),
        ({"vhost-user": {"path": "p", "mode": "client"}}, {"vhost-user": {"mode": "client", "path": "p"}}),
        ({"memif": {"mode": "ip", "role": "slave", "path": ""}}, {"memif": {"role": "slave", "mode": "ip"}}),
        ({"pci": {"pf-pci-address": "1", "rdma-device": "r"}}, {"pci": {"rdma-device": "r", "pf-pci-address": "1"}}),
    ],
)
def test_a_description_is_told_in_the_field_s_order(written: dict[str, Any], told: dict[str, Any]) -> None:
    info = devices.decode_info(json.dumps(written).encode(), "device")
    assert json.dumps(info) == json.dumps(told)
    (entry,) = json.loads(text([NetworkStatus(name="n", device_info=info)]))
    assert entry["device-info"] == told


@pytest.mark.parametrize("contents", [b"", b"[]", b"{", b'{"type":1}', b'{"pci":[]}'])
def test_a_description_that_cannot_be_read(contents: bytes) -> None:
    with pytest.raises(CniError) as caught:
        devices.decode_info(contents, "device description /x")
    assert isinstance(caught.value, DecodeFailure)
    assert "/x" in caught.value.msg
