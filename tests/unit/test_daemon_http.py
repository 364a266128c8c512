"""Upstream's protocol on the daemon's socket: requests as bytes, whole and byte by byte, to responses as bytes."""

from __future__ import annotations

import base64
import json
from ipaddress import ip_interface
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeport.daemon import http
from homeport.daemon.calls import Call, Outcome
from homeport.daemon.exchanges import OpeningExchange
from homeport.daemon.http import MAX_BODY_BYTES, HttpExchange
from homeport.model.errors import TryAgainLater
from homeport.model.results import IPConfig, Result

ENV = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/x", "CNI_ARGS": "K8S_POD_NAME=p"}
CONF = b'{"cniVersion":"0.3.1","name":"n","type":"multus-shim"}'


def body(**changed: Any) -> bytes:
    whole = {"env": ENV, "config": base64.b64encode(CONF).decode(), **changed}
    return json.dumps({k: v for k, v in whole.items() if v is not None}).encode()


def request(method: str, target: str, content: bytes = b"", *headers: str, length: bool = True) -> bytes:
    sizes = [f"Content-Length: {len(content)}"] if length else []
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: dummy", *sizes, *headers, "", ""]).encode() + content


def feed(data: bytes, *, by: int, unready: str = "", ends: bool = False) -> Call | bytes | None:
    """What a new connection makes of `data`, given in pieces of `by` bytes."""
    exchange = OpeningExchange(lambda: unready, lambda *_: None)
    for at in range(0, len(data), by):
        answer = exchange.receive(data[at : at + by])
        if answer is not None:
            return answer
    return exchange.receive(b"") if ends else None


def status(answer: Call | bytes | None) -> int:
    assert isinstance(answer, bytes)
    return int(answer.split()[1])


@pytest.mark.parametrize("by", [1, 7, 1 << 20])
def test_a_call_of_multus_shim(by: int) -> None:
    environ = {**ENV, "CNI_IFNAME": "eth0", "CNI_PATH": "/opt/cni/bin"}
    call = feed(request("POST", "/cni", body(), "User-Agent: Go-http-client/1.1"), by=by)
    assert call == Call(plugin="multus-shim", environ=environ, stdin=CONF)


def test_a_call_in_chunks() -> None:
    content = body()
    chunks = (
        b"5\r\n" + content[:5] + b"\r\n" + f"{len(content) - 5:x}".encode() + b"\r\n" + content[5:] + b"\r\n0\r\n\r\n"
    )
    data = request("POST", "/cni", chunks, "Transfer-Encoding: chunked", length=False)
    for by in (1, 1 << 20):
        call = feed(data, by=by)
        assert isinstance(call, Call)
        assert call.stdin == CONF


def test_what_the_environment_says_goes_before_what_upstream_supposes() -> None:
    call = http.decode_call(
        body(env={**ENV, "CNI_IFNAME": "a", "CNI_PATH": "/p", "PATH": "/bin", "HOME": ""}), hotplug=False
    )
    assert call.environ == {**ENV, "CNI_IFNAME": "a", "CNI_PATH": "/p"}
    assert call.attributes is None


def test_a_hotplug_call() -> None:
    attributes = {"ips": ["10.0.0.7/24"], "mac": "02:00:00:00:00:07", "cni-args": {"a": 1}}
    call = feed(request("POST", "/delegate", body(interfaceAttributes=attributes)), by=1 << 20)
    assert isinstance(call, Call)
    assert call.attributes == attributes
    without = feed(request("POST", "/delegate", body()), by=1 << 20)
    assert isinstance(without, Call)
    assert without.attributes == {}


