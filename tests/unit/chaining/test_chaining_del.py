"""DEL of a list: in reverse, past every error, with what the cache knows."""

from __future__ import annotations

import msgspec
import pytest
from tests.unit.chaining.players import KEY, THREE, Calls, network, plugin, said

from homeport.cni.invocations import Attachment
from homeport.model.errors import (
    InvalidNetConf,
    PluginNotFound,
    SeveralErrors,
)
from homeport.ports import Shells
from homeport.runtime import chaining
from homeport.runtime.caching import ResultCache

pytestmark = pytest.mark.root  # a lookup in a namespace takes CAP_SYS_ADMIN


def test_del_is_in_reverse_with_the_final_result(
    calls: Calls, shells: Shells, cache: ResultCache, attachment: Attachment
) -> None:
    chaining.add(THREE, attachment, shells, cache=cache)
    calls.clear()
    chaining.delete(THREE, attachment, shells, cache=cache)
    assert calls.order() == ["DEL three", "DEL two", "DEL one"]
    assert all(len(call["conf"]["prevResult"]["ips"]) == 3 for call in calls())
    assert cache.load(KEY) is None


def test_del_before_0_4_0_has_no_prev_result(
    calls: Calls, shells: Shells, cache: ResultCache, attachment: Attachment
) -> None:
    chain = network(plugin("one"), version="0.3.1")
    chaining.add(chain, attachment, shells, cache=cache)
    chaining.delete(chain, attachment, shells, cache=cache)
    assert "prevResult" not in calls()[1]["conf"]


def test_del_without_an_add(calls: Calls, shells: Shells, cache: ResultCache, attachment: Attachment) -> None:
    gone = msgspec.structs.replace(attachment, netns_path=None)
    chaining.delete(THREE, gone, shells, cache=cache)
    assert calls.order() == ["DEL three", "DEL two", "DEL one"]
    assert all("prevResult" not in call["conf"] and call["env"]["CNI_NETNS"] == "" for call in calls())


def test_del_with_a_cache_entry_that_cannot_be_read(
    calls: Calls, shells: Shells, cache: ResultCache, attachment: Attachment
) -> None:
    chaining.add(THREE, attachment, shells, cache=cache)
    cache.path(KEY).write_text("{")
    calls.clear()
    chaining.delete(THREE, attachment, shells, cache=cache)
    assert calls.order() == ["DEL three", "DEL two", "DEL one"]
    assert not cache.path(KEY).exists()


def test_del_goes_on_past_errors_and_keeps_the_cache(
    calls: Calls, shells: Shells, cache: ResultCache, attachment: Attachment
) -> None:
    chaining.add(THREE, attachment, shells, cache=cache)
    calls.clear()
    broken = network(
        plugin("one", say={"DEL": [1, said(120, "one is stuck"), ""]}),
        plugin("two"),
        plugin("three", say={"DEL": [1, said(11, "three is busy"), ""]}),
    )
    with pytest.raises(SeveralErrors) as caught:
        chaining.delete(broken, attachment, shells, cache=cache)
    assert calls.order() == ["DEL three", "DEL two", "DEL one"]
    assert caught.value.msg == 'plugin "three": three is busy; plugin "one": one is stuck'
    assert caught.value.code == 11
    assert cache.load(KEY) is not None
    calls.clear()
    chaining.delete(THREE, attachment, shells, cache=cache)
    assert len(calls()[0]["conf"]["prevResult"]["ips"]) == 3, "the retry still knows the result"
    assert cache.load(KEY) is None


def test_a_single_error_of_del_is_itself(shells: Shells, cache: ResultCache, attachment: Attachment) -> None:
    with pytest.raises(PluginNotFound):
        chaining.delete(network(plugin("one"), plugin("four")), attachment, shells, cache=cache)


def test_del_of_a_plugin_with_a_wrong_configuration_reaches_the_others(
    calls: Calls, shells: Shells, cache: ResultCache, attachment: Attachment
) -> None:
    with pytest.raises(InvalidNetConf, match="ipam"):
        chaining.delete(network(plugin("one"), plugin("two", ipam=5)), attachment, shells, cache=cache)
    assert calls.order() == ["DEL one"]


def test_an_attachment_of_another_runtime_is_deleted_with_its_result(
    calls: Calls, shells: Shells, cache: ResultCache, attachment: Attachment
) -> None:
    cache.directory.mkdir(parents=True)
    cache.path(KEY).write_text(
        '{"kind":"cniCacheV1","containerId":"c1","config":"e30=","ifName":"eth9","networkName":"net",'
        '"result":{"cniVersion":"1.0.0","ips":[{"address":"10.9.9.9/24"}]}}'
    )
    chaining.delete(THREE, attachment, shells, cache=cache)
    assert calls()[0]["conf"]["prevResult"]["ips"] == [{"address": "10.9.9.9/24"}]
    assert not cache.path(KEY).exists()
