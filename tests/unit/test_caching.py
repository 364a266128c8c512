"""The result cache: libcni's path and format, and what unreadable entries mean."""

from __future__ import annotations

import base64
import json
import os
import stat
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import pytest

from homeport.cni import versions
from homeport.model.errors import DecodeFailure, InvalidEnvironment, IOFailure
from homeport.model.names import AttachmentKey
from homeport.model.results import IPConfig, Result
from homeport.runtime.caching import CachedAttachment, ResultCache

KEY = AttachmentKey("net", "c1", "eth0")
RESULT = Result(ips=(IPConfig(address=ip_interface("10.0.0.9/24")),))
ENTRY = CachedAttachment(
    key=KEY,
    result=versions.encode_result(RESULT, "1.0.0"),
    netns_path="/run/netns/a",
    args={"IgnoreUnknown": "1", "K8S_POD_NAME": "web-0"},
    capability_args={"ips": ["10.0.0.9/24"]},
    config=b'{"name":"net"}',
)
# As libcni 1.1.2 writes it for cnitool.
LIBCNI = (
    '{"kind":"cniCacheV1","containerId":"c1","config":"eyJuYW1lIjoibmV0In0=","ifName":"eth0","networkName":"net",'
    '"netns":"/run/netns/a","cniArgs":[["IgnoreUnknown","1"],["K8S_POD_NAME","web-0"]],'
    '"capabilityArgs":{"ips":["10.0.0.9/24"]},"result":{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.9/24"}]}}'
)


def put(cache: ResultCache, name: str, contents: str) -> Path:
    cache.directory.mkdir(parents=True, exist_ok=True)
    path = cache.directory / name
    path.write_text(contents)
    return path


def test_the_file_is_libcnis_own(tmp_path: Path) -> None:
    cache = ResultCache(tmp_path / "cni")
    cache.save(ENTRY)
    file = tmp_path / "cni" / "results" / "net-c1-eth0"
    assert file.read_text() == LIBCNI
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_what_libcni_wrote_is_read(tmp_path: Path) -> None:
    cache = ResultCache(tmp_path)
    put(cache, "net-c1-eth0", LIBCNI)
    entry = cache.load(KEY)
    assert entry == ENTRY
    assert entry.decoded_result("1.0.0") == RESULT


def test_least_entry_has_libcnis_keys(tmp_path: Path) -> None:
    cache = ResultCache(tmp_path)
    cache.save(CachedAttachment(key=KEY, result={"cniVersion": "1.0.0"}, config=b"{}"))
    assert list(json.loads(cache.path(KEY).read_bytes())) == [
        "kind",
        "containerId",
        "config",
        "ifName",
        "networkName",
        "result",
    ]


def test_a_bare_result_of_an_old_runtime(tmp_path: Path) -> None:
    cache = ResultCache(tmp_path)
    put(cache, "net-c1-eth0", '{"cniVersion":"0.4.0","ips":[{"version":"4","address":"10.0.0.9/24"}],"dns":{}}')
    entry = cache.load(KEY)
    assert entry is not None
    assert entry.decoded_result("0.4.0") == RESULT
    assert cache.attachments("net") == ((), ()), "its name alone does not say whose it is"


def test_absent_is_none_and_forgetting_is_idempotent(tmp_path: Path) -> None:
    cache = ResultCache(tmp_path / "missing")
    assert cache.load(KEY) is None
    assert cache.attachments("net") == ((), ())
    cache.forget(KEY)
    cache.save(ENTRY)
    cache.forget(KEY)
    assert cache.load(KEY) is None
    assert os.listdir(cache.directory) == []


@pytest.mark.parametrize(
    "contents",
    [
        "",
        "{",
        "[]",
        '{"kind":"cniCacheV1"}',
        LIBCNI.replace("eyJ", "***"),
        LIBCNI.replace('"c1"', '"c2"'),
        LIBCNI.replace('[["IgnoreUnknown","1"]', '[["IgnoreUnknown"]'),
    ],
)
def test_an_entry_that_cannot_be_read_is_not_absent(tmp_path: Path, contents: str) -> None:
    cache = ResultCache(tmp_path)
    path = put(cache, "net-c1-eth0", contents)
    with pytest.raises(DecodeFailure, match=f"decode cached result {path}: "):
        cache.load(KEY)


def test_an_entry_that_is_a_directory(tmp_path: Path) -> None:
    cache = ResultCache(tmp_path)
    cache.path(KEY).mkdir(parents=True)
    with pytest.raises(IOFailure, match=r"read .*Is a directory"):
        cache.load(KEY)
    with pytest.raises(IOFailure, match="remove "):
        cache.forget(KEY)
    with pytest.raises(IOFailure, match="save result of container"):
        cache.save(ENTRY)
    assert os.listdir(cache.directory) == ["net-c1-eth0"], "no temporary file stays"


def test_a_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    cache = ResultCache(tmp_path)
    assert cache.load(KEY) is None
    cache.forget(KEY)
    with pytest.raises(IOFailure, match="save result"):
        cache.save(ENTRY)


def test_names_cannot_leave_the_directory(tmp_path: Path) -> None:
    for key in (AttachmentKey("../net", "c", "i"), AttachmentKey("n", "c/..", "i"), AttachmentKey("n", "c", "")):
        with pytest.raises(InvalidEnvironment):
            ResultCache(tmp_path).load(key)


def entry_of(network: str, container_id: str) -> dict[str, Any]:
    return {**json.loads(LIBCNI), "networkName": network, "containerId": container_id}


def test_attachments_of_one_network_among_similar_names(tmp_path: Path) -> None:
    cache = ResultCache(tmp_path)
    for network, container_id in (("a", "b-c"), ("a-b", "c"), ("a", "d"), ("ab", "e")):
        put(cache, f"{network}-{container_id}-eth0", json.dumps(entry_of(network, container_id)))
    put(cache, "a-broken-eth0", "{")
    put(cache, "other-broken-eth0", "{")
    found, unreadable = cache.attachments("a")
    # "a-b-c-eth0" was written last by network "a-b": the two share one name, as in libcni.
    assert [entry.key.container_id for entry in found] == ["d"]
    assert [error.msg for error in unreadable] == [f"decode cached result {cache.directory}/a-broken-eth0: not JSON"]


def test_forgetting_leaves_the_entry_of_a_namesake(tmp_path: Path) -> None:
    cache = ResultCache(tmp_path)
    put(cache, "a-b-c-eth0", json.dumps(entry_of("a-b", "c")))
    cache.forget(AttachmentKey("a", "b-c", "eth0"))
    assert cache.load(AttachmentKey("a-b", "c", "eth0")) is not None
    put(cache, "a-b-c-eth0", "{")
    cache.forget(AttachmentKey("a", "b-c", "eth0"))
    assert os.listdir(cache.directory) == []


def test_config_is_kept_whole(tmp_path: Path) -> None:
    cache = ResultCache(tmp_path)
    cache.save(ENTRY)
    assert base64.b64decode(json.loads(cache.path(KEY).read_bytes())["config"]) == ENTRY.config
