"""ADD of a list: what each plugin receives, and what is undone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.chaining.players import KEY, OWN, THREE, Calls, OurPlugin, addresses, network, plugin, said

from homeport.cni import conflists
from homeport.cni.invocations import Attachment
from homeport.model.errors import (
    CniError,
    InvalidEnvironment,
    InvalidNetConf,
    InvalidNetns,
    IOFailure,
    KernelRefused,
    PluginError,
)
from homeport.ports import Shells
from homeport.runtime import chaining
from homeport.runtime.caching import ResultCache

pytestmark = pytest.mark.root  # a lookup in a namespace takes CAP_SYS_ADMIN


def test_each_plugin_gets_the_result_so_far(
    calls: Calls, shells: Shells, cache: ResultCache, attachment: Attachment, tmp_path: Path
) -> None:
    result = chaining.add(THREE, attachment, shells, cache=cache)
    assert addresses(result) == ["10.0.0.1/24", "10.0.0.2/24", "10.0.0.3/24"]
    assert calls.order() == ["ADD one", "ADD two", "ADD three"]
    first, second, _ = calls()
    assert first["conf"] == {**plugin("one", 1), "name": "net", "cniVersion": "1.1.0"}
    assert second["conf"]["prevResult"] == {"cniVersion": "1.1.0", "ips": [{"address": "10.0.0.1/24"}]}
    assert first["env"] == {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": OWN,
        "CNI_IFNAME": "eth9",
        "CNI_ARGS": "A=1;B=2",
        "CNI_PATH": str(tmp_path / "bin"),
    }


def test_the_cache_has_all_that_a_del_needs(shells: Shells, cache: ResultCache, attachment: Attachment) -> None:
    result = chaining.add(THREE, attachment, shells, cache=cache, capability_args={"ips": ["10.0.0.9"]})
    entry = cache.load(KEY)
    assert entry is not None
    assert entry.decoded_result("1.1.0") == result
    assert (entry.config, entry.args, entry.netns_path) == (THREE.raw, attachment.args, OWN)
    assert entry.capability_args == {"ips": ["10.0.0.9"]}


def test_capability_arguments_go_to_those_that_ask(
    calls: Calls, shells: Shells, cache: ResultCache, attachment: Attachment, ours: OurPlugin
) -> None:
    asks: dict[str, Any] = {"capabilities": {"ips": True, "mac": False, "bandwidth": True}}
    chain = network(plugin("one", **asks), plugin("two"), plugin("ours", **asks))
    chaining.add(chain, attachment, shells, cache=cache, capability_args={"ips": ["10.0.0.9"], "mac": "x", "other": 1})
    asked, not_asked = calls()
    assert asked["conf"]["runtimeConfig"] == {"ips": ["10.0.0.9"]}
    assert "runtimeConfig" not in not_asked["conf"]
    assert ours.calls[0][1].runtime_config == {"ips": ["10.0.0.9"]}


def test_ours_and_foreign_plugins_mix(
    calls: Calls, shells: Shells, cache: ResultCache, attachment: Attachment, ours: OurPlugin
) -> None:
    result = chaining.add(network(plugin("ours"), plugin("two", 2), plugin("ours")), attachment, shells, cache=cache)
    assert result is ours.result, "a value of ours comes back as itself"
    assert calls()[0]["conf"]["prevResult"]["interfaces"] == [{"name": "eth9", "sandbox": OWN}]
    last = ours.calls[1][1]
    assert last.prev_result is not None
    assert addresses(last.prev_result) == ["10.7.0.1/24", "10.0.0.2/24"]
    assert "prevResult" not in last.raw, "no detour through JSON"


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0"])
def test_prev_result_is_in_the_version_of_the_list(
    calls: Calls, shells: Shells, cache: ResultCache, attachment: Attachment, version: str
) -> None:
    chain = network(plugin("ours"), plugin("two"), version=version)
    chaining.add(chain, attachment, shells, cache=cache)
    prev = calls()[0]["conf"]["prevResult"]
    assert prev["cniVersion"] == version
    assert ("version" in prev["ips"][0]) == (version < "1")


def test_a_failing_plugin_undoes_all_before_it(
    calls: Calls, shells: Shells, cache: ResultCache, attachment: Attachment
) -> None:
    failing = plugin("three", say={"ADD": [1, said(130, "no more", "because"), "log line"]})
    with pytest.raises(PluginError) as caught:
        chaining.add(network(plugin("one"), plugin("two", 2), failing), attachment, shells, cache=cache)
    assert (caught.value.code, caught.value.msg, caught.value.details) == (130, 'plugin "three": no more', "because")
    assert calls.order() == ["ADD one", "ADD two", "ADD three", "DEL three", "DEL two", "DEL one"]
    assert [ip["address"] for ip in calls()[3]["conf"]["prevResult"]["ips"]] == ["10.0.0.1/24", "10.0.0.2/24"]
    assert cache.load(KEY) is None


def test_undoing_goes_on_past_errors_and_tells_of_them(
    calls: Calls, shells: Shells, cache: ResultCache, attachment: Attachment
) -> None:
    stuck = plugin("two", 2, say={"DEL": [1, said(120, "stuck"), ""]})
    failing = plugin("three", say={"ADD": [1, said(130, "no more"), ""]})
    with pytest.raises(PluginError, match="no more") as caught:
        chaining.add(network(plugin("one"), stuck, failing), attachment, shells, cache=cache)
    assert caught.value.details == 'undo "two": plugin "two": stuck'
    assert calls.order()[-3:] == ["DEL three", "DEL two", "DEL one"]


@pytest.mark.parametrize("error", [KernelRefused("no"), RuntimeError("bug"), KeyboardInterrupt()])
def test_whatever_stops_an_add_it_is_undone(
    calls: Calls, shells: Shells, cache: ResultCache, attachment: Attachment, ours: OurPlugin, error: BaseException
) -> None:
    ours.error = error
    with pytest.raises(type(error)):
        chaining.add(network(plugin("one"), plugin("ours")), attachment, shells, cache=cache)
    assert calls.order() == ["ADD one", "DEL one"]
    assert [verb for verb, _ in ours.calls] == ["ADD", "DEL"]


def test_a_result_that_cannot_be_cached_is_undone(
    calls: Calls, shells: Shells, attachment: Attachment, tmp_path: Path
) -> None:
    (tmp_path / "results").write_text("a file where the directory should be")
    with pytest.raises(IOFailure, match="save result"):
        chaining.add(THREE, attachment, shells, cache=ResultCache(tmp_path))
    assert calls.order()[3:] == ["DEL three", "DEL two", "DEL one"]


def test_another_attachments_interface_survives_a_failing_add(
    calls: Calls, shells: Shells, cache: ResultCache, attachment: Attachment
) -> None:
    """`lo` is there before: the plugin that refuses it must not be told to remove it."""
    taken = msgspec.structs.replace(attachment, ifname="lo")
    failing = plugin("two", say={"ADD": [1, said(103, "already there"), ""]})
    with pytest.raises(PluginError, match="already there"):
        chaining.add(network(plugin("one"), failing), taken, shells, cache=cache)
    assert calls.order() == ["ADD one", "ADD two", "DEL one"]


def test_a_wrong_configuration_starts_nothing(
    calls: Calls, shells: Shells, cache: ResultCache, attachment: Attachment
) -> None:
    with pytest.raises(InvalidNetConf, match='key "ipam": found 5'):
        chaining.add(network(plugin("one"), plugin("two", ipam=5)), attachment, shells, cache=cache)
    assert calls() == []


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"container_id": "../x"}, InvalidEnvironment),
        ({"container_id": ""}, InvalidEnvironment),
        ({"ifname": "a/b"}, InvalidEnvironment),
        ({"netns_path": None}, InvalidNetns),
        ({"netns_path": "/run/netns/no-such"}, InvalidNetns),
    ],
)
def test_a_wrong_attachment_starts_nothing(
    calls: Calls,
    shells: Shells,
    cache: ResultCache,
    attachment: Attachment,
    change: dict[str, Any],
    error: type[CniError],
) -> None:
    with pytest.raises(error):
        chaining.add(THREE, msgspec.structs.replace(attachment, **change), shells, cache=cache)
    assert calls() == []


def test_an_empty_list_is_an_error(shells: Shells, cache: ResultCache, attachment: Attachment) -> None:
    with pytest.raises(InvalidNetConf, match="found no plugin"):
        chaining.add(conflists.parse(b'{"name":"net"}'), attachment, shells, cache=cache)