@pytest.mark.parametrize("by", [1, 1 << 20])
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (request("GET", "/healthz"), 200),
        (request("POST", "/healthz"), 200),
        (request("GET", "/healthz?verbose"), 200),
        (request("GET", "/readyz"), 200),
        (request("GET", "/healthz", length=False), 200),
        (request("HEAD", "/healthz"), 405),
        (request("DELETE", "/readyz"), 405),
        (request("GET", "/cni"), 405),
        (request("PUT", "/cni", body()), 405),
        (request("GET", "/delegate"), 405),
        (request("GET", "/"), 404),
        (request("POST", "/cni/", body()), 404),
        (request("POST", "/../../etc/passwd", body()), 404),
        (request("POST", "/cni", length=False), 411),
        (request("POST", "/cni", b"", f"Content-Length: {MAX_BODY_BYTES + 1}", length=False), 413),
        (request("POST", "/cni", b"", "Content-Length: 99999999999999999999", length=False), 413),
        (request("POST", "/cni", b"", "Content-Length: x", length=False), 400),
        (request("POST", "/cni", b"", "Content-Length: -1", length=False), 400),
        (request("POST", "/cni", b"", "Content-Length: 1", "Content-Length: 2", length=False), 400),
        (request("POST", "/cni", b"zz\r\n", "Transfer-Encoding: chunked", length=False), 400),
        (request("POST", "/cni", b"", "Transfer-Encoding: gzip", length=False), 501),
        (request("POST", "/cni", body(), "Expect: 100-continue"), 417),
        (b"GET /healthz HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"HELLO\r\n\r\n", 400),
        (b"HPQ1 is not ours either\r\n\r\n", 400),
        (b"\x00\x01\x02\x03\x04\r\n\r\n", 400),
        (b"GET /" + b"a" * 20000, 431),
        (b"GET /healthz HTTP/1.1\r\nX: " + b"a" * 20000, 431),
        (request("POST", "/cni"), 400),
        (request("POST", "/cni", b"null"), 400),
        (request("POST", "/cni", b"[" * 100000), 400),
        (request("POST", "/cni", body(config="*not base64*")), 400),
        (request("POST", "/cni", body(env={"CNI_NETNS": 5})), 400),
        (request("POST", "/cni", body(env={"CNI_NETNS": "/run/\0netns"})), 400),
        (request("POST", "/delegate", body(interfaceAttributes=["a"])), 400),
    ],
)
def test_requests_answered_at_once(data: bytes, expected: int, by: int) -> None:
    answer = feed(data, by=by)
    assert status(answer) == expected
    assert isinstance(answer, bytes)
    head, _, content = answer.partition(b"\r\n\r\n")
    assert b"Connection: close" in head
    assert (b"Allow:" in head or b"allow:" in head) is (expected == 405)
    if b"application/json" in head and content:
        assert json.loads(content)["code"] in (4, 6)


def test_readiness_is_told_with_its_reason() -> None:
    answer = feed(request("GET", "/readyz"), by=99, unready="the daemon is stopping")
    assert status(answer) == 500
    assert isinstance(answer, bytes)
    assert answer.endswith(b"the daemon is stopping\n")
    assert status(feed(request("GET", "/healthz"), by=99, unready="the daemon is stopping")) == 200


def test_a_body_that_is_cut_short() -> None:
    assert status(feed(request("POST", "/cni", body())[:-1], by=1 << 20, ends=True)) == 400
    assert feed(request("POST", "/cni", body())[:-1], by=1 << 20) is None


def test_a_body_in_chunks_without_end() -> None:
    chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    data = request("POST", "/cni", chunk * 8, "Transfer-Encoding: chunked", length=False)
    assert status(feed(data, by=1 << 16)) == 413


def answer_to(outcome: Outcome) -> tuple[int, bytes]:
    exchange = HttpExchange(lambda: "")
    assert isinstance(exchange.receive(request("POST", "/cni", body())), Call)
    head, _, content = exchange.encode(outcome).partition(b"\r\n\r\n")
    return int(head.split()[1]), content


def test_outcomes() -> None:
    result = Result(ips=(IPConfig(address=ip_interface("10.0.0.5/24")),))
    code, content = answer_to(Outcome(cni_version="0.3.1", result=result))
    assert code == 200
    assert json.loads(content) == {"Result": {"cniVersion": "1.1.0", "ips": [{"address": "10.0.0.5/24"}]}}
    assert answer_to(Outcome(cni_version="0.3.1")) == (200, b"")
    assert answer_to(Outcome(text=b"text")) == (200, b"text")
    code, content = answer_to(Outcome(cni_version="0.3.1", error=TryAgainLater("busy", "really")))
    assert code == 400
    assert json.loads(content) == {"cniVersion": "0.3.1", "code": 11, "msg": "busy", "details": "really"}


def test_requests_are_counted_by_path() -> None:
    counted: list[tuple[str, int, str]] = []
    for data in (request("GET", "/healthz"), request("PUT", "/cni"), request("GET", "/made/up/by/a/caller")):
        HttpExchange(lambda: "", lambda *labels: counted.append(labels)).receive(data)
    assert counted == [("/healthz", 200, "GET"), ("/cni", 405, "PUT")]


@given(st.one_of(st.binary(), st.binary().map(lambda b: b"POST /cni HTTP/1.1\r\nHost: x\r\n" + b)), st.integers(1, 64))
def test_no_bytes_do_worse_than_being_refused(data: bytes, by: int) -> None:
    answer = feed(data, by=by, ends=True)
    assert answer is None or isinstance(answer, Call | bytes)


@given(st.binary())
def test_no_body_does_worse_than_being_refused(data: bytes) -> None:
    answer = feed(request("POST", "/cni", data), by=1 << 20)
    assert isinstance(answer, Call) or status(answer) == 400
