"""The webhook's server, over real TLS: what it answers, what it refuses, and certificates that change under it."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import pytest
from prometheus_client import CollectorRegistry

from homeport.admission import certificates, reviews
from homeport.admission.reviews import Answer
from homeport.admission.rotating import Authority, Pair
from homeport.admission.serving import MAX_BYTES, ReviewServer
from homeport.model.errors import IOFailure

HOST = "127.0.0.1"
JSON = {"Content-Type": "application/json"}


def made() -> tuple[Authority, Pair]:
    return certificates.make(HOST, datetime.now(UTC), timedelta(days=1))


def review(uid: str, **rest: Any) -> bytes:
    return json.dumps(
        {"apiVersion": reviews.API_VERSION, "kind": "AdmissionReview", "request": {"uid": uid, **rest}}
    ).encode()


def denying(raw: bytes) -> bytes:
    return reviews.encode(reviews.decode(raw).uid, Answer(denial="homeport: no"))


class Make(Protocol):
    def __call__(self, review: Any = denying, *, seconds: float = 5.0) -> tuple[ReviewServer, int]: ...


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def make_server(registry: CollectorRegistry) -> Iterator[Make]:
    """An open server and its port; it serves nothing yet."""
    servers = []

    def make(review: Any = denying, *, seconds: float = 5.0) -> tuple[ReviewServer, int]:
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            port = probe.getsockname()[1]
        server = ReviewServer(HOST, port, review, seconds=seconds, registry=registry)
        server.open()
        servers.append(server)
        return server, port

    yield make
    for server in servers:
        server.close(0)


def context_of(*authorities: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=certificates.joined(authorities).decode())


def connect(port: int, *authorities: Authority) -> http.client.HTTPSConnection:
    connection = http.client.HTTPSConnection(HOST, port, context=context_of(*authorities), timeout=10)
    connection.connect()
    return connection


def ask(connection: http.client.HTTPSConnection, body: bytes, **headers: str) -> tuple[int, bytes]:
    connection.request("POST", "/review", body, {**JSON, **headers})
    answer = connection.getresponse()
    return answer.status, answer.read()


def counted(registry: CollectorRegistry, outcome: str) -> float:
    return registry.get_sample_value("homeport_admission_requests_total", {"outcome": outcome}) or 0.0


def test_a_review_is_answered_over_tls(make_server: Make, registry: CollectorRegistry) -> None:
    server, port = make_server()
    authority, pair = made()
    server.serve(pair)
    connection = connect(port, authority)
    for uid in ("a", "b"):  # one connection for both
        status, body = ask(connection, review(uid))
        assert status == 200
        response = json.loads(body)["response"]
        assert (response["uid"], response["allowed"]) == (uid, False)
    connection.close()
    assert counted(registry, "reviewed") == 2


def test_an_answer_waits_for_no_acknowledgement(make_server: Make) -> None:
    """Head and body are two segments: with Nagle's algorithm the second waits 40 ms for the kernel to acknowledge."""
    server, port = make_server()
    authority, pair = made()
    server.serve(pair)
    connection = connect(port, authority)
    took = []
    for n in range(20):
        began = time.perf_counter()
        assert ask(connection, review(str(n)))[0] == 200
        took.append(time.perf_counter() - began)
    connection.close()
    assert min(took[5:]) < 0.035


def test_old_protocols_are_refused(make_server: Make) -> None:
    server, port = make_server()
    server.serve(made()[1])

    def status(protocol: str) -> int:
        argv = ("openssl", "s_client", "-connect", f"{HOST}:{port}", protocol, "-cipher", "ALL:@SECLEVEL=0")
        return subprocess.run(argv, capture_output=True, check=False, input=b"", timeout=20).returncode

    assert status("-tls1_2") == 0
    assert status("-tls1_1") != 0


def test_a_certificate_takes_anothers_place_and_connections_stay(make_server: Make) -> None:
    server, port = make_server()
    (first, pair), (second, other) = made(), made()
    server.serve(pair)
    before = connect(port, first)
    assert ask(before, review("a"))[0] == 200
    server.serve(other)
    after = connect(port, first, second)
    assert after.sock.getpeercert(True) == ssl.PEM_cert_to_DER_cert(other.pem.decode())
    assert ask(after, review("b"))[0] == 200
    assert ask(before, review("c"))[0] == 200
    with pytest.raises(ssl.SSLError, match="certificate verify failed"):
        connect(port, first)
    before.close()
    after.close()


def test_a_pair_that_cannot_be_used_changes_nothing(make_server: Make) -> None:
    server, port = make_server()
    (authority, pair), (_, other) = made(), made()
    server.serve(pair)
    with pytest.raises(IOFailure, match=r"use a certificate for 127\.0\.0\.1"):
        server.serve(Pair(pem=other.pem, key=pair.key, names=other.names, authority="", life=other.life))
    assert server.served == pair
    connection = connect(port, authority)
    assert ask(connection, review("a"))[0] == 200
    connection.close()


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"", {}, 400),
        (b"{}", {}, 400),
        (b"[" * 100_000, {}, 400),
        (b'{"request": []}', {}, 400),
        (review("a"), {"Content-Type": "text/yaml"}, 415),
        (b" " * (MAX_BYTES + 1), {}, 413),
    ],
)
def test_what_is_no_review(
    make_server: Make, registry: CollectorRegistry, body: bytes, headers: dict[str, str], status: int
) -> None:
    server, port = make_server()
    authority, pair = made()
    server.serve(pair)
    connection = connect(port, authority)
    assert ask(connection, body, **headers)[0] == status
    connection.close()
    assert counted(registry, "refused") == 1


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/review", 405), ("POST", "/", 404)])
def test_there_is_one_page(make_server: Make, method: str, path: str, status: int) -> None:
    server, port = make_server()
    authority, pair = made()
    server.serve(pair)
    connection = connect(port, authority)
    connection.request(method, path, b"", JSON)
    assert connection.getresponse().status == status
    connection.close()


