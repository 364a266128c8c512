"""Foreign plugins in a list that answer what they should not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.chaining.players import KEY, Calls, OurPlugin, network, plugin, said

from homeport.cni.invocations import Attachment
from homeport.model.errors import (
    CniError,
    PluginError,
    PluginFailed,
    PluginNotAvailable,
    PluginNotFound,
    TryAgainLater,
)
from homeport.model.results import Result
from homeport.ports import Shells
from homeport.runtime import chaining
from homeport.runtime.caching import ResultCache
from homeport.runtime.delegating import PluginDelegates
from homeport.runtime.executing import Executor

pytestmark = pytest.mark.root  # a lookup in a namespace takes CAP_SYS_ADMIN


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
