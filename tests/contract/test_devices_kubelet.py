"""`KubeletDevices` against a real gRPC server, and against servers that misbehave."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import h2.config
import h2.connection
import h2.events
import h2.exceptions
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from homeport.devices import calling
from homeport.devices.kubelet import KubeletDevices
from homeport.model.errors import CniError, DecodeFailure, InvalidEnvironment, IOFailure, TryAgainLater
from homeport.model.names import PodRef

POD = PodRef("prod", "web-0")
ANSWER = bytes.fromhex("0a240a057765622d30120470726f641a150a016112100a03782f791207303030303a30311a00")
FOUND = {"x/y": ("0000:01",)}

List = Callable[[bytes, Any], bytes]


@pytest.fixture
def kubelet(tmp_path: Path) -> Path:
    """A kubelet's directory, with neither socket nor file yet."""
    (tmp_path / "pod-resources").mkdir()
    (tmp_path / "device-plugins").mkdir()
    return tmp_path


def socket_of(kubelet: Path) -> str:
    return str(kubelet / "pod-resources/kubelet.sock")


@contextmanager
def served(kubelet: Path, answer: List, *, maximum: int = 4 * 1024 * 1024) -> Iterator[grpc.Server]:
    server = grpc.server(
        futures.ThreadPoolExecutor(8), options=[("grpc.max_send_message_length", maximum), ("grpc.so_reuseport", 0)]
    )
    handler = grpc.unary_unary_rpc_method_handler(answer)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("v1.PodResourcesLister", {"List": handler})])
    server.add_insecure_port(f"unix:{socket_of(kubelet)}")
    server.start()
    try:
        yield server
    finally:
        server.stop(None).wait(10)


def test_a_real_server(kubelet: Path) -> None:
    seen: list[tuple[bytes, float]] = []

    def answer(request: bytes, context: Any) -> bytes:
        seen.append((request, context.time_remaining()))
        return ANSWER

    with served(kubelet, answer):
        devices = KubeletDevices(kubelet)
        assert devices.of_pod(POD, "uid") == FOUND
        assert devices.of_pod(POD, "") == FOUND
        with pytest.raises(TryAgainLater, match="does not list this pod"):
            devices.of_pod(PodRef("prod", "web-1"), "uid")
    assert all(request == b"" and 0 < left <= 10 for request, left in seen), "the deadline travels with the call"


def test_many_at_once(kubelet: Path) -> None:
    with served(kubelet, lambda _request, _context: ANSWER), futures.ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda _: KubeletDevices(kubelet).of_pod(POD, "uid"), range(64)))
    assert found == [FOUND] * 64


def test_a_large_reply_goes_through_every_window(kubelet: Path) -> None:
    """9 MB: far beyond the 64 KB that HTTP/2 lets through before a window is opened again."""
    other = b"\x0a" + bytes([0x80 | 0x7F, 0x07]) + b"\x0a" + bytes([0x80 | 0x7C, 0x07]) + b"x" * 1020
    assert len(other) == 1026
    reply = other * 9000 + ANSWER
    with served(kubelet, lambda _request, _context: reply, maximum=-1):
        assert KubeletDevices(kubelet).of_pod(POD, "uid") == FOUND


def test_a_reply_beyond_the_bound(kubelet: Path) -> None:
    reply = bytes(17 * 1024 * 1024)
    with (
        served(kubelet, lambda _request, _context: reply, maximum=-1),
        pytest.raises(IOFailure, match="more than 16777216 bytes"),
    ):
        KubeletDevices(kubelet).of_pod(POD, "uid")


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (grpc.StatusCode.UNAVAILABLE, TryAgainLater),
        (grpc.StatusCode.DEADLINE_EXCEEDED, TryAgainLater),
        (grpc.StatusCode.INTERNAL, IOFailure),
        (grpc.StatusCode.PERMISSION_DENIED, IOFailure),
    ],
)
def test_an_error_status(kubelet: Path, code: grpc.StatusCode, error: type[CniError]) -> None:
    def answer(_request: bytes, context: Any) -> bytes:
        context.abort(code, "höhere Gewalt")
        return b""

    with served(kubelet, answer), pytest.raises(error) as caught:
        KubeletDevices(kubelet).of_pod(POD, "uid")
    assert caught.value.msg.endswith(f"kubelet.sock: the server answered {code.name}")
    assert caught.value.details == "höhere Gewalt"