def test_a_content_type_may_have_parameters(make_server: Make) -> None:
    server, port = make_server()
    authority, pair = made()
    server.serve(pair)
    connection = connect(port, authority)
    assert ask(connection, review("a"), **{"Content-Type": "application/json; charset=utf-8"})[0] == 200
    connection.close()


def test_what_cannot_be_reviewed_in_time_is_allowed_with_a_warning(
    make_server: Make, registry: CollectorRegistry
) -> None:
    """All threads are stuck: those who wait behind them are answered, and never reviewed."""
    going, seen = threading.Event(), []

    def stuck(raw: bytes) -> bytes:
        seen.append(reviews.decode(raw).uid)
        going.wait(30)
        return denying(raw)

    server, port = make_server(stuck, seconds=0.3)
    authority, pair = made()
    server.serve(pair)
    answers: list[Any] = []

    def client(uid: str) -> None:
        connection = connect(port, authority)
        answers.append(json.loads(ask(connection, review(uid))[1])["response"])
        connection.close()

    clients = [threading.Thread(target=client, args=(str(n),)) for n in range(12)]
    try:
        for thread in clients:
            thread.start()
        for thread in clients:
            thread.join(10)
    finally:
        going.set()
    assert sorted(a["uid"] for a in answers) == sorted(str(n) for n in range(12))
    assert {a["allowed"] for a in answers} == {True}
    assert {tuple(a["warnings"]) for a in answers} == {("homeport: not looked at: too many requests at once",)}
    assert len(seen) == 2, "more than the threads that there are"
    assert counted(registry, "shed") == 12


def test_the_time_before_a_handshake_counts_for_the_first_request_alone(
    make_server: Make, registry: CollectorRegistry, wait_until: Callable[..., None]
) -> None:
    """In a burst handshakes wait for each other, and so does the API server."""
    server, port = make_server(seconds=0.5)
    authority, pair = made()
    server.serve(pair)
    connection = http.client.HTTPSConnection(HOST, port, context=context_of(authority), timeout=10)
    with socket.create_connection((HOST, port), timeout=10) as plain:
        late = time.monotonic() + 0.6
        wait_until(lambda: time.monotonic() > late)
        connection.sock = context_of(authority).wrap_socket(plain, server_hostname=HOST)
        with connection.sock:
            first = ask(connection, review("a"))
            second = ask(connection, review("b"))
    assert "not looked at" in json.loads(first[1])["response"]["warnings"][0]
    assert counted(registry, "shed") == 1
    assert json.loads(second[1])["response"]["allowed"] is False


def test_a_request_that_never_ends_is_given_up(make_server: Make, registry: CollectorRegistry) -> None:
    server, port = make_server(seconds=0.2)
    authority, pair = made()
    server.serve(pair)
    with (
        socket.create_connection((HOST, port), timeout=10) as plain,
        context_of(authority).wrap_socket(plain, server_hostname=HOST) as secured,
    ):
        secured.sendall(
            b"POST /review HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
        )
        assert b" 408 " in secured.recv(100)
    assert counted(registry, "refused") == 1


def test_on_its_way_out_it_answers_and_ends_each_connection(make_server: Make) -> None:
    server, port = make_server()
    authority, pair = made()
    server.serve(pair)
    connection = connect(port, authority)
    assert ask(connection, review("a"))[0] == 200
    ending = threading.Thread(target=server.close, args=(1.0,))
    ending.start()
    try:
        answered: http.client.HTTPResponse | None = None
        while answered is None or answered.headers.get("Connection") != "close":
            connection.request("POST", "/review", review("b"), JSON)
            answered = connection.getresponse()
            assert answered.status == 200
            answered.read()
        again = connect(port, authority)
        assert ask(again, review("c"))[0] == 200
        again.close()
    finally:
        connection.close()
        ending.join(20)
    with pytest.raises(OSError):  # noqa: PT011
        connect(port, authority)


def test_the_port_is_taken_at_once_and_nobody_is_answered_before_there_is_a_certificate(make_server: Make) -> None:
    server, port = make_server()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, port), timeout=5)
    second = ReviewServer(HOST, port, denying, seconds=1, registry=CollectorRegistry())
    server.serve(made()[1])
    with pytest.raises(IOFailure, match=f"listen on 127.0.0.1 port {port}: Address already in use"):
        second.open()


def test_a_server_that_ends_by_itself_is_noticed(make_server: Make) -> None:
    server, _ = make_server()
    server.serve(made()[1])
    assert not server.has_died()
    (thread,) = [t for t in threading.enumerate() if t.name == "webhook"]
    assert server._server is not None
    server._server.end()  # as an error in its loop would
    thread.join(10)
    assert server.has_died()
    with pytest.raises(IOFailure, match="the server has ended by itself"):
        server.serve(made()[1])


def test_no_key_is_left_in_a_file(make_server: Make) -> None:
    server, _ = make_server()
    server.serve(made()[1])
    names = [path.readlink() for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    assert not [name for name in names if "homeport-admission" in str(name)]
