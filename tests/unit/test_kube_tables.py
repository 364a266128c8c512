"""Lists of names: what is asked for, and what is no list of names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.stand_ins_api import Asked, Piece, ScriptedServer, answer, status

from homeport.kube import decoding, object_requests
from homeport.kube.objects import KubernetesObjects
from homeport.model.errors import DecodeFailure, IOFailure, TryAgainLater
from homeport.ports import Resource

THINGS = Resource(group="shop.example", version="v1", plural="things", kind="Thing", namespaced=True)


def table(*names: Any, column: str = "Name") -> dict[str, Any]:
    rows = [{"cells": [name, "x", 7]} for name in names]
    return {"kind": "Table", "columnDefinitions": [{"name": column}, {"name": "Age"}], "rows": rows}


def test_the_api_servers_cache_is_asked_for_little() -> None:
    request = object_requests.list_names(THINGS, namespace="shop", labels={"a": "b"})
    assert request.verb == "list"
    assert request.target == (
        "/apis/shop.example/v1/namespaces/shop/things?labelSelector=a%3Db&resourceVersion=0&includeObject=None"
    )


def test_the_first_column_is_the_name() -> None:
    assert decoding.decode_names(json.dumps(table("a", "b")).encode()) == ("a", "b")
    assert decoding.decode_names(json.dumps(table()).encode()) == ()
    assert decoding.decode_names(json.dumps({**table(), "rows": None}).encode()) == ()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        json.dumps(table("a", column="Address")).encode(),
        json.dumps({**table(), "columnDefinitions": []}).encode(),
        json.dumps(table(7)).encode(),
        json.dumps({**table(), "rows": [{"cells": []}]}).encode(),
        json.dumps({"kind": "ThingList", "metadata": {"resourceVersion": "5"}, "items": []}).encode(),
    ],
)
def test_what_is_no_table_of_names_is_no_empty_one(body: bytes) -> None:
    with pytest.raises(DecodeFailure):
        decoding.decode_names(body)


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (status(404, "NotFound", "the server could not find the requested resource"), IOFailure),
        (status(406, "NotAcceptable", "only the following media types are accepted"), IOFailure),
        (status(403, "Forbidden", "no"), IOFailure),
        (status(429, "TooManyRequests", "later"), TryAgainLater),
        (status(500, "InternalError", "broken"), TryAgainLater),
    ],
    ids=lambda v: str(v)[10:14],
)
def test_a_refusal_is_no_empty_list(reply: bytes, error: type[Exception]) -> None:
    asked: list[Asked] = []

    def behave(request: Asked) -> Iterator[Piece]:
        asked.append(request)
        yield reply

    server = ScriptedServer(behave)
    objects = KubernetesObjects.connect(server.config, deadline_seconds=0.5)
    with pytest.raises(error):
        objects.names(THINGS)
    assert asked[0].headers["accept"] == "application/json;as=Table;g=meta.k8s.io;v=v1"
    objects.close()
    server.close()


def test_names_come_as_they_are() -> None:
    def behave(_request: Asked) -> Iterator[Piece]:
        yield answer(200, table("a", "b.c"))

    server = ScriptedServer(behave)
    objects = KubernetesObjects.connect(server.config)
    assert tuple(objects.names(THINGS)) == ("a", "b.c")
    objects.close()
    server.close()
