"""One plugin's configuration: what is read, and how each mistake is named."""

from __future__ import annotations

import json
from ipaddress import ip_interface
from typing import Any, Literal

import msgspec
import pytest

from homeport.cni import documents, netconfs
from homeport.cni.netconfs import NetConf
from homeport.model.errors import CniError, DecodeFailure, IncompatibleVersion, InvalidNetConf
from homeport.model.names import AttachmentKey
from homeport.model.results import DNS, IPConfig, Result

RAW: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "net",
    "type": "macvlan",
    "master": "eth1",
    "ipam": {"type": "host-local", "subnet": "10.0.0.0/8"},
    "dns": {"nameservers": ["10.0.0.53"], "search": None},
    "capabilities": {"ips": True},
    "runtimeConfig": {"ips": ["10.0.0.9/8"]},
    "args": {"cni": {"labels": [{"key": "a", "value": "b"}]}, "other": 1},
    "prevResult": {"ips": [{"address": "10.0.0.1/8"}], "vendor": {"kept": True}},
}
PREV = Result(ips=(IPConfig(address=ip_interface("10.0.0.1/8")),))


def encode(raw: object) -> bytes:
    return json.dumps(raw).encode()


def test_every_shared_key() -> None:
    assert netconfs.parse(encode(RAW)) == NetConf(
        cni_version="1.1.0",
        name="net",
        type="macvlan",
        raw=RAW,
        prev_result=PREV,
        ipam={"type": "host-local", "subnet": "10.0.0.0/8"},
        dns=DNS(nameservers=("10.0.0.53",)),
        runtime_config={"ips": ["10.0.0.9/8"]},
        args={"labels": [{"key": "a", "value": "b"}]},
        capabilities={"ips": True},
    )


def test_decoded_types_give_the_same_as_bytes() -> None:
    assert netconfs.parse(RAW) == netconfs.parse(encode(RAW))


def test_the_least_there_can_be() -> None:
    conf = netconfs.parse(b'{"name":"n","type":"t"}')
    assert conf == NetConf(cni_version="0.1.0", name="n", type="t", raw={"name": "n", "type": "t"})


@pytest.mark.parametrize("ipam", [None, {}])
def test_no_ipam_has_three_spellings(ipam: object) -> None:
    assert netconfs.parse({"name": "n", "type": "t", "ipam": ipam}).ipam is None


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        ({"name": ""}, 7, 'key "name": missing'),
        ({"name": "../x"}, 7, 'key "name": found "../x", expected a letter or digit'),
        ({"name": 5}, 7, 'key "name": found 5, expected str'),
        ({"type": ""}, 7, 'key "type": missing'),
        ({"type": "../../bin/sh"}, 7, 'key "type": found "../../bin/sh", expected the name of a plugin, not a path'),
        ({"type": ".."}, 7, 'key "type"'),
        ({"ipam": {"type": "a/b"}}, 7, 'key "ipam.type": found "a/b"'),
        ({"ipam": {"type": 5}}, 7, 'key "ipam.type": found 5, expected a string'),
        ({"ipam": []}, 7, 'key "ipam": found [], expected object'),
        ({"cniVersion": "9.0.0"}, 1, 'cniVersion: found "9.0.0", expected one of 0.1.0'),
        ({"cniVersion": 1.1}, 7, 'key "cniVersion": found 1.1, expected str'),
        ({"dns": {"nameservers": "10.0.0.1"}}, 7, 'key "dns.nameservers": found "10.0.0.1", expected array'),
        ({"capabilities": {"ips": "yes"}}, 7, 'key "capabilities[...]"'),
        ({"runtimeConfig": 1}, 7, 'key "runtimeConfig": found 1, expected object'),
        ({"args": {"cni": 1}}, 7, 'key "args.cni": found 1, expected object'),
        ({"prevResult": []}, 7, 'key "prevResult": found [], expected object'),
        ({"prevResult": {"cniVersion": "0.4.0"}}, 7, 'key "prevResult.cniVersion": found "0.4.0", expected the conf'),
        ({"prevResult": {"cniVersion": 4}}, 7, 'key "prevResult.cniVersion": found 4'),
        ({"prevResult": {"ips": [{"address": "x"}]}}, 7, 'key "prevResult.ips[0].address": found "x"'),
    ],
)
def test_each_mistake_names_its_key(change: dict[str, Any], code: int, text: str) -> None:
    with pytest.raises(CniError) as caught:
        netconfs.parse(encode({**RAW, **change}))
    assert caught.value.code == code
    assert text in caught.value.msg


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"", "found nothing, expected a JSON object"),
        (b" \n", "found nothing"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b'{"name": "\xff"}', "not JSON"),
        (b'{"name": "n"} trailing', "not JSON"),
        (b'{"a": NaN}', "not JSON"),
        (b"[]", "found [], expected a JSON object"),
        (b'"text"', 'found "text", expected a JSON object'),
        (b"null", "found null, expected a JSON object"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a":' * 120 + b"1" + b"}" * 120, "nested too deeply, expected at most 100 levels"),
        (b" " * (documents.MAX_BYTES + 1), "expected at most 16777216"),
    ],
)
def test_what_is_no_configuration_at_all(raw: bytes, text: str) -> None:
    with pytest.raises(DecodeFailure) as caught:
        netconfs.parse(raw)
    assert caught.value.code == 6
    assert text in caught.value.msg


