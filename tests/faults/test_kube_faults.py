"""An API server that is slow, broken, overloaded, or none at all: each question ends in time with a clear error.

The server is a script on a socket, since no real one can be made to do these things.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pytest
from tests.stand_ins_api import (
    Asked,
    Behaviour,
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

from homeport.ipam.identities import Workload
from homeport.kube import connecting
from homeport.kube.asking import HURRIED_SECONDS
from homeport.kube.client import KubernetesClient
from homeport.kube.configs import File
from homeport.model.errors import CniError, DecodeFailure, IOFailure, TryAgainLater
from homeport.model.names import PodRef

WEB_0 = PodRef("shop", "web-0")
DEADLINE = 2.5
SHORT = 0.4


def pod(name: str = "web-0", uid: str = "u1", **annotations: str) -> dict[str, Any]:
    meta = {"name": name, "namespace": "shop", "uid": uid, "resourceVersion": "5", "annotations": annotations}
    return {"kind": "Pod", "metadata": meta, "spec": {"nodeName": "n1"}, "status": {"phase": "Running"}}


class Serve(Protocol):
    def __call__(self, behaviour: Behaviour) -> ScriptedServer: ...


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[ScriptedServer] = []

    def make(behaviour: Behaviour) -> ScriptedServer:
        servers.append(ScriptedServer(behaviour))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


def always(*pieces: Piece) -> Behaviour:
    def behave(_asked: Asked) -> Iterator[Piece]:
        yield from pieces

    return behave


def in_turn(*answers: list[Piece] | bytes) -> Behaviour:
    """Each question gets the next; the last one is for all that follow."""
    left = list(answers)

    def behave(_asked: Asked) -> Iterator[Piece]:
        following = left.pop(0) if len(left) > 1 else left[0]
        yield from [following] if isinstance(following, bytes) else following

    return behave


class Connect(Protocol):
    def __call__(
        self, server: ScriptedServer, *, seconds: float = DEADLINE, token: Path | None = None
    ) -> KubernetesClient: ...


@pytest.fixture
def connect() -> Iterator[Connect]:
    clients: list[KubernetesClient] = []

    def make(server: ScriptedServer, *, seconds: float = DEADLINE, token: Path | None = None) -> KubernetesClient:
        config = server.config if token is None else msgspec.structs.replace(server.config, token=File(str(token)))
        clients.append(KubernetesClient(config, node="n1", deadline_seconds=seconds))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def trickle(whole: bytes) -> Iterator[bytes]:
    for n in range(len(whole)):
        yield whole[n : n + 1]
        time.sleep(0.02)


# --- no answer in time -----------------------------------------------------------------------------------------


def _trickled_head(_asked: Asked) -> Iterator[Piece]:
    yield from trickle(answer(200, pod()))


def _trickled_body(_asked: Asked) -> Iterator[Piece]:
    head, end, body = answer(200, pod()).partition(b"\r\n\r\n")
    yield head + end
    yield from trickle(body)


def _endless_interim(_asked: Asked) -> Iterator[Piece]:
    while True:
        yield b"HTTP/1.1 103 Early Hints\r\n\r\n"
        time.sleep(0.01)


@pytest.mark.parametrize(
    "behaviour",
    [
        always(Hang()),
        always(b"HTTP/1.1 200", Hang()),
        always(b"SSH-2.0-OpenSSH_9.2\r\n", Hang()),
        always(answer(200, pod())[:-1], Hang()),
        always(streaming(), chunk(b"{"), Hang()),
        _trickled_head,
        _trickled_body,
        _endless_interim,
    ],
    ids=[
        "nothing",
        "half a line",
        "no HTTP",
        "one byte short",
        "chunks",
        "trickled head",
        "trickled body",
        "interim answers",
    ],
)
def test_the_deadline_holds_for_every_byte(serve: Serve, connect: Connect, behaviour: Behaviour) -> None:
    server = serve(behaviour)
    began = time.monotonic()
    with pytest.raises(TryAgainLater, match=rf"get pods shop/web-0: no answer from .*: none within {SHORT} s"):
        connect(server, seconds=SHORT).pod(WEB_0)
    assert SHORT * 0.9 <= time.monotonic() - began < SHORT + 0.5
    assert len(server.asked) == 1


# --- broken answers --------------------------------------------------------------------------------------------

BROKEN: dict[str, list[Piece]] = {
    "closed": [b""],
    "reset": [Reset()],
    "half a head": [b"HTTP/1.1 200 OK\r\nContent-", b""],
    "half a body": [answer(200, pod())[:-10], b""],
    "half a chunk": [streaming(), b"ff\r\n{", Reset()],
    "no HTTP": [b"SSH-2.0-OpenSSH_9.2\r\n\r\n"],
    "TLS": [b"\x15\x03\x01\x00\x02\x02\x16", b""],
    "no status": [b"HTTP/1.1 OK\r\n\r\n"],
    "strange length": [b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"],
    "a head without end": [b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000],
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_answer_is_asked_for_again(serve: Serve, connect: Connect, name: str) -> None:
    server = serve(in_turn(BROKEN[name], answer(200, pod())))
    found = connect(server).pod(WEB_0)
    assert found is not None
    assert found.uid == "u1"
    assert len(server.asked) == 2


@pytest.mark.parametrize("name", BROKEN)
def test_but_not_for_ever(serve: Serve, connect: Connect, name: str) -> None:
    server = serve(always(*BROKEN[name]))
    with pytest.raises(TryAgainLater, match=r"get pods shop/web-0: no answer from API server http://127\.0\.0\.1"):
        connect(server).pod(WEB_0)
    assert len(server.asked) == 4


def test_a_frozen_api_server_costs_one_deadline_not_one_a_question(serve: Serve, connect: Connect) -> None:
    """An ADD asks several questions; the first that waited in vain speaks for the others, until one is answered."""
    frozen = True

    def behave(_asked: Asked) -> Iterator[Piece]:
        yield Hang() if frozen else answer(200, pod())

    client = connect(serve(behave), seconds=HURRIED_SECONDS * 3)
    took = []
    for _ in range(3):
        began = time.monotonic()
        with pytest.raises(TryAgainLater):
            client.pod(WEB_0)
        took.append(time.monotonic() - began)
    assert took[0] >= HURRIED_SECONDS * 3
    assert all(HURRIED_SECONDS <= seconds < HURRIED_SECONDS * 3 for seconds in took[1:])
    frozen = False
    assert client.pod(WEB_0)
    frozen = True
    client = connect(serve(behave), seconds=SHORT)
    with pytest.raises(TryAgainLater, match=str(SHORT)):
        client.pod(WEB_0)


def test_nobody_listens(serve: Serve, connect: Connect) -> None:
    server = serve(always(Hang()))
    server.close()
    began = time.monotonic()
    with pytest.raises(TryAgainLater, match=r"no answer from .*: connection refused"):
        connect(server).pod(WEB_0)
    assert time.monotonic() - began < DEADLINE


def test_an_endless_answer(serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connecting, "MAX_BODY_BYTES", 1 << 20)

    def endless(_asked: Asked) -> Iterator[Piece]:
        yield streaming()
        while True:
            yield chunk(b" " * 65536)

    with pytest.raises(DecodeFailure, match="found an answer of more than 1048576 bytes"):
        connect(serve(endless)).pod(WEB_0)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"<html>ok</html>",
        b"\xff\xfe\x00",
        b"null",
        b"[" * 50_000,
        pod("web-1"),
        {"kind": "Status", "status": "Success"},
        {**pod(), "spec": []},
    ],
)
def test_an_answer_of_something_else(serve: Serve, connect: Connect, body: Any) -> None:
    server = serve(always(answer(200, body)))
    with pytest.raises(DecodeFailure):
        connect(server).pod(WEB_0)
    assert len(server.asked) == 1


# --- refusals --------------------------------------------------------------------------------------------------


def test_a_redirect_is_not_followed(serve: Serve, connect: Connect) -> None:
    elsewhere = serve(always(answer(200, pod())))
    server = serve(always(answer(302, b"", Location=f"http://127.0.0.1:{elsewhere.port}/")))
    with pytest.raises(IOFailure, match=r"answered with a redirect \(302\)"):
        connect(server).pod(WEB_0)
    assert (len(server.asked), len(elsewhere.asked)) == (1, 0)


@pytest.mark.parametrize("code", [500, 502, 503, 504, 429])
def test_trouble_of_the_api_server_may_pass(serve: Serve, connect: Connect, code: int) -> None:
    server = serve(in_turn(status(code, "X"), status(code, "X"), answer(200, pod())))
    assert connect(server).pod(WEB_0) is not None
    assert len(server.asked) == 3


@pytest.mark.parametrize("code", [500, 503, 429])
def test_or_not(serve: Serve, connect: Connect, code: int) -> None:
    server = serve(always(status(code, "X", "etcdserver: request timed out")))
    with pytest.raises(TryAgainLater, match=f"answered {code}") as trouble:
        connect(server).pod(WEB_0)
    assert trouble.value.details == "etcdserver: request timed out"
    assert len(server.asked) == 4


def test_who_is_told_to_wait_waits(serve: Serve, connect: Connect) -> None:
    server = serve(in_turn(answer(429, b"", Retry_After="1"), answer(200, pod())))
    began = time.monotonic()
    assert connect(server).pod(WEB_0) is not None
    assert time.monotonic() - began >= 1


def test_or_gives_up_at_once_when_there_is_no_time(serve: Serve, connect: Connect) -> None:
    server = serve(always(answer(429, b"", Retry_After="30")))
    began = time.monotonic()
    with pytest.raises(TryAgainLater, match="answered 429"):
        connect(server).pod(WEB_0)
    assert time.monotonic() - began < 1
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        (status(400, "BadRequest"), IOFailure),
        (status(401, "Unauthorized"), IOFailure),
        (status(403, "Forbidden", 'User "x" cannot get resource "pods"'), IOFailure),
        (answer(404, b"404 page not found\n"), TryAgainLater),
        (status(404, "NotFound", "the server could not find the requested resource"), TryAgainLater),
        (not_found("web-1"), TryAgainLater),
        (status(409, "Conflict"), TryAgainLater),
        (status(410, "Gone"), TryAgainLater),
    ],
)
def test_a_refusal_is_not_repeated_and_never_absence(
    serve: Serve, connect: Connect, refusal: bytes, kind: type[CniError]
) -> None:
    server = serve(always(refusal))
    kubernetes = connect(server)
    questions: list[Callable[[], object]] = [
        lambda: kubernetes.pod(WEB_0),
        lambda: kubernetes.definition("shop", "vlan10"),
        lambda: kubernetes.workload(Workload("shop", "StatefulSet", "web")),
        lambda: kubernetes.node("n1"),
    ]
    for asked, question in enumerate(questions, 1):
        with pytest.raises(kind):
            question()
        assert len(server.asked) == asked


# --- annotations -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("refusal", "now", "written"),
    [
        (status(409, "Conflict"), answer(200, pod(uid="u2")), False),
        (status(409, "Conflict"), not_found("web-0"), False),
        (status(409, "Conflict"), answer(200, pod()), None),
        (status(422, "Invalid", causes=[{"field": "metadata.uid"}]), answer(200, pod(uid="u2")), False),
        (status(422, "Invalid", causes=[{"field": "metadata.annotations"}]), answer(200, pod(uid="u2")), None),
        (not_found("web-0"), answer(200, pod()), False),
        (answer(404, b"404 page not found"), answer(200, pod()), None),
        (status(403, "Forbidden"), answer(200, pod()), None),
        (answer(200, b""), answer(200, pod()), True),
    ],
)
def test_a_conflict_is_another_pod_only_when_there_is_one(
    serve: Serve, connect: Connect, refusal: bytes, now: bytes, written: bool | None
) -> None:
    def behave(asked: Asked) -> Iterator[Piece]:
        yield refusal if asked.method == "PATCH" else now

    kubernetes = connect(serve(behave))
    if written is None:
        with pytest.raises(CniError):
            kubernetes.write_annotations(WEB_0, "u1", {"a": "b"})
    else:
        assert kubernetes.write_annotations(WEB_0, "u1", {"a": "b"}) is written


# --- connections -----------------------------------------------------------------------------------------------


def test_one_connection_serves_one_question_after_the_other(serve: Serve, connect: Connect) -> None:
    server = serve(always(answer(200, pod())))
    kubernetes = connect(server)
    for n in range(5):
        assert kubernetes.pod_with_uid(WEB_0, f"other-{n}") is not None
    assert (len(server.asked), server.connections) == (5, 1)


@pytest.mark.parametrize(
    "last",
    [
        [answer(200, pod(), Connection="close"), b""],
        [answer(200, pod()), b""],
        [b"HTTP/1.0 200 OK\r\n\r\n" + answer(200, pod()).partition(b"\r\n\r\n")[2], b""],
    ],
    ids=["announced", "unannounced", "HTTP/1.0"],
)
def test_a_connection_that_ends_with_its_answer(serve: Serve, connect: Connect, last: list[Piece]) -> None:
    server = serve(always(*last))
    kubernetes = connect(server)
    for n in range(3):
        assert kubernetes.pod_with_uid(WEB_0, f"other-{n}") is not None
    assert (len(server.asked), server.connections) == (3, 3)


def test_a_connection_that_breaks_as_it_is_used_again(serve: Serve, connect: Connect) -> None:
    """As when the peer closes it at the same moment: no attempt is lost, and there is no pause."""
    server = serve(in_turn(answer(200, pod()), [Reset()], answer(200, pod())))
    kubernetes = connect(server, seconds=0.04)  # no time for a pause
    assert kubernetes.pod_with_uid(WEB_0, "x") is not None
    assert kubernetes.pod_with_uid(WEB_0, "y") is not None
    assert (len(server.asked), server.connections) == (3, 2)


def test_after_an_outage_all_kept_connections_are_left(serve: Serve, connect: Connect) -> None:
    together = threading.Barrier(8)

    def behave(_asked: Asked) -> Iterator[Piece]:
        together.wait(5)
        yield answer(200, pod())

    server = serve(behave)
    kubernetes = connect(server)
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda n: kubernetes.pod_with_uid(WEB_0, f"other-{n}"), range(8)))
    assert server.connections == 8
    server.behaviour = always(answer(200, pod()))
    server.hang_up()
    assert kubernetes.pod_with_uid(WEB_0, "x") is not None
    assert server.connections == 9


def test_many_at_once(serve: Serve, connect: Connect) -> None:
    def behave(asked: Asked) -> Iterator[Piece]:
        yield answer(200, pod(asked.path.rpartition("/")[2]))

    server = serve(behave)
    kubernetes = connect(server)

    def ask(n: int) -> bool:
        found = kubernetes.pod(PodRef("shop", f"web-{n}"))
        return found is not None and found.ref.name == f"web-{n}"

    with ThreadPoolExecutor(32) as pool:
        assert all(pool.map(ask, range(500)))
    assert server.connections <= 32


# --- credentials -----------------------------------------------------------------------------------------------


def test_a_token_that_was_renewed_meanwhile_is_read_again(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    def behave(asked: Asked) -> Iterator[Piece]:
        good = asked.headers["authorization"] == "Bearer second"
        yield answer(200, pod()) if good else status(401, "Unauthorized")

    server = serve(behave)
    token = tmp_path / "token"
    token.write_text("first\n")
    kubernetes = connect(server, token=token)
    with pytest.raises(IOFailure, match=r"does not accept our credentials \(401\)") as refusal:
        kubernetes.pod(WEB_0)
    assert "first" not in str(refusal.value)
    assert len(server.asked) == 1
    token.write_text("second\n")
    assert kubernetes.pod(WEB_0) is not None
    assert [a.headers["authorization"] for a in server.asked[1:]] == ["Bearer first", "Bearer second"]


def test_a_token_file_that_goes_away_leaves_the_token(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    server = serve(always(answer(200, pod())))
    token = tmp_path / "token"
    token.write_text("first")
    kubernetes = connect(server, token=token)
    assert kubernetes.pod(WEB_0) is not None
    token.unlink()
    server.behaviour = in_turn(status(401, "Unauthorized"), answer(200, pod()))
    with pytest.raises(IOFailure, match="401"):
        kubernetes.pod_with_uid(WEB_0, "x")
    assert kubernetes.pod_with_uid(WEB_0, "x") is not None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "found nothing, expected a bearer token"),
        (b"a\r\nX-Evil: y", "found characters that no bearer token has"),
        (b"\xff\xfe", "found characters that no bearer token has"),
        (None, "no such file"),
    ],
)
def test_a_token_file_that_holds_none(
    serve: Serve, connect: Connect, tmp_path: Path, content: bytes | None, said: str
) -> None:
    server = serve(always(answer(200, pod())))
    token = tmp_path / "token"
    if content is not None:
        token.write_bytes(content)
    kubernetes = connect(server, token=token)
    with pytest.raises(IOFailure, match=said):
        kubernetes.pod(WEB_0)
    assert server.asked == []