def test_a_kubelet_without_the_service(kubelet: Path) -> None:
    server = grpc.server(futures.ThreadPoolExecutor(1))
    server.add_insecure_port(f"unix:{socket_of(kubelet)}")
    server.start()
    with pytest.raises(IOFailure, match="UNIMPLEMENTED"):
        KubeletDevices(kubelet).of_pod(POD, "uid")
    server.stop(None).wait(10)


def test_a_server_that_turns_calls_away_is_asked_again(kubelet: Path) -> None:
    calls: list[float] = []

    def answer(_request: bytes, context: Any) -> bytes:
        calls.append(time.monotonic())
        if len(calls) < 4:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "rejected by rate limit")
        return ANSWER

    with served(kubelet, answer):
        assert KubeletDevices(kubelet).of_pod(POD, "uid") == FOUND
    pauses = [after - before for before, after in pairwise(calls)]
    assert all(pause >= least for pause, least in zip(pauses, (0.05, 0.1, 0.2), strict=True))


def test_a_server_that_turns_calls_away_for_ever(kubelet: Path) -> None:
    def answer(_request: bytes, context: Any) -> bytes:
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "rejected by rate limit")
        return b""

    with served(kubelet, answer), pytest.raises(TryAgainLater, match="RESOURCE_EXHAUSTED"):
        KubeletDevices(kubelet, timeout_seconds=0.5).of_pod(POD, "uid")


def test_a_slow_server(kubelet: Path) -> None:
    ended = threading.Event()

    def answer(_request: bytes, _context: Any) -> bytes:
        ended.wait(20)
        return ANSWER

    with served(kubelet, answer):
        started = time.monotonic()
        with pytest.raises(TryAgainLater, match=r"no answer within 0\.\d+ s|DEADLINE_EXCEEDED|reset"):
            KubeletDevices(kubelet, timeout_seconds=0.4).of_pod(POD, "uid")
        assert time.monotonic() - started < 5
        ended.set()


def test_a_server_that_stops_in_good_order_still_answers(kubelet: Path) -> None:
    asked, stopping = threading.Event(), threading.Event()

    def answer(_request: bytes, _context: Any) -> bytes:
        asked.set()
        stopping.wait(20)
        return ANSWER

    with served(kubelet, answer) as server, futures.ThreadPoolExecutor(1) as pool:
        found = pool.submit(KubeletDevices(kubelet).of_pod, POD, "uid")
        assert asked.wait(10)
        stopped = server.stop(10)  # GOAWAY goes out now
        stopping.set()
        assert found.result(10) == FOUND
        stopped.wait(10)


def test_a_reply_that_is_no_list(kubelet: Path) -> None:
    with served(kubelet, lambda _request, _context: b"\xff\xff"), pytest.raises(DecodeFailure):
        KubeletDevices(kubelet).of_pod(POD, "uid")


# --- no server, no socket ----------------------------------------------------------------------------------------


def write_checkpoint(kubelet: Path) -> None:
    entry = {"PodUID": "uid", "ResourceName": "x/y", "DeviceIDs": {"0": ["0000:01"]}}
    (kubelet / "device-plugins/kubelet_internal_checkpoint").write_text(
        json.dumps({"Data": {"PodDeviceEntries": [entry]}})
    )


def test_the_file_where_there_is_no_socket(kubelet: Path) -> None:
    write_checkpoint(kubelet)
    assert KubeletDevices(kubelet).of_pod(POD, "uid") == FOUND
    assert KubeletDevices(kubelet).of_pod(POD, "other") == {}
    with pytest.raises(InvalidEnvironment, match="by UID"):
        KubeletDevices(kubelet).of_pod(POD, "")


def test_neither_socket_nor_file(kubelet: Path) -> None:
    with pytest.raises(IOFailure, match=r"found neither .*kubelet\.sock nor .*kubelet_internal_checkpoint"):
        KubeletDevices(kubelet).of_pod(POD, "uid")


def test_a_socket_nobody_listens_at_is_not_no_devices(kubelet: Path) -> None:
    write_checkpoint(kubelet)
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(socket_of(kubelet))
    with pytest.raises(TryAgainLater, match="Connection refused"):
        KubeletDevices(kubelet).of_pod(POD, "uid")


def test_a_directory_that_cannot_be_searched(tmp_path: Path) -> None:
    loop = tmp_path / "pod-resources"
    loop.symlink_to(loop)
    with pytest.raises(IOFailure, match="Too many levels of symbolic links"):
        KubeletDevices(tmp_path).of_pod(POD, "uid")