@pytest.mark.parametrize(
    ("version", "own", "accepted"),
    [
        ("1.0.0", "1.1.0", True),
        ("1.1.0", "1.0.0", True),
        ("0.4.0", "0.3.0", True),
        ("0.3.1", "0.4.0", True),
        ("0.4.0", "1.0.0", False),
        ("1.0.0", "0.2.0", False),
        ("0.4.0", "7", False),
    ],
)
def test_prev_result_is_of_the_configurations_family(version: str, own: str, accepted: bool) -> None:
    raw = {"cniVersion": version, "name": "n", "type": "t", "prevResult": {"cniVersion": own}}
    if accepted:
        assert netconfs.parse(raw).prev_result == Result()
    else:
        with pytest.raises(InvalidNetConf, match=r"prevResult\.cniVersion"):
            netconfs.parse(raw)


@pytest.mark.parametrize(
    ("command", "version", "exists"),
    [
        ("ADD", "0.1.0", True),
        ("DEL", "0.1.0", True),
        ("CHECK", "0.3.1", False),
        ("CHECK", "0.4.0", True),
        ("STATUS", "1.0.0", False),
        ("STATUS", "1.1.0", True),
        ("GC", "1.0.0", False),
    ],
)
def test_verbs_exist_since(command: Any, version: str, exists: bool) -> None:
    raw = {"cniVersion": version, "name": "n", "type": "t"}
    if exists:
        netconfs.parse(raw, command=command)
    else:
        with pytest.raises(IncompatibleVersion, match=f"{command}: found cniVersion"):
            netconfs.parse(raw, command=command)


GC = {"cniVersion": "1.1.0", "name": "net", "type": "t"}
ITEM = {"containerID": "c1", "ifname": "eth0"}


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ({"cni.dev/valid-attachments": [ITEM]}, {"c1"}),
        ({"cni.dev/attachments": [ITEM]}, {"c1"}),
        ({"cni.dev/valid-attachments": [ITEM], "cni.dev/attachments": [{**ITEM, "containerID": "c2"}]}, {"c1", "c2"}),
        ({"cni.dev/valid-attachments": []}, set()),
        ({"cni.dev/valid-attachments": None, "cni.dev/attachments": None}, set()),
    ],
)
def test_valid_attachments_in_both_spellings(keys: dict[str, Any], found: set[str]) -> None:
    conf = netconfs.parse({**GC, **keys}, command="GC")
    assert conf.valid_attachments == frozenset(AttachmentKey("net", c, "eth0") for c in found)


def test_gc_without_its_list_would_collect_everything() -> None:
    with pytest.raises(InvalidNetConf, match=r'key "cni\.dev/valid-attachments": missing'):
        netconfs.parse(GC, command="GC")


@pytest.mark.parametrize("items", [{}, "x", [1], [{"ifname": "eth0"}], [{**ITEM, "ifname": 0}], 0])
def test_a_list_of_valid_attachments_that_is_none_frees_nothing(items: object) -> None:
    with pytest.raises(InvalidNetConf, match=r"cni\.dev/valid-attachments"):
        netconfs.parse({**GC, "cni.dev/valid-attachments": items}, command="GC")


class Keys(msgspec.Struct, frozen=True, rename="camel"):
    mtu: int = 0
    mode: Literal["bridge", "vepa"] = "bridge"
    link_in_container: bool = False
    bc_queue_len: int = msgspec.field(name="bcqueuelen", default=0)
    ranges: list[list[dict[str, int]]] = []


def test_a_plugins_own_keys() -> None:
    raw: dict[str, Any] = {"mtu": 1400, "linkInContainer": True, "bcqueuelen": 5, "mode": None, "unknown": {}}
    assert netconfs.decode_keys(raw, Keys) == Keys(mtu=1400, link_in_container=True, bc_queue_len=5)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ({"mtu": "big"}, 'key "mtu": found "big", expected int'),
        ({"mtu": True}, 'key "mtu": found true, expected int'),
        ({"mode": "source"}, 'key "mode": found "source", expected one of "bridge", "vepa"'),
        ({"linkInContainer": "yes"}, 'key "linkInContainer": found "yes", expected bool'),
        ({"ranges": [[{}], 5]}, 'key "ranges[1]": found 5, expected array'),
        ({"mtu": "x" * 500}, 'found "' + "x" * 79 + "..., expected int"),
    ],
)
def test_a_plugins_own_mistakes(raw: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidNetConf) as caught:
        netconfs.decode_keys(raw, Keys)
    assert text in caught.value.msg


def test_another_prev_result_replaces_that_in_raw() -> None:
    conf = netconfs.with_prev_result(netconfs.parse(RAW), Result())
    assert conf.prev_result == Result()
    assert netconfs.wire(conf)["prevResult"] == {"cniVersion": "1.1.0"}


def test_a_configuration_goes_on_as_it_came() -> None:
    assert netconfs.wire(netconfs.parse(RAW)) is RAW
