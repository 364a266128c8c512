"""Watches that break, lie, stall or expire: the cache loses nothing but what is proven gone, and comes right again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import pytest
from tests.stand_ins_api import (
    LAST_CHUNK,
    Asked,
    Hang,
    Piece,
    Reset,
    ScriptedServer,
    answer,
    chunk,
    not_found,
    status,
    streaming,
)

from homeport.ipam.objects import Pod
from homeport.kube.client import KubernetesClient
from homeport.kube.watching import Timing
from homeport.model.errors import CniError, InternalError, TryAgainLater
from homeport.model.names import PodRef

WaitUntil = Callable[..., None]
QUICK = Timing(
    current_seconds=60, watch_seconds=(1, 1), grace_seconds=0.2, first_pause_seconds=0.02, most_pause_seconds=0.1
)
NETWORKS = "/apis/k8s.cni.cncf.io/v1"


def pod(name: str, uid: str = "u1", version: str = "5", **annotations: str) -> dict[str, Any]:
    meta = {"name": name, "namespace": "shop", "uid": uid, "resourceVersion": version, "annotations": annotations}
    return {"metadata": meta, "spec": {"nodeName": "n1"}, "status": {"phase": "Running"}}


def page(*items: Any, version: str = "10", more: str = "") -> bytes:
    return answer(200, {"metadata": {"resourceVersion": version, "continue": more}, "items": list(items)})


def change(kind: str, value: Any) -> bytes:
    return chunk({"type": kind, "object": value})


def bookmark(version: str) -> bytes:
    return change("BOOKMARK", {"metadata": {"resourceVersion": version}})


EXPIRED = change("ERROR", {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"})


class Script:
    """Answers for pods: a queue of lists and one of watches, the last of each for ever. Other resources are empty.

    A watch is pieces after the head of its answer, or a whole answer.
    """

    def __init__(self, lists: list[list[Piece]], watches: list[list[Piece]]) -> None:
        self.lists, self.watches = list(lists), list(watches)
        self.live: Callable[[Asked], Iterator[Piece]] = _nothing
        self.definitions: Callable[[Asked], Iterator[Piece]] = _empty

    def __call__(self, asked: Asked) -> Iterator[Piece]:
        if asked.path == f"{NETWORKS}/network-attachment-definitions":
            yield from self.definitions(asked)
        elif asked.path != "/api/v1/pods":
            yield from self.live(asked)
        elif asked.watching:
            following = _next(self.watches)
            if not (following and isinstance(following[0], bytes) and following[0].startswith(b"HTTP/")):
                yield streaming()
            yield from following
        else:
            yield from _next(self.lists)


def _next(queue: list[list[Piece]]) -> list[Piece]:
    return queue.pop(0) if len(queue) > 1 else queue[0]


def _nothing(asked: Asked) -> Iterator[Piece]:
    yield not_found(asked.path.rpartition("/")[2], asked.path.split("/")[-2])


def _empty(asked: Asked) -> Iterator[Piece]:
    if asked.watching:
        yield streaming()
        yield Hang()
    yield page()


class Bench:
    """A server with a script, and a client that watches it."""

    def __init__(self, script: Script, timing: Timing) -> None:
        self.server = ScriptedServer(script)
        self.gone: list[tuple[str, str]] = []
        self.troubles: list[CniError] = []
        self.client = KubernetesClient(
            self.server.config, node="n1", deadline_seconds=0.5, on_trouble=self.troubles.append, timing=timing
        )
        self.client.on_pod_gone(lambda ref, uid: self.gone.append((ref.name, uid)))
        self.client.start(seconds=2)

    def watches(self) -> list[str]:
        """The versions that watches of pods began at."""
        return [a.query["resourceVersion"] for a in self.server.asked if a.path == "/api/v1/pods" and a.watching]

    def lists(self) -> list[str]:
        """The continue tokens of the lists of pods."""
        return [a.query.get("continue", "") for a in self.server.asked if a.path == "/api/v1/pods" and not a.watching]

    def live(self) -> list[str]:
        return [a.path for a in self.server.asked if "/namespaces/" in a.path]

    def pod(self, name: str) -> Pod | None:
        return self.client.pod(PodRef("shop", name))


class Run(Protocol):
    def __call__(self, script: Script, timing: Timing = QUICK) -> Bench: ...


@pytest.fixture
def run() -> Iterator[Run]:
    benches: list[Bench] = []

    def make(script: Script, timing: Timing = QUICK) -> Bench:
        benches.append(Bench(script, timing))
        return benches[-1]

    yield make
    for bench in benches:
        bench.client.close()
        bench.server.close()


def test_what_is_watched_is_answered_without_a_question(run: Run, wait_until: WaitUntil) -> None:
    bench = run(Script([[page(pod("a"))]], [[change("ADDED", pod("b", version="11")), Hang()]]))
    wait_until(lambda: bench.client.pods_seen() == 2)
    assert bench.pod("a") == bench.client.pod_with_uid(PodRef("shop", "a"), "u1")
    assert bench.pod("b") is not None
    assert bench.live() == []
    assert bench.pod("c") is None  # what is not watched is asked for
    assert bench.live() == ["/api/v1/namespaces/shop/pods/c"]


def test_a_pod_of_another_uid_is_asked_for(run: Run) -> None:
    script = Script([[page(pod("a"))]], [[Hang()]])
    script.live = lambda _asked: iter([answer(200, pod("a", uid="u2"))])
    bench = run(script)
    found = bench.client.pod_with_uid(PodRef("shop", "a"), "u2")
    assert found is not None
    assert found.uid == "u2"
    assert len(bench.live()) == 1
    assert bench.pod("a") == found  # the newer answer goes before the watch's
    assert len(bench.live()) == 1


def test_a_deletion_is_told_and_a_successor_stays(run: Run, wait_until: WaitUntil) -> None:
    lines = [
        change("MODIFIED", pod("a", version="11", now="2")),
        change("DELETED", pod("a", version="12")),
        change("ADDED", pod("a", uid="u2", version="13")),
        change("DELETED", pod("b", version="14")),
    ]
    bench = run(Script([[page(pod("a"), pod("b"))]], [[*lines, Hang()]]))
    wait_until(lambda: bench.gone == [("a", "u1"), ("b", "u1")])
    found = bench.pod("a")
    assert found is not None
    assert found.uid == "u2"
    assert bench.pod("b") is None


BREAKS: dict[str, list[Piece]] = {
    "ended": [LAST_CHUNK],
    "closed": [b""],
    "reset": [Reset()],
    "half a line": [b"40\r\n" + change("DELETED", pod("a"))[4:40], b""],
    "overloaded": [change("ERROR", {"kind": "Status", "code": 503, "reason": "Unavailable"}), LAST_CHUNK],
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_break_goes_on_from_the_last_version(run: Run, wait_until: WaitUntil, name: str) -> None:
    first: list[Piece] = [change("MODIFIED", pod("a", version="11")), bookmark("20"), *BREAKS[name]]
    second: list[Piece] = [change("ADDED", pod("b", version="21")), Hang()]
    bench = run(Script([[page(pod("a"))]], [first, second]))
    wait_until(lambda: bench.client.pods_seen() == 2)
    assert bench.watches() == ["10", "20"]
    assert len(bench.lists()) == 1
    assert bench.gone == []


LOSSES: dict[str, list[Piece]] = {
    "expired": [EXPIRED, LAST_CHUNK],
    "expired at once": [status(410, "Expired")],
    "garbage": [chunk(b"garbage"), Hang()],
    "no object": [chunk({"type": "ADDED"}), Hang()],
    "unknown type": [change("RENAMED", pod("a")), Hang()],
    "no name": [change("DELETED", {"metadata": {}}), Hang()],
}


@pytest.mark.parametrize("name", LOSSES)
def test_what_was_missed_is_listed(run: Run, wait_until: WaitUntil, name: str) -> None:
    """And what the new list lacks is gone."""
    lists: list[list[Piece]] = [[page(pod("a"), pod("b"))], [page(pod("b"), pod("c"), version="30")]]
    bench = run(Script(lists, [LOSSES[name], [Hang()]]))
    wait_until(lambda: bench.watches() == ["10", "30"])
    assert bench.gone == [("a", "u1")]
    assert bench.client.pods_seen() == 2
    assert len(bench.lists()) == 2


def test_nothing_is_gone_while_lists_fail(run: Run, wait_until: WaitUntil) -> None:
    broken: list[list[Piece]] = [
        [status(403, "Forbidden")],
        [answer(200, b"{")],
        [answer(200, {"metadata": {"resourceVersion": "12"}})],
        [page(pod("b"), {"metadata": {}})],
        [page(pod("b"), version="")],
        [Reset()],
    ]
    bench = run(Script([[page(pod("a"))], *broken, [page(pod("a"), version="30")]], [[EXPIRED], [Hang()]]))
    wait_until(lambda: bench.watches() == ["10", "30"])
    assert bench.gone == []
    assert {type(t).__name__ for t in bench.troubles} >= {"IOFailure", "DecodeFailure"}


def test_pages_are_one_list(run: Run, wait_until: WaitUntil) -> None:
    lists: list[list[Piece]] = [[page(pod("a"), more="t1")], [page(pod("b"), more="t2")], [page(pod("c"))]]
    bench = run(Script(lists, [[Hang()]]))
    wait_until(lambda: bench.watches() == ["10"])
    assert (bench.client.pods_seen(), bench.lists()) == (3, ["", "t1", "t2"])


def test_a_page_that_expired_begins_the_list_anew(run: Run, wait_until: WaitUntil) -> None:
    lists: list[list[Piece]] = [
        [page(pod("a"), pod("b"))],
        [page(pod("a"), more="t1")],
        [status(410, "Expired", "The provided continue parameter is too old")],
        [page(pod("a"), more="t2", version="40")],
        [page(pod("b"), version="40")],
    ]
    bench = run(Script(lists, [[EXPIRED], [Hang()]]))
    wait_until(lambda: bench.watches() == ["10", "40"])
    assert bench.lists() == ["", "", "t1", "", "t2"]
    assert bench.gone == []


def test_a_watch_that_stalls_is_given_up(run: Run, wait_until: WaitUntil) -> None:
    bench = run(Script([[page(pod("a"))]], [[bookmark("15"), Hang()], [change("ADDED", pod("b")), Hang()]]))
    wait_until(lambda: bench.client.pods_seen() == 2)
    assert bench.watches()[:2] == ["10", "15"]


GROWING = Timing(first_pause_seconds=0.1, most_pause_seconds=5)
LEAST_OF_FOUR_PAUSES = (0.1 + 0.2 + 0.4 + 0.8) / 2  # each is anywhere between half of itself and the whole


def test_a_watch_that_ends_at_once_is_not_asked_for_without_end(run: Run, wait_until: WaitUntil) -> None:
    began = time.monotonic()
    bench = run(Script([[page()]], [[LAST_CHUNK]]), GROWING)
    wait_until(lambda: len(bench.watches()) >= 5)
    assert time.monotonic() - began >= LEAST_OF_FOUR_PAUSES


def test_nor_is_a_list_that_expires_at_once(run: Run, wait_until: WaitUntil) -> None:
    began = time.monotonic()
    bench = run(Script([[page()]], [[status(410, "Expired")]]), GROWING)
    wait_until(lambda: len(bench.lists()) >= 5)
    assert time.monotonic() - began >= LEAST_OF_FOUR_PAUSES


def test_a_resource_that_comes_later(run: Run, wait_until: WaitUntil) -> None:
    """NetworkAttachmentDefinitions that are not installed yet."""
    installed = threading.Event()

    def definitions(asked: Asked) -> Iterator[Piece]:
        if not installed.is_set():
            yield answer(404, b"404 page not found\n")
        elif asked.watching:
            yield streaming()
            yield Hang()
        else:
            meta = {"name": "vlan10", "namespace": "shop", "uid": "u", "resourceVersion": "5"}
            yield page({"metadata": meta, "spec": {"config": "{}"}})

    script = Script([[page()]], [[Hang()]])
    script.definitions = definitions
    script.live = lambda _asked: iter([answer(404, b"404 page not found\n")])
    bench = run(script)
    with pytest.raises(TryAgainLater, match='knows no resource "network-attachment-definitions"'):
        bench.client.definition("shop", "vlan10")
    assert bench.client.health().ready
    assert not bench.client.health().definitions_listed
    assert "network-attachment-definitions" in bench.client.health().problems[0]
    installed.set()
    wait_until(lambda: bench.client.health().definitions_listed)
    assert bench.client.definition("shop", "vlan10") is not None
    wait_until(lambda: bench.client.health().problems == ())


# --- outages ---------------------------------------------------------------------------------------------------


def test_what_was_watched_is_still_answered_when_nobody_answers(run: Run, wait_until: WaitUntil) -> None:
    timing = Timing(current_seconds=0, first_pause_seconds=0.02, most_pause_seconds=0.1)
    bench = run(Script([[page(pod("a"))]], [[Hang()]]), timing)
    ref = PodRef("shop", "a")
    bench.client.recall = lambda asked: Pod(ref=asked, uid="recalled")
    wait_until(lambda: bench.client.health().pods_current)
    bench.server.close()
    wait_until(lambda: not bench.client.health().pods_current)
    found = bench.client.pod_with_uid(ref, "u1")
    assert found is not None
    assert found.uid == "u1"
    recalled = bench.client.pod_with_uid(ref, "recalled")
    assert recalled is not None
    assert recalled.uid == "recalled"
    with pytest.raises(TryAgainLater):
        bench.client.pod_with_uid(ref, "nobody-has-it")
    assert bench.gone == []


def test_recall_is_not_asked_while_the_api_server_answers(run: Run) -> None:
    bench = run(Script([[page()]], [[Hang()]]))
    bench.client.recall = lambda ref: Pod(ref=ref, uid="recalled")
    assert bench.client.pod_with_uid(PodRef("shop", "a"), "recalled") is None


def test_an_interrupted_watch_is_not_believed_for_long(run: Run, wait_until: WaitUntil) -> None:
    """The API server answers, but not for the watch: what it told last may be out of date."""
    timing = Timing(current_seconds=0, first_pause_seconds=0.02, most_pause_seconds=0.1)
    script = Script([[page(pod("a"))]], [[LAST_CHUNK], [status(403, "Forbidden")]])
    script.live = lambda _asked: iter([answer(200, pod("a", now="2"))])
    bench = run(script, timing)
    wait_until(lambda: not bench.client.health().pods_current)
    found = bench.pod("a")
    assert found is not None
    assert found.annotations == {"now": "2"}


def test_a_static_pod_is_known_by_its_hash(run: Run) -> None:
    hashed = pod("a", **{"kubernetes.io/config.hash": "f00d"})
    bench = run(Script([[page(hashed)]], [[Hang()]]))
    assert bench.client.pod_with_uid(PodRef("shop", "a"), "f00d") == bench.pod("a")
    assert bench.live() == []


# --- its own life ----------------------------------------------------------------------------------------------


def test_a_listener_that_fails_does_not_end_the_watch(run: Run, wait_until: WaitUntil) -> None:
    lines = [change("DELETED", pod("a", version="12")), change("ADDED", pod("b", version="13"))]
    begin = threading.Event()

    class Waiting(Script):
        def __call__(self, asked: Asked) -> Iterator[Piece]:
            if asked.watching:
                begin.wait(5)
            yield from super().__call__(asked)

    bench = run(Waiting([[page(pod("a"))]], [[*lines, Hang()]]))

    def fail(_ref: PodRef, _uid: str) -> None:
        raise ZeroDivisionError("a bug")

    bench.client.on_pod_gone(fail)
    begin.set()
    wait_until(lambda: bench.pod("b") is not None)
    assert bench.gone == [("a", "u1")]
    assert [(type(t), t.msg) for t in bench.troubles] == [(InternalError, "watch pods: ZeroDivisionError: a bug")]


def test_the_same_trouble_is_told_once(run: Run, wait_until: WaitUntil) -> None:
    bench = run(Script([[status(403, "Forbidden")]], [[Hang()]]))
    wait_until(lambda: len(bench.lists()) >= 4)
    assert [t.msg for t in bench.troubles if "pods" in t.msg] == [bench.troubles[0].msg]


@pytest.mark.parametrize("stalled", ["list", "watch"])
def test_closing_does_not_wait_for_a_stalled_server(run: Run, stalled: str) -> None:
    script = Script([[Hang()] if stalled == "list" else [page()]], [[Hang()]])
    bench = run(script)
    began = time.monotonic()
    bench.client.close()
    assert time.monotonic() - began < 0.5
