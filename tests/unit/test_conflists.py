"""Networks: lists, single configurations made lists, and the plugins of a directory."""

from __future__ import annotations

import json
from typing import Any

import pytest

from homeport.cni import conflists
from homeport.model.errors import CniError, DecodeFailure, IncompatibleVersion, InvalidNetConf

LIST: dict[str, Any] = {"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "a", "x": None}, {"type": "b"}]}


def encode(raw: object) -> bytes:
    return json.dumps(raw).encode()


def test_a_list_keeps_its_text_and_its_plugins_as_written() -> None:
    raw = encode(LIST)
    network = conflists.parse(raw)
    assert (network.name, network.cni_version) == ("net", "1.0.0")
    assert network.plugins == ({"type": "a", "x": None}, {"type": "b"})
    assert network.raw == raw
    assert [network.disable_check, network.disable_gc, network.load_only_inlined_plugins] == [False, False, False]


def test_a_single_configuration_becomes_a_list_of_one() -> None:
    single = {"cniVersion": "0.4.0", "name": "net", "type": "bridge", "isGateway": True}
    network = conflists.parse(encode(single))
    assert network.plugins == (single,)
    assert conflists.parse(network.raw).plugins == (single,)


def test_a_default_name_is_for_the_nameless() -> None:
    nameless = {k: v for k, v in LIST.items() if k != "name"}
    for raw in (nameless, {**LIST, "name": ""}, {"type": "bridge"}):
        network = conflists.parse(encode(raw), default_name="nad")
        assert network.name == "nad"
        assert conflists.parse(network.raw) == conflists.parse(network.raw, default_name="other")
    assert conflists.parse(encode(LIST), default_name="nad").name == "net"


@pytest.mark.parametrize(
    ("versions", "chosen"),
    [
        ({"cniVersion": "0.4.0"}, "0.4.0"),
        ({}, "0.1.0"),
        ({"cniVersion": "0.4.0", "cniVersions": ["0.3.1", "1.0.0"]}, "1.0.0"),
        ({"cniVersion": "1.1.0", "cniVersions": ["0.3.1"]}, "1.1.0"),
        ({"cniVersions": ["0.3.1", "1.1.0", "2.0.0"]}, "1.1.0"),
        ({"cniVersion": "2.0.0", "cniVersions": ["1.0.0"]}, "1.0.0"),
        ({"cniVersion": "0.4.0", "cniVersions": ["2.0.0"]}, "0.4.0"),
        ({"cniVersion": "0.4.0", "cniVersions": []}, "0.4.0"),
    ],
)
def test_the_highest_version_both_sides_know(versions: dict[str, Any], chosen: str) -> None:
    plain = {k: v for k, v in LIST.items() if k != "cniVersion"}
    assert conflists.parse(encode({**plain, **versions})).cni_version == chosen


@pytest.mark.parametrize(
    "versions",
    [
        {"cniVersion": "2.0.0"},
        {"cniVersion": None, "cniVersions": ["2.0.0"]},
        {"cniVersion": "2.0.0", "cniVersions": ["3.0.0"]},
        {"cniVersion": "0.9.0"},
    ],
)
def test_no_version_in_common(versions: dict[str, Any]) -> None:
    with pytest.raises(IncompatibleVersion):
        conflists.parse(encode({**LIST, **versions}))


@pytest.mark.parametrize(
    ("value", "flag"), [(True, True), (False, False), ("true", True), ("TRUE", True), ("False", False), (None, False)]
)
def test_flags_are_booleans_or_words(value: object, flag: bool) -> None:
    raw = {**LIST, "disableCheck": value, "disableGC": value, "loadOnlyInlinedPlugins": value}
    network = conflists.parse(encode(raw))
    assert (network.disable_check, network.disable_gc, network.load_only_inlined_plugins) == (flag, flag, flag)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"name": None}, 'key "name": missing'),
        ({"name": "a/b"}, 'key "name": found "a/b"'),
        ({"plugins": []}, 'key "plugins": found an empty list, expected one plugin at least'),
        ({"plugins": {}}, 'key "plugins": found {}, expected array'),
        ({"plugins": ["a"]}, 'key "plugins[0]": found "a", expected object'),
        ({"plugins": [{"type": "a"}, {}]}, 'key "plugins[1].type": missing'),
        ({"plugins": [{"type": "../a"}]}, 'key "plugins[0].type": found "../a"'),
        ({"disableCheck": "maybe"}, 'key "disableCheck": found "maybe", expected true or false'),
        ({"disableGC": 1}, 'key "disableGC": found 1'),
        ({"plugins": None, "loadOnlyInlinedPlugins": True}, 'key "plugins": missing'),
    ],
)
def test_each_mistake_names_its_key(change: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidNetConf) as caught:
        conflists.parse(encode({**LIST, **change}))
    assert text in caught.value.msg


def test_a_version_that_is_none() -> None:
    with pytest.raises(CniError, match="cniVersion"):
        conflists.parse(encode({**LIST, "cniVersions": ["new"]}))


def test_plugins_of_the_directory_follow_the_inlined() -> None:
    network = conflists.complete(conflists.parse(encode(LIST)), [("/d/1.conf", b'{"type":"c","own":{"key":1}}')])
    assert [plugin["type"] for plugin in network.plugins] == ["a", "b", "c"]
    assert conflists.parse(network.raw).plugins == network.plugins, "the cache must hold every plugin whole"


def test_plugins_of_the_directory_alone() -> None:
    network = conflists.parse(b'{"cniVersion":"1.1.0","name":"net"}')
    assert network.plugins == ()
    assert conflists.complete(network, [("/d/1.conf", b'{"type":"c"}')]).plugins == ({"type": "c"},)
    with pytest.raises(InvalidNetConf, match='network "net": found no plugin'):
        conflists.complete(network, [])


def test_only_inlined_plugins() -> None:
    network = conflists.parse(encode({**LIST, "loadOnlyInlinedPlugins": True}))
    assert conflists.complete(network, [("/d/1.conf", b"not even JSON")]) == network


@pytest.mark.parametrize(
    ("contents", "error", "text"),
    [
        (b"", DecodeFailure, "plugin configuration /d/1.conf: found nothing"),
        (b"[]", DecodeFailure, "plugin configuration /d/1.conf: found []"),
        (b"{}", InvalidNetConf, 'key "/d/1.conf: type": missing'),
    ],
)
def test_a_bad_file_of_the_directory_is_named(contents: bytes, error: type[CniError], text: str) -> None:
    with pytest.raises(error) as caught:
        conflists.complete(conflists.parse(encode(LIST)), [("/d/1.conf", contents)])
    assert text in caught.value.msg
