"""Refusals of the API server: which are absence, which may pass, and what is repeated of them."""

from __future__ import annotations

import json
import socket
import ssl
from typing import Any

import pytest

from homeport.kube import errors, requests
from homeport.kube.errors import Expired
from homeport.model.errors import CniError, IOFailure, TryAgainLater
from homeport.model.names import PodRef

POD = requests.get_pod(PodRef("shop", "web-0"))
PLACE = "API server https://10.0.0.1:6443"


def status(code: int, reason: str = "", message: str = "", **details: Any) -> bytes:
    whole = {"kind": "Status", "code": code, "reason": reason, "message": message, "details": details}
    return json.dumps(whole).encode()


NOT_FOUND = status(404, "NotFound", 'pods "web-0" not found', name="web-0", kind="pods")


def test_absence_is_the_api_servers_word_on_that_name() -> None:
    assert errors.is_absence(POD, 404, NOT_FOUND)
    assert errors.is_absence(requests.patch_pod_annotations(PodRef("shop", "web-0"), "u", {}), 404, NOT_FOUND)


@pytest.mark.parametrize(
    ("code", "body"),
    [
        (404, b"404 page not found\n"),
        (404, b""),
        (404, b"\xff"),
        (404, b"[" * 100_000),
        (404, b'{"kind":"Status"}'),
        (404, status(404, "NotFound", "the server could not find the requested resource")),
        (404, status(404, "NotFound", name="web-1", kind="pods")),
        (404, status(404, "NotFound", name="web-0", kind="services")),
        (404, status(404, "", name="web-0", kind="pods")),
        (404, json.dumps({"kind": "Pod", "reason": "NotFound", "details": {"name": "web-0"}}).encode()),
        (200, NOT_FOUND),
        (403, NOT_FOUND),
        (410, status(410, "Gone", name="web-0", kind="pods")),
        (500, NOT_FOUND),
    ],
)
def test_anything_else_is_not_absence(code: int, body: bytes) -> None:
    assert not errors.is_absence(POD, code, body)


def test_a_list_is_never_absent() -> None:
    assert not errors.is_absence(requests.list_pods("n1"), 404, status(404, "NotFound", name="", kind="pods"))


@pytest.mark.parametrize(
    ("code", "kind", "said"),
    [
        (301, IOFailure, "answered with a redirect (301), expected an API server"),
        (400, IOFailure, "answered 400"),
        (401, IOFailure, "does not accept our credentials (401)"),
        (403, IOFailure, 'forbids "get" of "pods" (403)'),
        (404, TryAgainLater, 'knows no resource "pods" (404)'),
        (405, IOFailure, "answered 405"),
        (408, TryAgainLater, "answered 408"),
        (409, TryAgainLater, "answered 409"),
        (410, Expired, "no longer has the version asked for (410)"),
        (422, IOFailure, "answered 422"),
        (429, TryAgainLater, "answered 429"),
        (500, TryAgainLater, "answered 500"),
        (503, TryAgainLater, "answered 503"),
        (599, TryAgainLater, "answered 599"),
    ],
)
def test_each_status(code: int, kind: type[CniError], said: str) -> None:
    error = errors.refused(POD, code, status(code, "X", "in its own words"), place=PLACE)
    assert type(error) is kind
    assert error.msg == f"get pods shop/web-0: {PLACE} {said}"
    assert error.details == ("" if code == 301 else "in its own words")


def test_only_a_status_is_repeated_and_not_at_length() -> None:
    assert errors.refused(POD, 500, b"<html>secret</html>", place=PLACE).details == ""
    assert errors.refused(POD, 500, status(500, "X", "w" * 5000), place=PLACE).details == "w" * 400 + "..."


@pytest.mark.parametrize(
    ("code", "body", "expected"),
    [
        (409, b"", True),
        (422, status(422, "Invalid", causes=[{"field": "metadata.uid"}]), True),
        (422, status(422, "Invalid", causes=[{"field": "metadata.annotations"}]), False),
        (422, status(422, "Invalid"), False),
        (422, b"", False),
        (404, NOT_FOUND, False),
    ],
)
def test_a_write_refused_for_the_uid(code: int, body: bytes, *, expected: bool) -> None:
    assert errors.may_be_another(code, body) is expected


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "connection refused"),
        (socket.gaierror(-2, "Name or service not known"), "name or service not known"),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"), None),
        (OSError(), "OSError"),
        (ValueError("of its own"), "of its own"),
    ],
)
def test_failures_of_the_connection_in_a_few_words(failure: Exception, said: str | None) -> None:
    reason = errors.reason(failure)
    assert reason == said if said is not None else "wrong version number" in reason.lower()
