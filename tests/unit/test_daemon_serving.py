"""The daemon's socket with real callers: slow ones, silent ones, too many, too large, and those that go away."""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.daemons import call_of, connect, exchange, http, read_all, send

from homeport.daemon import framing, placing
from homeport.daemon.calls import Call, Outcome, Reply
from homeport.daemon.exchanges import OpeningExchange
from homeport.daemon.placing import Socket
from homeport.daemon.serving import Limits, Server, Stop
from homeport.daemon.workers import Workers

WaitUntil = Callable[..., None]
VERSION = call_of("VERSION")
FRAME = framing.encode_request(VERSION)


class Site:
    """A server in a thread. Calls of a plugin "wait" last until `release`; all answer with their plugin's name."""

    def __init__(self, directory: Path, *, workers: int = 2, backlog: int = 2, limits: Limits | None = None) -> None:
        self.socket: Socket = placing.bind(directory)
        self.begun: list[Call] = []
        self.abandoned: list[bool] = []
        self._released = threading.Event()
        self.workers = Workers(workers, backlog=backlog)
        self.server = Server(
            self.socket.listener,
            carry_out=self._carry_out,
            open_exchange=lambda: OpeningExchange(lambda: "", lambda *_: None),
            workers=self.workers,
            allowed_uids=frozenset({os.geteuid()}),
            limits=limits or Limits(),
        )
        self.complete: bool | None = None
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    @property
    def path(self) -> Path:
        return self.socket.path

    def release(self) -> None:
        self._released.set()

    def join(self) -> bool:
        """How `serve` ended."""
        self._thread.join(20)
        assert self.complete is not None
        return self.complete

    def close(self) -> None:
        self.release()
        self.server.stop(Stop.FOR_GOOD, 5)
        self._thread.join(20)
        self.socket.listener.close()

    def _serve(self) -> None:
        self.complete = self.server.serve()

    def _carry_out(self, call: Call, is_abandoned: Callable[[], bool]) -> Outcome:
        self.begun.append(call)
        if call.plugin == "wait":
            assert self._released.wait(20)
            self.abandoned.append(is_abandoned())
        if call.plugin == "bug":
            raise ZeroDivisionError
        if call.plugin == "large":
            return Outcome(text=b"x" * framing.MAX_STDOUT_BYTES)
        return Outcome(text=call.plugin.encode())


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()


@pytest.fixture
def hasty(tmp_path: Path) -> Iterator[Site]:
    """A server with little patience and little room."""
    made = Site(tmp_path, limits=Limits(connections=3, read_seconds=0.3, write_seconds=0.3, linger_seconds=0.2))
    yield made
    made.close()


def waiting_call(site: Site, container: str, command: str = "ADD") -> socket.socket:
    """A connection whose call is under way, or waits for a worker."""
    opened = connect(site.path)
    opened.sendall(framing.encode_request(call_of(command, container, plugin="wait")))
    return opened


def test_a_call_and_its_answer(site: Site) -> None:
    assert send(site.path, VERSION) == Reply(exit_code=0, stdout=b"homeport")
    assert http(site.path, "GET", "/healthz") == (200, b"")


def test_a_half_closed_connection_gets_its_answer(site: Site) -> None:
    assert framing.decode_reply(exchange(site.path, FRAME, half_close=True)).exit_code == 0
    with waiting_call(site, "c1") as opened:
        opened.shutdown(socket.SHUT_WR)
        site.release()
        assert framing.decode_reply(read_all(opened)).exit_code == 0
    assert site.abandoned == [False]


def test_a_request_in_single_bytes(site: Site) -> None:
    with connect(site.path) as opened:
        for at in range(len(FRAME)):
            opened.sendall(FRAME[at : at + 1])
        assert framing.decode_reply(read_all(opened)).stdout == b"homeport"


