"""What lists and watches leave in the cache: nothing leaves it but by the API server's word."""

from __future__ import annotations

import json
from typing import Any

import pytest

from homeport.kube import decoding
from homeport.kube.caching import Cache, Told
from homeport.kube.decoding import Identity, Page
from homeport.kube.errors import Expired
from homeport.model.errors import DecodeFailure, TryAgainLater
from homeport.ports import NetworkDefinition


def definition(name: str, config: Any = "{}", *, uid: str = "u1", version: str = "5") -> dict[str, Any]:
    meta = {"name": name, "namespace": "ns", "uid": uid, "resourceVersion": version}
    return {"metadata": meta, "spec": {"config": config}}


def pages(*contents: list[Any], version: str = "9") -> list[Page]:
    bodies = [
        {"metadata": {"resourceVersion": version, "continue": "more" if n < len(contents) - 1 else ""}, "items": items}
        for n, items in enumerate(contents)
    ]
    return [decoding.decode_page(json.dumps(body).encode()) for body in bodies]


def line(kind: str, value: Any) -> bytes:
    return json.dumps({"type": kind, "object": value}).encode()


def identity(name: str, uid: str = "u1", version: str = "5") -> Identity:
    return Identity("ns", name, uid, version)


@pytest.fixture
def cache() -> Cache[NetworkDefinition]:
    made = Cache(decoding.decode_definition)
    made.replace(pages([definition("a"), definition("b")]))
    return made


def config_of(cache: Cache[NetworkDefinition], name: str) -> str | None:
    found = cache.get("ns", name)
    return found.config if found is not None else None


def test_a_list_of_several_pages_is_taken_whole() -> None:
    cache = Cache(decoding.decode_definition)
    assert cache.replace(pages([definition("a")], [definition("b")], [definition("c")])) == Told("9")
    assert len(cache) == 3
    assert config_of(cache, "b") == "{}"


def test_what_a_complete_list_lacks_is_gone(cache: Cache[NetworkDefinition]) -> None:
    assert cache.replace(pages([definition("b")])) == Told("9", (identity("a"),))
    assert (config_of(cache, "a"), len(cache)) == (None, 1)


def test_another_of_the_same_name_means_the_former_is_gone(cache: Cache[NetworkDefinition]) -> None:
    assert cache.replace(pages([definition("a", uid="u2"), definition("b")])).gone == (identity("a"),)
    assert cache.apply(line("MODIFIED", definition("b", "new", uid="u2", version="6"))) == Told("6", (identity("b"),))
    assert config_of(cache, "b") == "new"


def test_a_list_that_cannot_be_read_changes_nothing(cache: Cache[NetworkDefinition]) -> None:
    with pytest.raises(DecodeFailure):
        cache.replace(pages([definition("b")], ["strange"]))
    assert len(cache) == 2


def test_an_item_that_cannot_be_read_hides_no_other(cache: Cache[NetworkDefinition]) -> None:
    """It is not in the cache any more, so that it is asked for, and it is not said to be gone."""
    assert cache.replace(pages([definition("a", config={"an": "object"}), definition("b", "new")])) == Told("9")
    assert (config_of(cache, "a"), config_of(cache, "b")) == (None, "new")
    assert cache.apply(line("MODIFIED", definition("b", config=1, version="7"))) == Told("7")
    assert config_of(cache, "b") is None
    assert cache.apply(line("MODIFIED", definition("b", "good", version="8"))) == Told("8")
    assert config_of(cache, "b") == "good"


def test_changes(cache: Cache[NetworkDefinition]) -> None:
    assert cache.apply(line("ADDED", definition("c", version="10"))) == Told("10")
    assert cache.apply(line("MODIFIED", definition("c", "new", version="11"))) == Told("11")
    assert config_of(cache, "c") == "new"
    assert cache.apply(line("BOOKMARK", {"metadata": {"resourceVersion": "15"}})) == Told("15")
    assert cache.apply(line("DELETED", definition("c", version="16"))) == Told("16", (identity("c", version="16"),))
    assert config_of(cache, "c") is None


def test_an_old_deletion_does_not_take_the_successor(cache: Cache[NetworkDefinition]) -> None:
    cache.apply(line("ADDED", definition("a", "successor", uid="u2", version="7")))
    told = cache.apply(line("DELETED", definition("a", uid="u1", version="8")))
    assert told.gone == (identity("a", version="8"),)
    assert config_of(cache, "a") == "successor"


def test_a_deletion_of_what_was_never_seen_is_still_told(cache: Cache[NetworkDefinition]) -> None:
    assert cache.apply(line("DELETED", definition("z", config=1))).gone == (identity("z"),)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ({"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}, Expired),
        ({"kind": "Status", "code": 500, "reason": "InternalError"}, TryAgainLater),
        ({"kind": "Status"}, TryAgainLater),
        ("strange", TryAgainLater),
    ],
)
def test_errors_in_a_watch(cache: Cache[NetworkDefinition], said: Any, kind: type[TryAgainLater]) -> None:
    with pytest.raises(TryAgainLater) as error:
        cache.apply(line("ERROR", said))
    assert type(error.value) is kind
    assert len(cache) == 2


@pytest.mark.parametrize(
    "bad",
    [
        b"{",
        b"\xff",
        b'{"type":"ADDED"}',
        line("RENAMED", definition("a")),
        line("ADDED", "strange"),
        line("DELETED", {"metadata": {"name": "a", "namespace": "ns"}}),
        line("DELETED", {"metadata": {"name": "a", "namespace": "ns", "uid": "u1"}}),
        line("ADDED", definition("a"))[:-5],
    ],
)
def test_a_line_that_cannot_be_understood_takes_nothing_away(cache: Cache[NetworkDefinition], bad: bytes) -> None:
    with pytest.raises(DecodeFailure):
        cache.apply(bad)
    assert (len(cache), config_of(cache, "a")) == (2, "{}")
