"""Events before they are sent: repeats are one, too many are dropped in order, and what the API server is given."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from homeport.kube import events
from homeport.kube.events import Gathering, Occurrence
from homeport.model.errors import InvalidNetConf
from homeport.model.names import PodRef
from homeport.ports import Event

NOW = datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)


def event(reason: str = "AddedInterface", *, pod: str = "web-0", warning: bool = False, message: str = "m") -> Event:
    return Event(pod=PodRef("shop", pod), pod_uid="u1", reason=reason, message=message, warning=warning)


def later(**span: float) -> datetime:
    return NOW + timedelta(**span)


def taken(gathering: Gathering) -> Occurrence:
    found = gathering.take()
    assert found is not None
    return found


def body(occurrence: Occurrence) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(events.request_of(occurrence, "n1").body)
    return decoded


def test_what_the_api_server_is_given() -> None:
    gathering = Gathering()
    gathering.add(event(warning=True), NOW)
    occurrence = taken(gathering)
    request = events.request_of(occurrence, "n1")
    assert (request.method, request.path) == ("POST", "/api/v1/namespaces/shop/events")
    assert body(occurrence) == {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": occurrence.name, "namespace": "shop"},
        "involvedObject": {"apiVersion": "v1", "kind": "Pod", "namespace": "shop", "name": "web-0", "uid": "u1"},
        "type": "Warning",
        "reason": "AddedInterface",
        "message": "m",
        "count": 1,
        "firstTimestamp": "2026-01-01T12:00:00Z",
        "lastTimestamp": "2026-01-01T12:00:00Z",
        "source": {"component": "homeport", "host": "n1"},
        "reportingComponent": "homeport",
        "reportingInstance": "n1",
    }
    assert occurrence.name.startswith("web-0.")


def test_repeats_before_it_is_sent_are_one() -> None:
    gathering = Gathering()
    for seconds in range(3):
        gathering.add(event(), later(seconds=seconds))
    gathering.add(event("Other"), NOW)
    assert len(gathering) == 2
    first = taken(gathering)
    assert (first.count, first.first, first.last) == (3, NOW, later(seconds=2))
    assert taken(gathering).count == 1
    assert gathering.take() is None


def test_repeats_after_it_was_sent_are_counted_on_the_same_object() -> None:
    gathering = Gathering()
    gathering.add(event(), NOW)
    first = taken(gathering)
    gathering.sent(first)
    gathering.add(event(), later(seconds=30))
    again = taken(gathering)
    assert (again.name, again.count, again.first) == (first.name, 2, NOW)
    request = events.request_of(again, "n1")
    assert (request.method, request.path) == ("PATCH", f"/api/v1/namespaces/shop/events/{first.name}")
    assert body(again) == {"count": 2, "lastTimestamp": "2026-01-01T12:00:30Z"}


def test_a_repeat_while_it_is_being_sent_is_not_lost() -> None:
    gathering = Gathering()
    gathering.add(event(), NOW)
    first = taken(gathering)
    gathering.add(event(), later(seconds=1))
    gathering.sent(first)
    again = taken(gathering)
    assert (again.name, again.count, again.stored) == (first.name, 2, True)


def test_after_a_while_the_same_is_news_again() -> None:
    gathering = Gathering()
    gathering.add(event(), NOW)
    first = taken(gathering)
    gathering.sent(first)
    gathering.add(event(), later(seconds=601))
    again = taken(gathering)
    assert (again.count, again.stored) == (1, False)
    assert again.name != first.name


def test_what_could_not_be_sent_is_first_again() -> None:
    gathering = Gathering()
    for n in range(3):
        gathering.add(event(pod=f"web-{n}"), NOW)
    first = taken(gathering)
    gathering.add(event(pod="web-0"), later(seconds=5))
    gathering.put_back(first)
    again = taken(gathering)
    assert (again.name, again.count, again.last) == (first.name, 2, later(seconds=5))


def test_warnings_are_sent_first() -> None:
    gathering = Gathering()
    gathering.add(event(pod="web-0"), NOW)
    gathering.add(event(pod="web-1", warning=True), NOW)
    gathering.add(event(pod="web-2", warning=True), NOW)
    assert [taken(gathering).event.pod.name for _ in range(3)] == ["web-1", "web-2", "web-0"]


def test_too_many_are_dropped_oldest_first_and_news_before_warnings() -> None:
    gathering = Gathering(max_waiting=3)
    gathering.add(event(pod="warned", warning=True), NOW)
    for n in range(5):
        gathering.add(event(pod=f"web-{n}"), NOW)
    assert (len(gathering), gathering.dropped) == (3, 3)
    assert [taken(gathering).event.pod.name for _ in range(3)] == ["warned", "web-3", "web-4"]
    for n in range(5):
        gathering.add(event(pod=f"warned-{n}", warning=True), NOW)
    assert [taken(gathering).event.pod.name for _ in range(3)] == ["warned-2", "warned-3", "warned-4"]


def test_memory_of_what_was_sent_is_bounded() -> None:
    gathering = Gathering()
    for n in range(3000):
        gathering.add(event(pod=f"web-{n}"), NOW)
        gathering.sent(taken(gathering))
    gathering.add(event(pod="web-2999"), NOW)
    gathering.add(event(pod="web-0"), NOW)
    assert [taken(gathering).count for _ in range(2)] == [2, 1]


@pytest.mark.parametrize(
    ("message", "sent"),
    [("short", "short"), ("x" * 1024, "x" * 1024), ("x" * 1025, "x" * 1021 + "..."), ("é" * 600, "é" * 510 + "...")],
)
def test_messages_fit(message: str, sent: str) -> None:
    gathering = Gathering()
    gathering.add(event(message=message), NOW)
    assert body(taken(gathering))["message"] == sent


def test_the_name_of_a_long_pod_fits() -> None:
    gathering = Gathering()
    gathering.add(event(pod="a" * 235 + ".b" + "c" * 16), NOW)
    occurrence = taken(gathering)
    assert len(occurrence.name) <= 253
    # raises for a name that no object can have
    events.request_of(msgspec.structs.replace(occurrence, stored=True), "n1")


def test_a_pod_that_cannot_be_is_an_error_of_ours() -> None:
    gathering = Gathering()
    gathering.add(Event(pod=PodRef("../x", "y"), pod_uid="", reason="r", message="m"), NOW)
    with pytest.raises(InvalidNetConf):
        events.request_of(taken(gathering), "n1")