@pytest.mark.parametrize("cut", [1, 3, 4, 11, 12, 40, len(FRAME) - 1])
def test_a_request_that_ends_early(site: Site, cut: int) -> None:
    answer = exchange(site.path, FRAME[:cut], half_close=True)
    if cut >= 3:
        reply = framing.decode_reply(answer)
        assert reply.exit_code == 1
        assert b'"code": 6' in reply.stdout
    else:
        assert answer.startswith(b"HTTP/1.1 400")
    assert site.begun == []


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (b"HPR1" + struct.pack(">II", 2**32 - 1, 5), b"expected at most 262144"),
        (b"HPR1" + struct.pack(">II", 5, 2**32 - 1), b"expected at most 4194304"),
        (b"HPR1" + struct.pack(">II", 5, 5 << 20) + b"x" * (5 << 20), b"expected at most 4194304"),
        (b"HPR9" + FRAME[4:], b"expected b'HPR1'"),
        (FRAME + b"x", b"decode request: found"),
        (b"HPR1" + struct.pack(">II", 3, 0) + b"abc", b"does not end with NUL"),
    ],
)
def test_requests_that_are_refused_get_an_answer_all_the_same(site: Site, request_: bytes, words: bytes) -> None:
    reply = framing.decode_reply(exchange(site.path, request_))
    assert reply.exit_code == 1
    assert words in reply.stdout
    assert send(site.path, VERSION).exit_code == 0


def test_somebody_who_only_looks(site: Site) -> None:
    connect(site.path).close()
    assert exchange(site.path, b"", half_close=True) == b""
    assert send(site.path, VERSION).exit_code == 0


def test_slow_and_silent_callers_keep_nobody_else_waiting(hasty: Site, wait_until: WaitUntil) -> None:
    """All places are taken by callers that never finish; when their time is up, others are served."""
    silent = connect(hasty.path)
    slow = connect(hasty.path)
    half = connect(hasty.path)
    slow.sendall(FRAME[:5])
    half.sendall(b"POST /cni HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n")
    assert send(hasty.path, VERSION).exit_code == 0
    for opened in (silent, slow, half):
        assert read_all(opened) == b""
        opened.close()


def test_a_caller_that_drips_gains_no_time(hasty: Site) -> None:
    def drip(opened: socket.socket) -> None:
        for at in range(len(FRAME)):
            opened.sendall(FRAME[at : at + 1])
            time.sleep(0.05)  # the caller's own slowness

    assert len(FRAME) * 0.05 > 2.5
    with connect(hasty.path) as opened:
        began = time.monotonic()
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            drip(opened)
        assert time.monotonic() - began < 2.5


def test_a_caller_that_does_not_read_is_given_up(hasty: Site, wait_until: WaitUntil) -> None:
    with connect(hasty.path) as opened:
        opened.sendall(framing.encode_request(call_of("ADD", plugin="large")))
        wait_until(lambda: len(hasty.begun) == 1)
        assert send(hasty.path, VERSION).exit_code == 0
        wait_until(lambda: _is_hung_up(opened))
        assert len(read_all(opened)) < framing.MAX_STDOUT_BYTES


def test_a_large_answer_reaches_a_caller_that_reads(site: Site) -> None:
    assert len(send(site.path, call_of("ADD", plugin="large")).stdout) == framing.MAX_STDOUT_BYTES


def test_beyond_the_backlog_callers_are_told_at_once(site: Site, wait_until: WaitUntil) -> None:
    callers = [waiting_call(site, f"c{n}") for n in range(4)]  # two run, two wait
    wait_until(lambda: (site.workers.running, site.workers.waiting) == (2, 2))
    reply = send(site.path, call_of("ADD", "c9"))
    assert reply.exit_code == 1
    assert b'"code": 11' in reply.stdout
    assert b"2 calls under way and 2 waiting" in reply.stdout
    assert http(site.path, "GET", "/healthz")[0] == 200
    site.release()
    for opened in callers:
        assert framing.decode_reply(read_all(opened)).exit_code == 0
        opened.close()


def test_calls_of_one_container_come_one_after_the_other(site: Site, wait_until: WaitUntil) -> None:
    callers = [waiting_call(site, "same") for _ in range(3)]
    wait_until(lambda: site.workers.waiting == 2)
    assert len(site.begun) == 1
    assert send(site.path, call_of("ADD", "other")).exit_code == 0
    site.release()
    for opened in callers:
        assert framing.decode_reply(read_all(opened)).exit_code == 0
        opened.close()


