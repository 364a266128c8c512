"""The loopback plugin on the real kernel, every verb."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from homeport.cni import netconfs
from homeport.cni.invocations import Attachment
from homeport.cni.netconfs import NetConf
from homeport.cni.versions import encode_result
from homeport.model.errors import Drift, InvalidNetns
from homeport.plugins import loopback
from homeport.ports import Shells

if TYPE_CHECKING:
    from tests.netns.conftest import IpJson, MakeNetns

pytestmark = pytest.mark.root

OTHERS = {"cniVersion": "1.1.0", "interfaces": [{"name": "eth0"}], "ips": [{"address": "10.1.0.2/24", "interface": 0}]}


def conf(**keys: Any) -> NetConf:
    return netconfs.parse({"cniVersion": "1.1.0", "name": "lo", "type": "loopback", **keys})


def attachment(netns: str | None) -> Attachment:
    return Attachment(container_id="c1", ifname="ignored", netns_path=netns)


def is_up(ip_json: IpJson, netns: str) -> bool:
    (link,) = ip_json(netns, "link", "show", "lo")
    return "UP" in link["flags"]


def test_add_sets_lo_up_and_reports_its_addresses(shells: Shells, netns: MakeNetns, ip_json: IpJson) -> None:
    pod = netns("pod")
    result = loopback.add(conf(), attachment(pod), shells)
    assert is_up(ip_json, pod)
    assert encode_result(result, "1.1.0") == {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "lo", "mac": "00:00:00:00:00:00", "sandbox": pod}],
        "ips": [{"interface": 0, "address": "127.0.0.1/8"}, {"interface": 0, "address": "::1/128"}],
    }
    loopback.add(conf(), attachment(pod), shells)  # lo is there from the start, so again is no error


def test_add_passes_prev_result_on(shells: Shells, netns: MakeNetns, ip_json: IpJson) -> None:
    pod = netns("pod")
    result = loopback.add(conf(prevResult=OTHERS), attachment(pod), shells)
    assert encode_result(result, "1.1.0") == OTHERS
    assert is_up(ip_json, pod)


def test_a_failing_chain_leaves_lo_down(shells: Shells, netns: MakeNetns, ip_json: IpJson) -> None:
    pod = netns("pod")

    def add_and_fail() -> None:
        with shells.host.operation():
            loopback.add(conf(), attachment(pod), shells)
            raise InvalidNetns("a later plugin of the chain")

    with pytest.raises(InvalidNetns):
        add_and_fail()
    assert not is_up(ip_json, pod)


def test_add_without_a_namespace(shells: Shells) -> None:
    with pytest.raises(InvalidNetns, match="/run/netns/vanished"):
        loopback.add(conf(), attachment("/run/netns/vanished"), shells)
    with pytest.raises(InvalidNetns, match="CNI_NETNS: missing"):
        loopback.add(conf(), attachment(None), shells)


def test_delete_sets_lo_down_and_may_be_repeated(
    shells: Shells, netns: MakeNetns, ip_json: IpJson, tmp_path: Path
) -> None:
    pod = netns("pod")
    loopback.add(conf(), attachment(pod), shells)
    for _ in range(2):
        loopback.delete(conf(), attachment(pod), shells)
        assert not is_up(ip_json, pod)
    (tmp_path / "stale").touch()
    for gone in (None, "/run/netns/vanished", str(tmp_path / "stale")):
        loopback.delete(conf(), attachment(gone), shells)


def test_check(shells: Shells, netns: MakeNetns) -> None:
    pod = netns("pod")
    with pytest.raises(Drift, match="found it down, expected up"):
        loopback.check(conf(), attachment(pod), shells)
    made = encode_result(loopback.add(conf(), attachment(pod), shells), "1.1.0")
    for prev_result in (made, OTHERS):
        loopback.check(conf(prevResult=prev_result), attachment(pod), shells)
    subprocess.run(["ip", "-n", Path(pod).name, "address", "delete", "127.0.0.1/8", "dev", "lo"], check=True)
    with pytest.raises(Drift, match=r"expected 127\.0\.0\.1/8 among them"):
        loopback.check(conf(prevResult=made), attachment(pod), shells)
    subprocess.run(["ip", "netns", "delete", Path(pod).name], check=True)
    with pytest.raises(Drift, match="found no network namespace"):
        loopback.check(conf(prevResult=made), attachment(pod), shells)


def test_gc_and_status(shells: Shells) -> None:
    loopback.gc(conf(), attachment(None), shells)
    loopback.status(conf(), attachment(None), shells)
