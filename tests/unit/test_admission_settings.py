"""The key `admission` of the controller's configuration."""

from __future__ import annotations

from typing import Any

import pytest

from homeport.admission.settings import Service
from homeport.controller import settings
from homeport.controller.settings import ControllerSettings
from homeport.model.errors import CniError


def parse(raw: Any) -> ControllerSettings:
    return settings.parse({"admission": raw}, pod="", namespace="net")


def test_without_the_key_nothing_is_reviewed() -> None:
    assert settings.parse({}, pod="", namespace="net").admission is None
    assert parse(None).admission is None


def test_everything_has_a_default() -> None:
    found = parse({}).admission
    assert found is not None
    assert found.where == Service(namespace="net", name="homeport-admission", port=443)
    assert found.server_name == "homeport-admission.net.svc"
    assert (found.address, found.port, found.namespace, found.secret) == ("0.0.0.0", 9443, "net", "homeport-admission")
    assert (found.failure_policy, found.timeout_seconds, found.reviews) == ("Ignore", 3, "usual")


@pytest.mark.parametrize(
    ("url", "registered", "name"),
    [
        ("https://198.18.4.1:9443", "https://198.18.4.1:9443", "198.18.4.1"),
        ("https://[fd00::1]:9443/", "https://[fd00::1]:9443", "fd00::1"),
        ("https://Webhook.example", "https://Webhook.example", "webhook.example"),
    ],
)
def test_a_url_in_place_of_a_service(url: str, registered: str, name: str) -> None:
    found = parse({"url": url}).admission
    assert found is not None
    assert (found.where, found.server_name) == (registered, name)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"ports": 1}, 'key "admission.ports": unknown, expected one of port, address, '),
        ({"port": 0}, 'key "admission.port"'),
        ({"address": "everywhere"}, 'key "admission.address": found "everywhere", expected an address'),
        ({"url": "http://a.example"}, "expected https://HOST:PORT without a path"),
        ({"url": "https://a.example/review"}, "expected https://HOST:PORT without a path"),
        ({"url": "https://a:b@a.example"}, "expected https://HOST:PORT without a path"),
        ({"url": "https://a.example:x"}, "expected https://HOST:PORT without a path"),
        ({"url": "https://a.example?b"}, "expected https://HOST:PORT without a path"),
        ({"url": "https://a_b"}, "expected https://HOST:PORT without a path"),
        ({"url": "https://a.example", "service": {}}, "expected one of them"),
        ({"service": {"Name": "x"}}, 'key "admission.service.Name": unknown, expected one of namespace, name, port'),
        ({"service": {"name": "x.y"}}, 'key "admission.service.name": found "x.y", expected a name'),
        ({"failurePolicy": "Allow"}, 'key "admission.failurePolicy": found "Allow", expected one of "Ignore", "Fail"'),
        ({"timeoutSeconds": 31}, 'key "admission.timeoutSeconds"'),
        ({"reviews": "none"}, 'key "admission.reviews"'),
        ({"secret": "a/b"}, 'key "admission.secret"'),
        ({"certificateSeconds": 1}, 'key "admission.certificateSeconds"'),
        ("yes", 'key "admission"'),
    ],
)
def test_what_cannot_be_right_is_named(raw: Any, words: str) -> None:
    with pytest.raises(CniError) as caught:
        parse(raw)
    assert words in str(caught.value)
