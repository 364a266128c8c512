"""What the kubelet says about devices, by socket and by file, as values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeport.devices import checkpoints, messages, podresources
from homeport.devices.messages import Reader
from homeport.model.errors import CniError, DecodeFailure, TryAgainLater
from homeport.model.names import PodRef

POD = PodRef("prod", "web-0")


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number: int, contents: bytes | str) -> bytes:
    raw = contents.encode() if isinstance(contents, str) else contents
    return varint(number << 3 | 2) + varint(len(raw)) + raw


def number(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)


def container(
    devices: Mapping[str, list[str]] = {},
    claims: Mapping[str, list[str]] = {},
) -> bytes:
    """ContainerResources, with all that the real one has beside: name, cpu_ids, memory, topology, driver names."""
    out = field(1, "app") + number(3, 7) + field(3, b"\x01\x02") + field(4, field(1, "hugepages") + number(2, 2**63))
    for resource, ids in devices.items():
        topology = field(3, field(1, number(1, 2**64 - 1)))
        out += field(2, field(1, resource) + b"".join(field(2, i) for i in ids) + topology)
    for claim, names in claims.items():
        resources = b"".join(field(4, field(1, field(1, n)) + field(2, "driver") + field(3, "pool")) for n in names)
        out += field(5, field(1, "class") + field(2, claim) + field(3, "prod") + resources)
    return out


def pod(name: str, namespace: str, *containers: bytes) -> bytes:
    inner = field(1, name) + field(2, namespace) + b"".join(field(3, c) for c in containers)
    return field(1, inner + number(4, 3))


def test_bytes_as_protoc_writes_them() -> None:
    """ListPodResourcesResponse{pod_resources: [{name: "web-0", namespace: "prod", containers: [{name: "a", devices:
    [{resource_name: "x/y", device_ids: ["0000:01"]}]}]}]}, encoded by protoc.
    """
    encoded = bytes.fromhex(
        "0a24" "0a057765622d30" "120470726f64" "1a15" "0a0161" "1210" "0a03782f79" "1207303030303a3031" "1a00"
    )  # fmt: skip
    assert podresources.devices_of(encoded, POD) == {"x/y": ("0000:01",)}


def test_ids_are_sorted_and_each_is_there_once() -> None:
    """An init container's devices are taken over by another container of the pod."""
    reply = (
        pod("web-0", "other", container({"x/a": ["wrong"]}))
        + pod("web-1", "prod", container({"x/a": ["wrong"]}))
        + pod(
            "web-0", "prod", container({"x/a": ["3", "1"], "x/b": ["b"]}), container({"x/a": ["2", "1"]}), container()
        )
    )
    assert podresources.devices_of(reply, POD) == {"x/a": ("1", "2", "3"), "x/b": ("b",)}


def test_dynamic_resources_by_claim() -> None:
    reply = pod("web-0", "prod", container({}, {"nics": ["v.com/net=eth7", "v.com/net=eth3"], "empty": []}))
    assert podresources.devices_of(reply, POD) == {"nics": ("eth3", "eth7")}


@pytest.mark.parametrize("name", ["v.com/net", "=eth0", "v.com/net=", "a=b=c", ""])
def test_a_cdi_name_that_is_none(name: str) -> None:
    with pytest.raises(DecodeFailure, match="decode CDI device name: found"):
        podresources.devices_of(pod("web-0", "prod", container({}, {"nics": [name]})), POD)


def test_no_devices_and_not_listed_are_two_answers() -> None:
    assert podresources.devices_of(pod("web-0", "prod", container()), POD) == {}
    assert podresources.devices_of(pod("web-1", "prod", container()), POD) is None
    assert podresources.devices_of(b"", POD) is None


def test_two_pods_of_one_name_cannot_be_told_apart() -> None:
    twice = pod("web-0", "prod", container({"x/a": ["1"]})) + pod("web-0", "prod", container({"x/a": ["2"]}))
    with pytest.raises(TryAgainLater, match="still has an earlier pod"):
        podresources.devices_of(twice, POD)