def test_a_checkpoint_too_large(kubelet: Path) -> None:
    with open(kubelet / "device-plugins/kubelet_internal_checkpoint", "wb") as file:
        file.truncate(17 * 1024 * 1024)
    with pytest.raises(IOFailure, match="more than 16777216 bytes"):
        KubeletDevices(kubelet).of_pod(POD, "uid")


# --- servers that misbehave --------------------------------------------------------------------------------------


@contextmanager
def misbehaving(kubelet: Path, talk: Callable[[socket.socket], None]) -> Iterator[None]:
    """A server that has `talk` with whoever comes first."""
    path = socket_of(kubelet)
    if os.path.exists(path):
        os.unlink(path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def accept() -> None:
            peer, _ = listener.accept()
            with peer:
                try:
                    talk(peer)
                except (OSError, h2.exceptions.ProtocolError):
                    return  # one of us has hung up or said goodbye

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield
        finally:
            thread.join(20)
            assert not thread.is_alive()


HEADERS = [(":status", "200"), ("content-type", "application/grpc")]
MESSAGE = b"\0" + len(ANSWER).to_bytes(4, "big") + ANSWER
GOOD = [("grpc-status", "0")]


def speaking(say: Callable[[h2.connection.H2Connection, socket.socket], None]) -> Callable[[socket.socket], None]:
    """A talk in HTTP/2: `say` is called when the request is complete."""

    def talk(peer: socket.socket) -> None:
        http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, validate_outbound_headers=False))
        http.initiate_connection()
        peer.sendall(http.data_to_send())
        while data := peer.recv(65536):
            events = http.receive_data(data)
            if any(isinstance(event, h2.events.StreamEnded) for event in events):
                say(http, peer)
            peer.sendall(http.data_to_send())

    return talk


def whole(
    headers: list[tuple[str, str]], body: bytes = b"", trailers: list[tuple[str, str]] | None = None
) -> Callable[[socket.socket], None]:
    def say(http: h2.connection.H2Connection, _peer: socket.socket) -> None:
        http.send_headers(1, headers, end_stream=trailers is None and not body)
        if body:
            http.send_data(1, body, end_stream=trailers is None)
        if trailers is not None:
            http.send_headers(1, trailers, end_stream=True)

    return speaking(say)


def test_the_server_above_says_it_right(kubelet: Path) -> None:
    with misbehaving(kubelet, whole(HEADERS, MESSAGE, GOOD)):
        assert KubeletDevices(kubelet).of_pod(POD, "uid") == FOUND


def in_pieces(http: h2.connection.H2Connection, peer: socket.socket) -> None:
    http.send_headers(1, HEADERS)
    for n in range(len(MESSAGE)):
        http.send_data(1, MESSAGE[n : n + 1])
    http.send_headers(1, GOOD, end_stream=True)
    for byte in http.data_to_send():
        peer.sendall(bytes([byte]))


def test_one_byte_at_a_time(kubelet: Path) -> None:
    with misbehaving(kubelet, speaking(in_pieces)):
        assert KubeletDevices(kubelet).of_pod(POD, "uid") == FOUND


def hanging_up_after_all(http: h2.connection.H2Connection, peer: socket.socket) -> None:
    http.send_headers(1, HEADERS)
    http.send_data(1, MESSAGE)
    peer.sendall(http.data_to_send())
    http.send_headers(1, GOOD, end_stream=True)
    peer.sendall(http.data_to_send())
    peer.shutdown(socket.SHUT_RDWR)


def test_a_server_that_hangs_up_when_it_has_said_all(kubelet: Path) -> None:
    for _ in range(10):
        with misbehaving(kubelet, speaking(hanging_up_after_all)):
            assert KubeletDevices(kubelet).of_pod(POD, "uid") == FOUND


def going_away(http: h2.connection.H2Connection, peer: socket.socket) -> None:
    http.close_connection(error_code=0, last_stream_id=0)


def failing(http: h2.connection.H2Connection, peer: socket.socket) -> None:
    http.close_connection(error_code=2, last_stream_id=1)


def resetting(http: h2.connection.H2Connection, peer: socket.socket) -> None:
    http.send_headers(1, HEADERS)
    http.reset_stream(1, error_code=8)


def hanging_up(http: h2.connection.H2Connection, peer: socket.socket) -> None:
    http.send_headers(1, HEADERS)
    http.send_data(1, MESSAGE[:20])
    peer.sendall(http.data_to_send())
    peer.shutdown(socket.SHUT_RDWR)


