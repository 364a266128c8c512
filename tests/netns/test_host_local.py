"""The host-local plugin, every verb, on real files."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from homeport.cni import documents, netconfs
from homeport.cni.invocations import Attachment
from homeport.cni.netconfs import NetConf
from homeport.cni.versions import encode_result
from homeport.model.errors import (
    AddressTaken,
    CniError,
    Drift,
    InvalidNetConf,
    IOFailure,
    PluginNotAvailable,
    PoolExhausted,
    SeveralErrors,
)
from homeport.plugins import host_local
from homeport.ports import Shells

pytestmark = pytest.mark.root

SMALL = {"rangeStart": "10.1.0.10", "rangeEnd": "10.1.0.12"}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "networks" / "net"


def conf(directory: Path, *, name: str = "net", **keys: Any) -> NetConf:
    on_top = ("prevResult", "runtimeConfig", "cni.dev/valid-attachments")
    top: dict[str, Any] = {key: keys.pop(key) for key in on_top if key in keys}
    subnet = {} if "ranges" in keys else {"subnet": "10.1.0.0/24"}
    ipam = {"type": "host-local", "dataDir": str(directory.parent), **subnet, **keys}
    return netconfs.parse({"cniVersion": "1.1.0", "name": name, "type": "macvlan", "ipam": ipam, **top})


def attachment(container_id: str = "c1", ifname: str = "eth0", **args: str) -> Attachment:
    return Attachment(container_id=container_id, ifname=ifname, netns_path="/run/netns/unused", args=args)


def add(found: NetConf, given: Attachment, shells: Shells) -> list[str]:
    return [str(ip.address) for ip in host_local.add(found, given, shells).ips]


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name != "lock"}


def test_add_gives_an_address_of_each_range_set(shells: Shells, directory: Path, tmp_path: Path) -> None:
    (tmp_path / "resolv.conf").write_text("nameserver 10.1.0.53\nsearch example.net\n")
    made = conf(
        directory,
        ranges=[[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64", "gateway": "fd00:1::fe"}]],
        routes=[{"dst": "0.0.0.0/0"}],
        resolvConf=str(tmp_path / "resolv.conf"),
    )
    assert encode_result(host_local.add(made, attachment(), shells), "1.1.0") == {
        "cniVersion": "1.1.0",
        "dns": {"nameservers": ["10.1.0.53"], "search": ["example.net"]},
        "ips": [
            {"address": "10.1.0.2/24", "gateway": "10.1.0.1"},
            {"address": "fd00:1::1/64", "gateway": "fd00:1::fe"},
        ],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    assert files(directory) == {
        "10.1.0.2": b"c1\r\neth0",
        "fd00:1::1": b"c1\r\neth0",
        "last_reserved_ip.0": b"10.1.0.2",
        "last_reserved_ip.1": b"fd00:1::1",
    }


def test_a_container_that_restarts_waits_its_turn(shells: Shells, directory: Path) -> None:
    made = conf(directory, **SMALL)
    for expected in ("10.1.0.10/24", "10.1.0.11/24", "10.1.0.12/24", "10.1.0.10/24"):
        assert add(made, attachment(), shells) == [expected]
        host_local.delete(made, attachment(), shells)


def test_an_exhausted_range_takes_nothing(shells: Shells, directory: Path) -> None:
    made = conf(directory, **SMALL)
    for n in range(3):
        add(made, attachment(f"c{n}"), shells)
    before = files(directory)
    with pytest.raises(PoolExhausted, match=r"10\.1\.0\.10-10\.1\.0\.12 on network \"net\": found no free address"):
        add(made, attachment("c9"), shells)
    assert files(directory) == before


def test_a_range_set_that_is_exhausted_gives_back_the_others_address(shells: Shells, directory: Path) -> None:
    made = conf(directory, ranges=[[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.2.0.0/30"}]])
    assert add(made, attachment("c1"), shells) == ["10.1.0.2/24", "10.2.0.2/30"]
    with pytest.raises(PoolExhausted):
        add(made, attachment("c2"), shells)
    assert sorted(name for name in files(directory) if name.startswith("10.")) == ["10.1.0.2", "10.2.0.2"]


def test_add_twice_is_an_error_and_keeps_the_first_address(shells: Shells, directory: Path) -> None:
    made = conf(directory)
    add(made, attachment(), shells)
    before = files(directory)
    with pytest.raises(AddressTaken, match=r"found 10\.1\.0\.2 allocated to it, expected none"):
        add(made, attachment(), shells)
    assert files(directory) == before
    assert add(made, attachment(ifname="net1"), shells) == ["10.1.0.3/24"]


def test_an_address_that_is_asked_for(shells: Shells, directory: Path) -> None:
    made = conf(directory)
    assert add(made, attachment("c1", IP="10.1.0.77"), shells) == ["10.1.0.77/24"]
    with pytest.raises(AddressTaken, match=r'allocate 10\.1\.0\.77 .*: it is taken by "eth0" of container c1'):
        add(made, attachment("c2", IP="10.1.0.77"), shells)
    assert add(conf(directory, runtimeConfig={"ips": ["10.1.0.5/24"]}), attachment("c3"), shells) == ["10.1.0.5/24"]
    ranges = {"ipRanges": [[{"subnet": "10.7.0.0/24"}]]}
    assert add(conf(directory, runtimeConfig=ranges), attachment("c4"), shells) == ["10.7.0.2/24", "10.1.0.2/24"]


def test_networks_do_not_share_a_directory(shells: Shells, directory: Path) -> None:
    assert add(conf(directory, name="net"), attachment(), shells) == ["10.1.0.2/24"]
    assert add(conf(directory, name="other"), attachment(), shells) == ["10.1.0.2/24"]


@pytest.mark.parametrize(
    ("keys", "error", "text"),
    [
        ({"subnet": "10.1.0.9/24"}, InvalidNetConf, 'key "ipam.subnet": found host bits'),
        ({"resolvConf": "/nonexistent"}, InvalidNetConf, 'key "ipam.resolvConf": found no file at /nonexistent'),
        ({"dataDir": "/dev/null"}, IOFailure, "make directory /dev/null/net: not a directory"),
        ({"dataDir": 5}, InvalidNetConf, 'key "ipam.dataDir": found 5'),
    ],
)
def test_wrong_input(keys: dict[str, Any], error: type[CniError], text: str, shells: Shells, directory: Path) -> None:
    with pytest.raises(error) as raised:
        add(conf(directory, **keys), attachment(), shells)
    assert text in raised.value.msg
    assert not directory.exists()


def test_delete_is_of_one_interface_and_may_be_repeated(shells: Shells, directory: Path) -> None:
    made = conf(directory)
    for given in (attachment("c1"), attachment("c1", "net1"), attachment("c2")):
        add(made, given, shells)
    changed = conf(directory, subnet="10.200.0.0/24")  # what was given is given back, whatever the ranges are by now
    for _ in range(2):
        host_local.delete(changed, attachment("c1"), shells)
        assert sorted(files(directory)) == ["10.1.0.3", "10.1.0.4", "last_reserved_ip.0"]


def test_check(shells: Shells, directory: Path) -> None:
    made = conf(directory, ranges=[[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.2.0.0/24"}]])
    result = encode_result(host_local.add(made, attachment(), shells), "1.1.0")

    def check(given: Attachment, **keys: Any) -> None:
        host_local.check(conf(directory, ranges=made.raw["ipam"]["ranges"], **keys), given, shells)

    check(attachment())
    check(attachment(), prevResult=result)
    with pytest.raises(Drift, match="found none allocated"):
        check(attachment("c11"), prevResult=result)
    with pytest.raises(Drift, match="found none allocated"):
        check(attachment(ifname="net1"), prevResult=result)
    with pytest.raises(Drift, match=r"found 10\.2\.0\.2 allocated, expected one of 10\.1\.0\.2, from prevResult"):
        check(attachment(), prevResult={**result, "ips": result["ips"][:1]})
    (directory / "10.2.0.2").unlink()
    with pytest.raises(Drift, match=r"found 10\.1\.0\.2 allocated, expected an address of 10\.2\.0\.1-10\.2\.0\.254"):
        check(attachment(), prevResult=result)


def test_an_unreadable_file_is_an_error_and_nothing_is_freed_or_given(shells: Shells, directory: Path) -> None:
    made = conf(directory)
    add(made, attachment("c1"), shells)
    (directory / "10.1.0.9").write_bytes(b"\xff")
    before = files(directory)
    valid: dict[str, Any] = {"cni.dev/valid-attachments": []}
    for act in (
        lambda: add(made, attachment("c2"), shells),
        lambda: host_local.check(made, attachment("c1"), shells),
        lambda: host_local.gc(conf(directory, **valid), attachment(), shells),
    ):
        with pytest.raises(IOFailure, match=r"10\.1\.0\.9: found bytes that are no text"):
            act()
    assert files(directory) == before


def test_gc_frees_what_is_not_valid(shells: Shells, directory: Path) -> None:
    made = conf(directory)
    for container_id in ("alive", "dead", "old"):
        add(made, attachment(container_id), shells)
    add(made, attachment("alive", "net1"), shells)
    (directory / "10.1.0.4").write_bytes(b"old")  # of before there were interface names
    (directory / "10.1.0.50").write_bytes(b"gone")
    before = files(directory)

    host_local.gc(made, attachment(), shells)  # nobody said what is valid
    assert files(directory) == before

    valid: dict[str, Any] = {
        "cni.dev/valid-attachments": [{"containerID": name, "ifname": "eth0"} for name in ("alive", "old")]
    }
    host_local.gc(conf(directory, **valid), attachment(), shells)
    assert sorted(name for name in files(directory) if name.startswith("10.")) == ["10.1.0.2", "10.1.0.4"]


def test_gc_leaves_a_file_that_names_nobody_and_says_so(shells: Shells, directory: Path) -> None:
    made = conf(directory)
    add(made, attachment("dead"), shells)
    (directory / "10.1.0.60").touch()
    valid: dict[str, Any] = {"cni.dev/valid-attachments": []}
    with pytest.raises(IOFailure, match=r"collect 10\.1\.0\.60 on .*: found a file without a container ID"):
        host_local.gc(conf(directory, **valid), attachment(), shells)
    assert "10.1.0.60" in files(directory)
    assert "10.1.0.2" not in files(directory)
    (directory / "10.1.0.61").touch()
    with pytest.raises(SeveralErrors):
        host_local.gc(conf(directory, **valid), attachment(), shells)


def test_status(shells: Shells, directory: Path, tmp_path: Path) -> None:
    host_local.status(conf(directory), attachment(), shells)
    with pytest.raises(InvalidNetConf):
        host_local.status(conf(directory, subnet="10.1.0.0/31"), attachment(), shells)
    (tmp_path / "file").touch()
    with pytest.raises(PluginNotAvailable, match="not a directory"):
        host_local.status(conf(tmp_path / "file" / "net"), attachment(), shells)


def test_beside_the_reference_plugin_no_address_is_given_twice(shells: Shells, directory: Path) -> None:
    made = conf(directory)
    env = {"CNI_COMMAND": "ADD", "CNI_NETNS": "/run/netns/unused", "CNI_IFNAME": "eth0", "CNI_PATH": "/"}
    stdin = {**netconfs.wire(made), "cniVersion": "1.0.0"}
    given: list[str] = []
    for n in range(4):
        given += add(made, attachment(f"ours{n}"), shells)
        done = subprocess.run(
            ["/usr/lib/cni/host-local"],
            env={**env, "CNI_CONTAINERID": f"theirs{n}"},
            input=documents.write(stdin),
            capture_output=True,
            check=True,
        )
        given.append(documents.decode(done.stdout, "result")["ips"][0]["address"])
    assert given == [f"10.1.0.{n}/24" for n in range(2, 10)]
