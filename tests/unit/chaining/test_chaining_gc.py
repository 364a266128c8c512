"""CHECK, GC and STATUS of a list."""

from __future__ import annotations

import os

import pytest
from tests.unit.chaining.players import THREE, Calls, OurPlugin, network, plugin, said

from homeport.cni import netconfs
from homeport.cni.invocations import Attachment
from homeport.model.errors import (
    CniError,
    Drift,
    IncompatibleVersion,
    PluginError,
    PluginNotAvailable,
    SeveralErrors,
)
from homeport.model.names import AttachmentKey
from homeport.ports import Shells
from homeport.runtime import chaining
from homeport.runtime.caching import CachedAttachment, ResultCache

pytestmark = pytest.mark.root  # a lookup in a namespace takes CAP_SYS_ADMIN


def test_check_is_forward_with_the_cached_result(
    calls: Calls, shells: Shells, cache: ResultCache, attachment: Attachment
) -> None:
    chaining.add(THREE, attachment, shells, cache=cache)
    calls.clear()
    chaining.check(THREE, attachment, shells, cache=cache)
    assert calls.order() == ["CHECK one", "CHECK two", "CHECK three"]
    assert all(len(call["conf"]["prevResult"]["ips"]) == 3 for call in calls())


def test_check_stops_at_the_first_error(
    calls: Calls, shells: Shells, cache: ResultCache, attachment: Attachment
) -> None:
    drifted = network(plugin("one"), plugin("two", say={"CHECK": [1, said(102, "changed"), ""]}), plugin("three"))
    chaining.add(drifted, attachment, shells, cache=cache)
    calls.clear()
    with pytest.raises(PluginError, match="changed"):
        chaining.check(drifted, attachment, shells, cache=cache)
    assert calls.order() == ["CHECK one", "CHECK two"]


@pytest.mark.parametrize("flag", [True, "TRUE"])
def test_check_may_be_turned_off(
    calls: Calls, shells: Shells, cache: ResultCache, attachment: Attachment, flag: object
) -> None:
    chaining.check(network(plugin("one"), disableCheck=flag), attachment, shells, cache=cache)
    assert calls() == []


def test_check_needs_an_add_and_0_4_0(shells: Shells, cache: ResultCache, attachment: Attachment) -> None:
    with pytest.raises(Drift, match="found no result of an ADD"):
        chaining.check(THREE, attachment, shells, cache=cache)
    with pytest.raises(IncompatibleVersion, match=r'found cniVersion "0\.3\.1", expected 0\.4\.0 or later'):
        chaining.check(network(plugin("one"), version="0.3.1"), attachment, shells, cache=cache)


def cached(cache: ResultCache, container_id: str, name: str = "net") -> AttachmentKey:
    key = AttachmentKey(name, container_id, "eth9")
    cache.save(
        CachedAttachment(
            key=key,
            result={"cniVersion": "1.1.0"},
            netns_path=f"/run/netns/{container_id}",
            args={"OF": container_id},
            capability_args={"ips": [container_id]},
        )
    )
    return key


def test_gc_deletes_the_stale_then_tells_every_plugin(
    calls: Calls, shells: Shells, cache: ResultCache, attachment: Attachment
) -> None:
    alive, stale, foreign = cached(cache, "alive"), cached(cache, "stale"), cached(cache, "stale", "other")
    chain = network(plugin("one", capabilities={"ips": True}), plugin("ours"), plugin("two"))
    chaining.gc(chain, [alive], shells, cache=cache, path=attachment.path)
    assert calls.order() == ["DEL two", "DEL one", "GC one", "GC two"]
    _, deleted, collected, _ = calls()
    assert (deleted["env"]["CNI_CONTAINERID"], deleted["env"]["CNI_ARGS"]) == ("stale", "OF=stale")
    assert deleted["env"]["CNI_NETNS"] == "/run/netns/stale"
    assert deleted["conf"]["runtimeConfig"] == {"ips": ["stale"]}
    items = [{"containerID": "alive", "ifname": "eth9"}]
    assert collected["conf"][netconfs.VALID_ATTACHMENTS] == collected["conf"][netconfs.MISSPELT_ATTACHMENTS] == items
    assert set(collected["env"]) == {"CNI_COMMAND", "CNI_PATH"}
    assert [cache.load(key) is not None for key in (alive, stale, foreign)] == [True, False, True]


def test_ours_get_the_valid_attachments_as_values(shells: Shells, cache: ResultCache, ours: OurPlugin) -> None:
    key = AttachmentKey("net", "c1", "eth9")
    chaining.gc(network(plugin("ours")), [key, AttachmentKey("other", "c2", "eth0")], shells, cache=cache)
    ((verb, conf),) = ours.calls
    assert (verb, conf.valid_attachments) == ("GC", frozenset({key}))


def test_gc_never_deletes_what_it_cannot_read(
    calls: Calls, shells: Shells, cache: ResultCache, attachment: Attachment
) -> None:
    cached(cache, "stale")
    for name in ("net-broken-eth9", "net-bare-eth9"):
        (cache.directory / name).write_text("{" if "broken" in name else '{"cniVersion":"0.4.0"}')
    with pytest.raises(CniError, match=r"decode cached result .*net-broken-eth9"):
        chaining.gc(network(plugin("one")), [], shells, cache=cache, path=attachment.path)
    assert calls.order() == ["DEL one", "GC one"], "the others are still collected"
    assert sorted(os.listdir(cache.directory)) == ["net-bare-eth9", "net-broken-eth9"]


def test_gc_goes_on_past_errors(calls: Calls, shells: Shells, cache: ResultCache, attachment: Attachment) -> None:
    cached(cache, "stale")
    stuck = {"DEL": [1, said(120, "stuck"), ""], "GC": [1, said(121, "full"), ""]}
    with pytest.raises(SeveralErrors, match=r"stuck.*full"):
        chaining.gc(network(plugin("one", say=stuck), plugin("two")), [], shells, cache=cache, path=attachment.path)
    assert calls.order() == ["DEL two", "DEL one", "GC one", "GC two"]


def test_gc_before_1_1_0_is_the_cache_alone(
    calls: Calls, shells: Shells, cache: ResultCache, attachment: Attachment
) -> None:
    cached(cache, "stale")
    chaining.gc(network(plugin("one"), version="1.0.0"), [], shells, cache=cache, path=attachment.path)
    assert calls.order() == ["DEL one"]


def test_gc_may_be_turned_off(calls: Calls, shells: Shells, cache: ResultCache) -> None:
    key = cached(cache, "stale")
    chaining.gc(network(plugin("one"), disableGC="True"), [], shells, cache=cache)
    assert calls() == []
    assert cache.load(key) is not None


def test_status_is_the_first_error(calls: Calls, shells: Shells, attachment: Attachment) -> None:
    not_ready = plugin("two", say={"STATUS": [1, said(50, "no uplink"), ""]})
    with pytest.raises(PluginNotAvailable, match="no uplink"):
        chaining.status(network(plugin("one"), not_ready, plugin("three")), shells, path=attachment.path)
    assert calls.order() == ["STATUS one", "STATUS two"]


def test_status_before_1_1_0_is_yes(calls: Calls, shells: Shells) -> None:
    chaining.status(network(plugin("four"), version="1.0.0"), shells)
    assert calls() == []
