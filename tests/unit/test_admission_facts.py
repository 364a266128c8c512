"""What of a cluster is looked at for one object: what concerns it, and little else however large the cluster."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable

import pytest
from tests.admission_reviews import Desk, Json, definition, network_config, workload

from homeport.admission import subjects
from homeport.admission.subjects import Subject
from homeport.kube.resources import DEFINITIONS, STATEFUL_SETS

MAPPED = {"homeport.dev/addresses": '{"storage": ["10.0.0.1"]}'}


@pytest.fixture
def desk() -> Desk:
    return Desk()


def names(found: Iterable[Subject]) -> set[str]:
    return {subject.name for subject in found}


def concerning(desk: Desk, body: Json, old: Json | None = None) -> set[str]:
    resource = DEFINITIONS if body["kind"] == DEFINITIONS.kind else STATEFUL_SETS
    read = [None if b is None else subjects.read(resource, json.dumps(b).encode()) for b in (body, old)]
    assert read[0] is not None
    return names(desk.facts.context_of(read[0], read[1]).subjects)


def test_a_workloads_networks_and_what_shares_their_addresses(desk: Desk) -> None:
    desk.has(
        definition("storage", range="10.0.0.0/16"),
        definition("inside", "other", range="10.0.7.0/24"),
        definition("apart", range="10.9.0.0/16"),
        definition("v6", range="fd00::/64"),
        workload("theirs", networks="other/inside", annotations=MAPPED),
        workload("far", networks="apart", annotations=MAPPED),
    )
    assert concerning(desk, workload()) == {"storage", "inside", "theirs"}


def test_the_networks_of_before_count_too(desk: Desk) -> None:
    desk.has(definition("storage", range="10.0.0.0/24"), definition("blue", range="10.1.0.0/24"))
    assert concerning(desk, workload(networks="blue"), workload(networks="storage")) == {"storage", "blue"}


def test_a_network_and_what_is_on_its_link(desk: Desk) -> None:
    config = {**network_config("apart", range="10.9.0.0/16"), "master": "eth7"}
    desk.has(definition("beside", range="10.9.0.0/16"), definition("apart", config={**config, "ipam": {}}))
    assert concerning(desk, definition("new", range="10.0.0.0/16")) == {"beside"}


def test_plain_workloads_concern_nobody_while_there_is_room(desk: Desk) -> None:
    desk.has(definition(range="10.0.0.0/24"), workload("mapped", 1, annotations=MAPPED))
    desk.has(workload("asks", 1, networks='[{"name": "storage", "ips": ["10.0.0.9"]}]'))
    desk.has(*(workload(f"plain-{n}", 10) for n in range(20)))
    assert concerning(desk, workload(replicas=3)) == {"storage", "mapped", "asks"}
    assert len(concerning(desk, workload(replicas=100))) == 23, "now their number matters"
    assert len(concerning(desk, definition(range="10.0.0.0/16"), definition(range="10.0.0.0/24"))) == 22


def test_of_very_many_the_largest_are_looked_at(desk: Desk) -> None:
    desk.has(definition(range="10.0.0.0/24"))
    for n in range(150):
        desk.has(workload(f"w-{n}", n), watched=False)
    desk.objects.deliver()
    found = concerning(desk, workload())
    assert len(found) == 101
    assert {"w-149", "w-50"} < found
    assert "w-49" not in found


def test_addresses_asked_for_by_others_are_seen_however_much_room_there_is(desk: Desk) -> None:
    config = {**network_config(), "capabilities": {"ips": True}, "ipam": {"type": "static"}}
    asking = '[{"name": "storage", "ips": ["10.0.0.9/24"]}]'
    desk.has(definition(config=config), workload("theirs", 1, networks=asking))
    (line,) = desk.warned(workload(replicas=1, networks=asking))
    assert line.startswith('homeport: ips-twice: 10.0.0.9 is an address of StatefulSet "theirs" too')


def test_very_many_networks_on_one_link(desk: Desk) -> None:
    desk.has(*(definition(f"lan-{n}", range=f"10.{n}.0.0/24") for n in range(60)))
    found = concerning(desk, definition("new", range="10.59.0.0/16"))
    assert len(found) == 24
    assert "lan-59" in found, "what overlaps comes before what is merely near"


def test_a_status_is_no_news(desk: Desk) -> None:
    desk.has(definition(), workload())
    before = desk.facts.context_of(_read(workload("new", 9)), None).subjects
    stored = desk.objects.get(STATEFUL_SETS, "web", namespace="shop")
    assert stored is not None
    desk.objects.patch(STATEFUL_SETS, "web", {"status": {"replicas": 3}}, namespace="shop")
    desk.objects.deliver()
    after = desk.facts.context_of(_read(workload("new", 9)), None).subjects
    web = [next(s for s in found if s.name == "web") for found in (before, after)]
    assert web[0].version != web[1].version
    assert web[0].manifests is web[1].manifests, "not read again"


def _read(body: Json) -> Subject:
    return subjects.read(STATEFUL_SETS, json.dumps(body).encode())


def test_a_workload_that_leaves_a_network_is_forgotten_there(desk: Desk) -> None:
    desk.has(definition(), definition("blue", range="10.1.0.0/29"), workload("web", 6))
    desk.has(workload("web", 6, networks="blue"))
    assert concerning(desk, workload("new", 6)) == {"storage"}
    assert concerning(desk, workload("new", 6, networks="blue")) == {"blue", "web"}
    ending = workload("web", 6, networks="blue")
    ending["metadata"]["deletionTimestamp"] = "2026-11-23T10:00:00Z"
    desk.has(ending)
    assert concerning(desk, workload("new", 6, networks="blue")) == {"blue"}


def test_an_api_server_that_is_away_is_asked_once(desk: Desk) -> None:
    desk.objects.reachable = False
    asked: list[str] = []
    desk.objects.on_call = lambda call: asked.append(call.name)
    assert desk.warned(workload(networks="a,b,c,d")) == []
    assert asked == ["a"]


def test_a_slow_api_server_refuses_nobody_anything() -> None:
    """The review ends in time, without what could not be confirmed."""
    now = [0.0]
    desk = Desk(monotonic=lambda: now[0])
    desk.has(definition(), workload("other", 6))
    assert not desk.ask(workload(replicas=1))["allowed"]

    def slow(_call: object) -> None:
        now[0] += 0.6

    desk.objects.on_call = slow
    desk.has(*(workload(f"small-{n}", 1) for n in range(3)))
    assert desk.denied(workload(replicas=1)) == []


def test_reviews_and_watches_at_once(desk: Desk) -> None:
    """Nothing is torn: whatever a review sees was true at some moment."""
    desk.has(definition(), workload("other", 6))
    ended = threading.Event()
    answers: list[bool] = []
    mistakes: list[BaseException] = []

    def review() -> None:
        try:
            while not ended.is_set():
                answers.append(desk.ask(workload(replicas=1))["allowed"])
        except BaseException as e:  # noqa: BLE001 -- a thread's failure is the test's
            mistakes.append(e)

    threads = [threading.Thread(target=review) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(40):
        desk.has(workload("other", 6, networks=""))
        desk.has(workload("other", 6), definition())
    ended.set()
    for thread in threads:
        thread.join()
    assert not mistakes
    assert answers
    assert not desk.ask(workload(replicas=1))["allowed"]
    assert desk.counted("statefulsets", "failed") == 0