def test_a_caller_that_went_away_is_noticed(site: Site, wait_until: WaitUntil) -> None:
    with waiting_call(site, "c1"):
        wait_until(lambda: len(site.begun) == 1)
    site.release()
    wait_until(lambda: site.abandoned == [True])


def test_of_a_caller_that_went_away_before_its_turn_only_the_del_is_done(site: Site, wait_until: WaitUntil) -> None:
    first = waiting_call(site, "c1")
    wait_until(lambda: len(site.begun) == 1)
    waiting_call(site, "c1", "ADD").close()
    waiting_call(site, "c1", "DEL").close()
    wait_until(lambda: site.workers.waiting == 2)
    site.release()
    assert read_all(first)
    first.close()
    assert site.workers.drain(10)
    assert [call.command for call in site.begun] == ["ADD", "DEL"]


def test_a_bug_in_answering_is_answered(site: Site) -> None:
    for _ in range(5):  # more than there are workers
        reply = send(site.path, call_of("ADD", plugin="bug"))
        assert reply.exit_code == 1
        assert b'"code": 999' in reply.stdout


def test_another_user_is_turned_away(tmp_path: Path) -> None:
    """Through a descriptor handed to it, for the directory and the socket keep everybody else out."""
    site = Site(tmp_path)
    site.server._allowed_uids = frozenset({12345})
    assert exchange(site.path, FRAME) == b""
    assert site.begun == []
    site.server._allowed_uids = frozenset({os.geteuid()})
    assert send(site.path, VERSION).exit_code == 0
    site.close()


def test_stopping_serves_those_already_in_the_queue(tmp_path: Path, wait_until: WaitUntil) -> None:
    site = Site(tmp_path, workers=2, backlog=100, limits=Limits(connections=3))
    running = [waiting_call(site, f"c{n}") for n in range(2)]
    wait_until(lambda: len(site.begun) == 2)
    queued = []
    for n in range(20):  # more than there are places: they are not accepted yet
        opened = connect(site.path)
        opened.sendall(framing.encode_request(call_of("DEL", f"q{n}")))
        queued.append(opened)
    site.server.stop(Stop.FOR_GOOD, 20)
    wait_until(lambda: _refuses(site.path))
    site.release()
    for opened in (*running, *queued):
        assert framing.decode_reply(read_all(opened)).exit_code == 0
        opened.close()
    assert site.join()
    site.close()


def test_stopping_for_a_successor_leaves_the_queue_to_it(tmp_path: Path, wait_until: WaitUntil) -> None:
    site = Site(tmp_path)
    running = waiting_call(site, "c1")
    wait_until(lambda: len(site.begun) == 1)
    site.server.stop(Stop.FOR_SUCCESSOR, 20)
    site.release()
    assert framing.decode_reply(read_all(running)).exit_code == 0
    running.close()
    assert site.join()
    later = connect(site.path)
    later.sendall(FRAME)
    successor = Server(
        site.socket.listener,
        carry_out=lambda call, is_abandoned: Outcome(text=b"successor"),
        open_exchange=lambda: OpeningExchange(lambda: "", lambda *_: None),
        workers=Workers(1, backlog=1),
        allowed_uids=frozenset({os.geteuid()}),
    )
    thread = threading.Thread(target=successor.serve)
    thread.start()
    assert framing.decode_reply(read_all(later)).stdout == b"successor"
    later.close()
    successor.stop(Stop.FOR_GOOD, 5)
    thread.join(10)
    assert not thread.is_alive()
    site.close()


def test_stopping_does_not_wait_for_ever(tmp_path: Path, wait_until: WaitUntil) -> None:
    site = Site(tmp_path)
    with waiting_call(site, "c1"):
        wait_until(lambda: len(site.begun) == 1)
        site.server.stop(Stop.FOR_GOOD, 0.2)
        assert not site.join()
    site.close()


def _is_hung_up(opened: socket.socket) -> bool:
    poll = select.poll()
    poll.register(opened, 0)
    return bool(poll.poll(0))


def _refuses(path: Path) -> bool:
    try:
        connect(path).close()
    except ConnectionRefusedError:
        return True
    return False