BROKEN = [
    (b"\x0a", "a number without end"),
    (b"\x0a\x05ab", "found 2 bytes, expected 5"),
    (b"\x09\x00\x00", "found 2 bytes, expected 8"),
    (b"\x0d\x00", "found 1 bytes, expected 4"),
    (b"\xff" * 11, "a number without end"),
    (b"\x02\x00", "field number 0"),
    (b"\x0b", "wire type 3"),
    (b"\x0f", "wire type 7"),
    (field(1, field(1, b"\xff")), "not UTF-8"),
    (field(1, b"\x0a\xff\xff\xff\xff\x0f"), "expected 4294967295"),
]


@pytest.mark.parametrize(("reply", "problem"), BROKEN)
def test_broken_replies(reply: bytes, problem: str) -> None:
    with pytest.raises(DecodeFailure, match=problem):
        podresources.devices_of(reply, POD)


def test_the_number_of_fields_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "MAX_FIELDS", 1000)
    with pytest.raises(DecodeFailure, match="more than 1000 fields"):
        podresources.devices_of(field(1, b"") * 1001, POD)
    with pytest.raises(DecodeFailure, match="more than 1000 fields"):
        podresources.devices_of(pod("web-0", "prod", *[container()] * 300), POD)


VALUES = st.dictionaries(st.text(min_size=1), st.lists(st.text(min_size=1), unique=True, max_size=5), max_size=4)


@given(st.lists(VALUES, max_size=4))
def test_what_was_encoded_is_found(containers: list[dict[str, list[str]]]) -> None:
    expected: dict[str, set[str]] = {}
    for devices in containers:
        for resource, ids in devices.items():
            expected.setdefault(resource, set()).update(ids)
    found = podresources.devices_of(pod("web-0", "prod", *map(container, containers)), POD)
    assert found == {resource: tuple(sorted(ids)) for resource, ids in expected.items() if ids}


@given(st.binary(max_size=300))
def test_any_bytes_end_in_an_answer_or_our_error(reply: bytes) -> None:
    try:
        podresources.devices_of(reply, POD)
    except CniError:
        return


@given(st.data())
def test_a_damaged_reply_ends_in_an_answer_or_our_error(data: st.DataObject) -> None:
    whole = bytearray(pod("web-0", "prod", container({"x/a": ["1", "2"]}, {"c": ["v/c=d"]})))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    try:
        podresources.devices_of(cut, POD)
    except CniError:
        return


@given(st.binary(max_size=100))
def test_a_reader_stays_within_the_message(message: bytes) -> None:
    try:
        found = list(Reader("it").fields(memoryview(message)))
    except DecodeFailure:
        return
    assert sum(len(contents) + 2 for _, contents in found) <= len(message)


def checkpoint(*entries: Any) -> bytes:
    return json.dumps({"Data": {"PodDeviceEntries": list(entries), "RegisteredDevices": {}}, "Checksum": 1}).encode()


def entry(uid: str, resource: str, ids: Any, name: str = "c") -> dict[str, Any]:
    return {"PodUID": uid, "ContainerName": name, "ResourceName": resource, "DeviceIDs": ids, "AllocResp": "Cg=="}


def test_a_checkpoint_of_both_ages() -> None:
    contents = checkpoint(
        entry("u1", "x/a", {"0": ["b"], "-1": ["a"]}),
        entry("u1", "x/a", {"1": ["c", "a"]}, "init"),
        entry("u1", "x/b", ["2", "1"]),
        entry("u1", "x/none", None),
        entry("u2", "x/a", {"0": ["z"]}),
    )
    assert checkpoints.devices_of(contents, "u1") == {"x/a": ("a", "b", "c"), "x/b": ("1", "2")}
    assert checkpoints.devices_of(contents, "u3") == {}


def test_an_empty_checkpoint() -> None:
    assert checkpoints.devices_of(b'{"Data":{"PodDeviceEntries":null,"RegisteredDevices":{}},"Checksum":0}', "u") == {}


@pytest.mark.parametrize(
    "contents",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"Data":[]}',
        checkpoint("x"),
        checkpoint(entry("u1", "x/a", "a")),
        checkpoint(entry("u1", "x/a", {"0": "a"})),
        checkpoint(entry("u1", "x/a", [1])),
        checkpoint(entry("u2", "x/a", [1])),  # even in another pod's entry: the file is broken
    ],
)
def test_a_broken_checkpoint_is_not_an_empty_one(contents: bytes) -> None:
    with pytest.raises(DecodeFailure):
        checkpoints.devices_of(contents, "u1")
