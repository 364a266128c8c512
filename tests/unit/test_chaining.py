"""A network's plugins in order, as real executables and as calls: what each receives, and what is undone.

The interface asked for is looked up in the kernel, in this process's own namespace; no plugin here makes one.
"""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Iterator
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import msgspec
import pytest

from homeport.cni import conflists, netconfs
from homeport.cni.conflists import ConfList
from homeport.cni.invocations import Attachment
from homeport.cni.netconfs import NetConf
from homeport.host.kernel import Kernel
from homeport.model.errors import (
    CniError,
    Drift,
    IncompatibleVersion,
    InvalidEnvironment,
    InvalidNetConf,
    InvalidNetns,
    IOFailure,
    KernelRefused,
    PluginError,
    PluginFailed,
    PluginNotAvailable,
    PluginNotFound,
    SeveralErrors,
    TryAgainLater,
)
from homeport.model.names import AttachmentKey
from homeport.model.results import Interface, IPConfig, Result
from homeport.ports import Plugin, Shells
from homeport.runtime import chaining
from homeport.runtime.caching import CachedAttachment, ResultCache
from homeport.runtime.delegating import PluginDelegates
from homeport.runtime.executing import Executor
from homeport.wiring import build_shells

pytestmark = pytest.mark.root  # a lookup in a namespace takes CAP_SYS_ADMIN

OWN = "/proc/self/ns/net"
KEY = AttachmentKey("net", "c1", "eth9")

# Writes down every call. Answers ADD with an address of its own appended to prevResult, unless its configuration has
# `say` for the verb: [exit code, text for stdout, text for stderr].
RECORDER = textwrap.dedent("""\
    import json, os, sys
    conf, me = json.load(sys.stdin), os.path.basename(sys.argv[0])
    verb = os.environ["CNI_COMMAND"]
    with open(os.environ["RECORD"], "a") as record:
        env = {k: v for k, v in os.environ.items() if k.startswith("CNI_")}
        record.write(json.dumps({"plugin": me, "verb": verb, "conf": conf, "env": env}) + "\\n")
    code, out, err = conf.get("say", {}).get(verb, [0, None, ""])
    sys.stderr.write(err)
    sys.stderr.flush()
    if verb == "ADD" and out is None:
        result = conf.get("prevResult") or {"cniVersion": conf["cniVersion"]}
        result.setdefault("ips", []).append({"address": conf["own"]})
        out = json.dumps(result)
    if code < 0:
        os.kill(os.getpid(), -code)
    sys.stdout.write(out or "")
    sys.exit(code)
""")


class Calls:
    """What the executables wrote down."""

    def __init__(self, record: Path) -> None:
        self._record = record

    def __call__(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._record.read_text().splitlines()] if self._record.exists() else []

    def order(self) -> list[str]:
        return [f"{call['verb']} {call['plugin']}" for call in self()]

    def clear(self) -> None:
        self._record.unlink(missing_ok=True)


class OurPlugin:
    """A plugin in this process, of type `ours`, that writes down what it was given."""

    TYPE = "ours"

    def __init__(self) -> None:
        self.calls: list[tuple[str, NetConf]] = []
        self.result = Result(
            interfaces=(Interface(name="eth9", sandbox=OWN),), ips=(IPConfig(address=ip_interface("10.7.0.1/24")),)
        )
        self.error: BaseException | None = None

    def add(self, conf: NetConf, attachment: Attachment, shells: Shells) -> Result:
        self.calls.append(("ADD", conf))
        if self.error:
            raise self.error
        return self.result

    def delete(self, conf: NetConf, attachment: Attachment, shells: Shells) -> None:
        self.calls.append(("DEL", conf))

    def check(self, conf: NetConf, attachment: Attachment, shells: Shells) -> None:
        self.calls.append(("CHECK", conf))

    def gc(self, conf: NetConf, attachment: Attachment, shells: Shells) -> None:
        self.calls.append(("GC", conf))

    def status(self, conf: NetConf, attachment: Attachment, shells: Shells) -> None:
        self.calls.append(("STATUS", conf))


@pytest.fixture
def calls(tmp_path: Path) -> Calls:
    return Calls(tmp_path / "record")


@pytest.fixture
def ours() -> OurPlugin:
    return OurPlugin()


@pytest.fixture
def stderr() -> list[bytes]:
    return []


@pytest.fixture(scope="module")
def machine() -> Iterator[Shells]:
    shells = build_shells()
    yield shells
    assert isinstance(shells.host, Kernel)
    shells.host.close()


@pytest.fixture
def shells(machine: Shells, tmp_path: Path, ours: OurPlugin, stderr: list[bytes]) -> Shells:
    for name in ("one", "two", "three"):
        plugin = tmp_path / "bin" / name
        plugin.parent.mkdir(exist_ok=True)
        plugin.write_text(f"#!/usr/bin/python3 -IS\n{RECORDER}")
        plugin.chmod(0o755)
    found: dict[str, Plugin] = {"ours": ours}
    environ = {**os.environ, "RECORD": str(tmp_path / "record"), "CNI_IFNAME": "leaked"}
    delegates = PluginDelegates(
        find=found.get,
        shells=lambda: built,
        open_executor=Executor,
        environ=environ,
        timeout_seconds=20,
        on_stderr=stderr.append,
    )
    built = msgspec.structs.replace(machine, delegates=delegates)
    return built


@pytest.fixture
def cache(tmp_path: Path) -> ResultCache:
    return ResultCache(tmp_path / "cache")


@pytest.fixture
def attachment(tmp_path: Path) -> Attachment:
    return Attachment(
        container_id="c1", ifname="eth9", netns_path=OWN, args={"A": "1", "B": "2"}, path=(str(tmp_path / "bin"),)
    )


