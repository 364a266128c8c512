"""Events and an API server that is away, refuses, or forgets: nobody waits, and a moment's trouble loses none."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.stand_ins_api import Asked, Hang, Piece, ScriptedServer, answer, not_found, status

from homeport.kube.client import KubernetesClient
from homeport.model.errors import CniError
from homeport.model.names import PodRef
from homeport.ports import Event

WaitUntil = Callable[..., None]
CREATED = answer(201, {})


def event(n: int = 0, message: str = "m") -> Event:
    return Event(pod=PodRef("shop", f"web-{n}"), pod_uid="u", reason="AddedInterface", message=message)


class Bench:
    """A server whose `answers` are given one a request, the last one for ever, and a client that only sends events."""

    def __init__(self) -> None:
        self.answers: list[Piece] = [CREATED]
        self.troubles: list[CniError] = []
        self.server = ScriptedServer(self._behave)
        self.client = KubernetesClient(self.server.config, node="n1", on_trouble=self.troubles.append)

    def _behave(self, _asked: Asked) -> Iterator[Piece]:
        yield self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(a.body) for a in self.server.asked]

    def methods(self) -> list[str]:
        return [a.method for a in self.server.asked]


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.client.close()
    made.server.close()


def test_nobody_waits(bench: Bench) -> None:
    bench.answers = [Hang()]
    bench.client.start(watching=False)
    began = time.monotonic()
    for n in range(3000):
        bench.client.emit(event(n))
    assert time.monotonic() - began < 1
    assert bench.client.events_dropped >= 1999  # the queue is bounded
    began = time.monotonic()
    bench.client.close()
    assert time.monotonic() - began < 3


def test_an_outage_loses_none(bench: Bench, wait_until: WaitUntil) -> None:
    bench.answers = [*[status(503, "ServiceUnavailable")] * 6, CREATED]
    bench.client.start(watching=False)
    bench.client.emit(event())
    wait_until(lambda: len(bench.server.asked) == 7, 10)
    assert len({b["metadata"]["name"] for b in bench.bodies()}) == 1  # so that a second copy is refused
    assert bench.client.events_dropped == 0
    assert len(bench.troubles) == 1


def test_what_is_forbidden_for_a_moment_is_sent(bench: Bench, wait_until: WaitUntil) -> None:
    """As by an API server that has just started, and has not read its roles."""
    bench.answers = [status(403, "Forbidden"), status(403, "Forbidden"), CREATED]
    bench.client.start(watching=False)
    bench.client.emit(event())
    wait_until(lambda: len(bench.server.asked) == 3)
    assert bench.client.events_dropped == 0


def test_what_is_forbidden_is_given_up_in_the_end(bench: Bench, wait_until: WaitUntil) -> None:
    bench.answers = [status(403, "Forbidden", "no")]
    bench.client.start(watching=False)
    bench.client.emit(event())
    wait_until(lambda: bench.client.events_dropped == 1, 15)
    assert len(bench.server.asked) == 5
    assert len(bench.troubles) == 1


def test_a_namespace_that_ends_takes_its_events_along(bench: Bench, wait_until: WaitUntil) -> None:
    bench.answers = [status(403, "Forbidden", causes=[{"reason": "NamespaceTerminating"}]), CREATED]
    bench.client.start(watching=False)
    bench.client.emit(event(1))
    bench.client.emit(event(2))
    wait_until(lambda: len(bench.server.asked) == 2)
    assert [b["involvedObject"]["name"] for b in bench.bodies()] == ["web-1", "web-2"]
    assert bench.troubles == []


def test_one_that_exists_was_sent_before(bench: Bench, wait_until: WaitUntil) -> None:
    bench.answers = [status(409, "AlreadyExists"), answer(200, {})]
    bench.client.start(watching=False)
    bench.client.emit(event())
    wait_until(lambda: len(bench.server.asked) == 1)
    bench.client.emit(event())
    wait_until(lambda: bench.methods() == ["POST", "PATCH"])
    assert bench.bodies()[1]["count"] == 2


def test_one_that_was_forgotten_is_made_anew(bench: Bench, wait_until: WaitUntil) -> None:
    bench.client.start(watching=False)
    bench.client.emit(event())
    wait_until(lambda: len(bench.server.asked) == 1)
    name = bench.bodies()[0]["metadata"]["name"]
    bench.answers = [not_found(name, "events"), CREATED]
    bench.client.emit(event())
    wait_until(lambda: bench.methods() == ["POST", "PATCH", "POST"])
    again = bench.bodies()[2]
    assert again["count"] == 2
    assert again["metadata"]["name"] != name


def test_one_that_no_server_can_take_does_not_stop_the_others(bench: Bench, wait_until: WaitUntil) -> None:
    bench.client.start(watching=False)
    bench.client.emit(Event(pod=PodRef("../x", "y"), pod_uid="", reason="r", message="m"))
    bench.client.emit(event())
    wait_until(lambda: len(bench.server.asked) == 1)
    assert bench.client.events_dropped == 1


def test_many_threads_emit_and_all_is_counted(bench: Bench, wait_until: WaitUntil) -> None:
    bench.client.start(watching=False)

    def emit() -> None:
        for n in range(100):
            bench.client.emit(event(n % 5))

    threads = [threading.Thread(target=emit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    def counts() -> dict[str, int]:
        """By the Event's name, whose latest count is what holds."""
        found: dict[str, int] = {}
        for asked, body in zip(bench.server.asked, bench.bodies(), strict=False):
            name = body["metadata"]["name"] if asked.method == "POST" else asked.path.rpartition("/")[2]
            found[name] = body["count"]
        return found

    wait_until(lambda: sorted(counts().values()) == [80] * 5)