def silent(peer: socket.socket) -> None:
    while peer.recv(65536):
        continue


def garbage(peer: socket.socket) -> None:
    peer.recv(65536)
    peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 100)


def a_huge_frame(peer: socket.socket) -> None:
    peer.sendall(b"\xff\xff\xff\x00\x00\x00\x00\x00\x01")
    silent(peer)


def pings_for_ever(peer: socket.socket) -> None:
    peer.sendall(b"\x00\x00\x00\x04\x00\x00\x00\x00\x00")
    while True:
        peer.sendall(b"\x00\x00\x08\x06\x00\x00\x00\x00\x00" + bytes(8))
        peer.recv(65536)


GZIPPED = b"\x01" + MESSAGE[1:]
BAD = [
    (speaking(going_away), TryAgainLater, "going away"),
    (speaking(failing), TryAgainLater, "going away"),
    (speaking(resetting), TryAgainLater, "the stream was reset"),
    (speaking(hanging_up), TryAgainLater, "closed before the end|reset by peer"),
    (silent, TryAgainLater, "no answer within"),
    (pings_for_ever, TryAgainLater, "no answer within"),
    (garbage, IOFailure, "not HTTP/2"),
    (a_huge_frame, IOFailure, "not HTTP/2"),
    (whole(HEADERS, MESSAGE), TryAgainLater, "without a status"),
    (whole([(":status", "503"), ("content-type", "text/plain")], b"no"), IOFailure, "HTTP status 503"),
    (whole([*HEADERS, ("grpc-status", "14"), ("grpc-message", "a%20b%")]), TryAgainLater, "UNAVAILABLE"),
    (whole(HEADERS, MESSAGE, [("grpc-status", "many")]), IOFailure, "UNKNOWN"),
    (whole(HEADERS, MESSAGE, [("grpc-status", "99")]), IOFailure, "status 99"),
    (whole(HEADERS, b"", GOOD), IOFailure, "found 0 bytes, expected one message of 0"),
    (whole(HEADERS, MESSAGE[:-1], GOOD), IOFailure, "expected one message of 38"),
    (whole(HEADERS, MESSAGE + MESSAGE, GOOD), IOFailure, "expected one message of 38"),
    (whole(HEADERS, GZIPPED, GOOD), IOFailure, "not compressed"),
    (whole([*HEADERS, ("grpc-encoding", "gzip")], MESSAGE, GOOD), IOFailure, "not compressed"),
]


@pytest.mark.parametrize(("talk", "error", "text"), BAD)
def test_bad_answers(kubelet: Path, talk: Callable[[socket.socket], None], error: type[CniError], text: str) -> None:
    with misbehaving(kubelet, talk), pytest.raises(error, match=text) as caught:
        KubeletDevices(kubelet, timeout_seconds=0.5 if "no answer" in text else 10).of_pod(POD, "uid")
    assert type(caught.value) is error


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=st.data())
def test_any_bytes_end_in_our_error(kubelet: Path, raw: st.DataObject) -> None:
    """Whole frames of every type with any contents, after a good beginning."""
    kinds, flags, streams = st.integers(0, 12), st.integers(0, 255), st.sampled_from([0, 1, 2, 3])
    frames = raw.draw(st.lists(st.tuples(kinds, flags, streams, st.binary(max_size=40))))
    flood = b"".join(
        len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body
        for kind, flags, stream, body in frames
    )

    def talk(peer: socket.socket) -> None:
        peer.recv(65536)
        peer.sendall(b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" + flood)
        peer.shutdown(socket.SHUT_WR)
        silent(peer)

    with misbehaving(kubelet, talk), pytest.raises(CniError):
        calling.call(socket_of(kubelet), "/a.B/C", b"", timeout_seconds=5, max_reply_bytes=1000)


def test_no_descriptor_is_left(kubelet: Path) -> None:
    with misbehaving(kubelet, whole(HEADERS, MESSAGE, GOOD)):
        KubeletDevices(kubelet).of_pod(POD, "uid")
    before = len(os.listdir("/proc/self/fd"))
    for talk in (whole(HEADERS, MESSAGE, GOOD), garbage):
        with misbehaving(kubelet, talk):
            try:
                KubeletDevices(kubelet).of_pod(POD, "uid")
            except IOFailure:
                continue
    assert len(os.listdir("/proc/self/fd")) == before