def plugin(kind: str, own: int = 1, **keys: Any) -> dict[str, Any]:
    return {"type": kind, "own": f"10.0.0.{own}/24", "key": {"of": kind}, **keys}


def network(*plugins: dict[str, Any], version: str = "1.1.0", **keys: Any) -> ConfList:
    return conflists.parse(json.dumps({"cniVersion": version, "name": "net", "plugins": plugins, **keys}).encode())


THREE = network(plugin("one", 1), plugin("two", 2), plugin("three", 3))


def said(code: int, text: str, details: str = "") -> str:
    return json.dumps({"code": code, "msg": text, "details": details})


def addresses(result: Result) -> list[str]:
    return [str(ip.address) for ip in result.ips]


# --- ADD ---------------------------------------------------------------------------------------------------------


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


# --- foreign plugins that misbehave ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("say", "error", "text"),
    [
        ([0, "garbage", ""], PluginFailed, 'plugin "two": ADD succeeded with a bad result'),
        ([0, "", ""], PluginFailed, "found nothing"),
        ([0, "[]", ""], PluginFailed, "found [], expected object"),
        ([0, '{"cniVersion":"9.9.9"}', ""], PluginFailed, 'found "9.9.9"'),
        ([1, "garbage", "panic: x"], PluginFailed, 'ended with exit code 1: found "garbage", expected a CNI error obj'),
        ([1, "{}", ""], PluginFailed, "expected a CNI error object"),
        ([3, "", "panic: x"], PluginFailed, 'plugin "two": ADD ended with exit code 3 without an error on stdout'),
        ([-9, "", "panic: x"], PluginFailed, 'plugin "two": ADD was killed by SIGKILL without an error'),
        ([1, said(11, "later"), ""], TryAgainLater, 'plugin "two": later'),
        ([1, said(50, "not now"), ""], PluginNotAvailable, 'plugin "two": not now'),
        ([1, said(7, "bad key"), ""], PluginError, 'plugin "two": bad key'),
        ([1, '{"msg":"no code"}', ""], PluginError, 'plugin "two": no code'),
    ],
)
def test_what_a_foreign_plugin_may_answer(
    calls: Calls,
    shells: Shells,
    cache: ResultCache,
    attachment: Attachment,
    stderr: list[bytes],
    say: list[Any],
    error: type[CniError],
    text: str,
) -> None:
    with pytest.raises(error) as caught:
        chaining.add(network(plugin("one"), plugin("two", say={"ADD": say})), attachment, shells, cache=cache)
    assert type(caught.value) is error
    assert text in caught.value.msg
    assert b"".join(stderr).decode() == say[2]
    assert say[2] in caught.value.details
    assert calls.order() == ["ADD one", "ADD two", "DEL two", "DEL one"], "nothing is left behind"
    assert cache.load(KEY) is None


def test_null_is_an_empty_result(shells: Shells, cache: ResultCache, attachment: Attachment) -> None:
    quiet = plugin("one", say={"ADD": [0, "null", ""]})
    assert chaining.add(network(quiet), attachment, shells, cache=cache) == Result()


def test_a_plugin_that_is_nowhere(calls: Calls, shells: Shells, cache: ResultCache, attachment: Attachment) -> None:
    with pytest.raises(PluginNotFound, match=r'plugin "four": not built in, and no executable of this name in .*/bin'):
        chaining.add(network(plugin("one"), plugin("four")), attachment, shells, cache=cache)
    assert calls.order() == ["ADD one", "DEL one"]


def test_a_type_may_be_forced_out_of_the_process(
    tmp_path: Path, calls: Calls, shells: Shells, cache: ResultCache, attachment: Attachment, ours: OurPlugin
) -> None:
    (tmp_path / "bin" / "ours").symlink_to("one")
    delegates = PluginDelegates(
        find={"ours": ours}.get,
        shells=lambda: shells,
        open_executor=Executor,
        environ={**os.environ, "RECORD": str(tmp_path / "record")},
        exec_types=["ours"],
    )
    chaining.add(network(plugin("ours")), attachment, msgspec.structs.replace(shells, delegates=delegates), cache=cache)
    assert calls.order() == ["ADD ours"]
    assert ours.calls == []


# --- DEL ---------------------------------------------------------------------------------------------------------


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


# --- CHECK, GC, STATUS -------------------------------------------------------------------------------------------


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


def test_gc_deletes_the_stale_then_tells_every_plugin(calls: Calls, shells: Shells, cache: ResultCache) -> None:
    alive, stale, foreign = cached(cache, "alive"), cached(cache, "stale"), cached(cache, "stale", "other")
    path = (str(Path(calls._record).parent / "bin"),)
    chain = network(plugin("one", capabilities={"ips": True}), plugin("ours"), plugin("two"))
    chaining.gc(chain, [alive], shells, cache=cache, path=path)
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


def test_versions_of_foreign_plugins(shells: Shells, attachment: Attachment, tmp_path: Path) -> None:
    asked = tmp_path / "bin" / "asked"
    asked.write_text('#!/bin/sh\necho \'{"cniVersion":"1.0.0","supportedVersions":["0.4.0","1.0.0"]}\'\n')
    asked.chmod(0o755)
    mute = tmp_path / "bin" / "mute"
    mute.write_text("#!/bin/sh\necho '{}'\n")
    mute.chmod(0o755)
    assert isinstance(shells.delegates, PluginDelegates)
    assert shells.delegates.supported_versions("asked", attachment) == ("0.4.0", "1.0.0")
    assert shells.delegates.source("asked", attachment.path) == str(asked)
    assert shells.delegates.source("ours", attachment.path) == "built in"
    with pytest.raises(PluginFailed, match='plugin "mute": VERSION: key "supportedVersions": missing'):
        shells.delegates.supported_versions("mute", attachment)
