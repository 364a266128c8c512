"""Real daemons: restarted under load, drained, killed and replaced."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.daemon_sites import Site
from tests.daemons import DaemonProcess, call_of, connect, http, read_all, send, send_patiently

from homeport.daemon import framing
from homeport.daemon.calls import Call, Reply

pytestmark = pytest.mark.root

WaitUntil = Callable[..., None]


def begun(daemon: DaemonProcess, call: Call) -> socket.socket:
    opened = connect(daemon.socket)
    opened.sendall(framing.encode_request(call))
    return opened


def reply_on(opened: socket.socket) -> Reply:
    with opened:
        return framing.decode_reply(read_all(opened))


# --- ending and beginning again ----------------------------------------------------------------------------------


def test_sigterm_finishes_what_runs_and_leaves_no_socket(site: Site, wait_until: WaitUntil) -> None:
    daemon = site.daemon().start()
    site.attach(daemon)
    site.hold()
    running = begun(daemon, site.call("DEL"))
    wait_until(lambda: site.calls() == ["DEL c1"])
    daemon.signal(signal.SIGTERM)
    wait_until(lambda: _refuses(daemon.socket))
    assert daemon.process is not None
    assert daemon.process.poll() is None
    site.release()
    assert reply_on(running).exit_code == 0
    assert daemon.wait() == 0
    assert os.listdir(daemon.socket.parent) == []


def test_sigterm_does_not_wait_for_ever(site: Site, wait_until: WaitUntil) -> None:
    daemon = site.daemon(drainSeconds=0.3).start()
    site.attach(daemon)
    site.hold()
    running = begun(daemon, site.call("DEL"))
    wait_until(lambda: len(site.calls()) == 1)
    assert daemon.stop() == 0
    assert read_all(running) == b""
    running.close()
    assert "gave up on calls under way" in daemon.log.read_text()


def test_a_second_sigterm_ends_it_at_once(site: Site, wait_until: WaitUntil) -> None:
    daemon = site.daemon().start()
    site.attach(daemon)
    site.hold()
    running = begun(daemon, site.call("DEL"))
    wait_until(lambda: len(site.calls()) == 1)
    daemon.signal(signal.SIGTERM)
    wait_until(lambda: _refuses(daemon.socket))
    daemon.signal(signal.SIGTERM)
    assert daemon.wait(5) == 128 + signal.SIGTERM
    running.close()


def test_readiness_ends_before_the_daemon_does(site: Site, wait_until: WaitUntil) -> None:
    daemon = site.daemon().start()
    site.attach(daemon)
    site.hold()
    assert http(daemon.socket, "GET", "/readyz") == (200, b"")
    asker = connect(daemon.socket)
    running = begun(daemon, site.call("DEL"))
    wait_until(lambda: len(site.calls()) == 1)
    daemon.signal(signal.SIGTERM)
    wait_until(lambda: _refuses(daemon.socket))
    asker.sendall(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert read_all(asker).startswith(b"HTTP/1.1 500")
    asker.close()
    site.release()
    assert reply_on(running).exit_code == 0
    assert daemon.wait() == 0


def test_hot_restarts_under_load_lose_no_call(site: Site) -> None:
    """Calls from many callers, through five restarts: each is sent once, and answered."""
    daemon = site.daemon().start()
    pid, ends = daemon.pid, time.monotonic() + 12
    answered, restarts = [0], 0
    stop = threading.Event()

    def keep_calling(n: int) -> None:
        while not stop.is_set():
            reply = framing.decode_reply(_exchange_once(daemon.socket, call_of("VERSION", f"c{n}")))
            assert reply.exit_code == 0
            answered[0] += 1  # one thread more or less does not matter

    with ThreadPoolExecutor(8) as pool:
        callers = [pool.submit(keep_calling, n) for n in range(8)]
        while restarts < 5 and time.monotonic() < ends:
            before = daemon.log.read_text().count(" serving ")
            daemon.signal(signal.SIGHUP)
            restarts += 1
            while daemon.log.read_text().count(" serving ") == before:
                assert time.monotonic() < ends, daemon.log.read_text()
                time.sleep(0.01)
        stop.set()
        for caller in callers:
            caller.result(30)
    assert restarts == 5
    assert answered[0] > 50
    assert daemon.pid == pid
    assert daemon.stop() == 0


def test_a_hot_restart_waits_for_calls_under_way(site: Site, wait_until: WaitUntil) -> None:
    daemon = site.daemon().start()
    site.attach(daemon, "c1", "c2")
    site.hold()
    running = begun(daemon, site.call("DEL", "c1"))
    wait_until(lambda: len(site.calls()) == 1)
    daemon.signal(signal.SIGHUP)
    waiting = begun(daemon, site.call("DEL", "c2"))
    site.release()
    assert reply_on(running).exit_code == 0
    assert reply_on(waiting).exit_code == 0
    assert site.calls() == ["DEL c1", "DEL c2"]
    assert daemon.stop() == 0


def test_a_hot_restart_reads_the_configuration_anew_unless_it_is_broken(site: Site, wait_until: WaitUntil) -> None:
    daemon = site.daemon().start()
    daemon.config.write_text("{")
    daemon.signal(signal.SIGHUP)
    wait_until(lambda: "no restart, as the configuration is broken" in daemon.log.read_text())
    daemon.write_config(socketDir="/elsewhere")
    daemon.signal(signal.SIGHUP)
    wait_until(lambda: "no restart, as this key needs a stop and a start" in daemon.log.read_text())
    assert send(daemon.socket, call_of("VERSION")).exit_code == 0
    daemon.write_config(socketDir=str(daemon.socket.parent), nonsense=1)
    daemon.signal(signal.SIGHUP)
    wait_until(lambda: 'key \\"nonsense\\": unknown' in daemon.log.read_text(), 20.0)
    daemon.wait_until_serving()
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0


def test_sigterm_during_a_hot_restart_is_not_lost(site: Site, wait_until: WaitUntil) -> None:
    daemon = site.daemon().start()
    daemon.signal(signal.SIGHUP)
    wait_until(lambda: "for a successor" in daemon.log.read_text())
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0
    assert os.listdir(daemon.socket.parent) == []


# A daemon at the end of a hot restart: its main thread takes no signal any more, another one does.
LATE_SIGNAL = """
import os, select, signal, sys, threading
from homeport.daemon.operating import SIGNALS, Signals

signals = Signals()
signals.listen()
threading.Thread(target=threading.Event().wait, daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
os.kill(os.getpid(), {number})
assert select.select([signals.received], [], [], 10)[0]
os.set_inheritable(signals.received, True)
os.execv(sys.executable, [sys.executable, "-c", f'''
from homeport.daemon.operating import Signals
signals = Signals()
signals.inherit({{signals.received}})
print(signals.stop)
'''])
"""


@pytest.mark.parametrize(("number", "wish"), [(15, "Stop.FOR_GOOD"), (2, "Stop.FOR_GOOD"), (1, "None")])
def test_a_signal_just_before_the_exec_of_a_hot_restart_reaches_the_successor(number: int, wish: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LATE_SIGNAL.format(number=number)], capture_output=True, text=True, timeout=30
    )
    assert done.stdout == f"{wish}\n", done.stderr


def test_after_sigkill_the_next_start_goes_on(site: Site, wait_until: WaitUntil) -> None:
    first = site.daemon().start()
    site.attach(first)
    site.hold()
    running = begun(first, site.call("DEL"))
    wait_until(lambda: len(site.calls()) == 1)
    first.signal(signal.SIGKILL)
    first.wait()
    assert read_all(running) == b""
    running.close()
    site.release()
    second = site.daemon().start()
    assert send(second.socket, site.call("DEL")).exit_code == 0
    assert second.stop() == 0


# --- the journal -------------------------------------------------------------------------------------------------


def test_what_a_shim_dropped_is_done_at_the_next_start_and_later(site: Site, wait_until: WaitUntil) -> None:
    first = site.daemon().start()
    site.attach(first, "c1", "c2")
    assert first.stop() == 0
    journal = first.journal
    (journal / "c1-eth0-0123456789abcdef.del").write_bytes(framing.encode_request(site.call("DEL", "c1")))
    (journal / "garbage.del").write_bytes(b"garbage")
    daemon = site.daemon().start()
    wait_until(lambda: site.journalled() == ["garbage.del.bad"])
    assert site.calls() == ["DEL c1"]
    (journal / "late.del").write_bytes(framing.encode_request(site.call("DEL", "c2")))
    wait_until(lambda: site.journalled() == ["garbage.del.bad"])
    assert site.calls() == ["DEL c1", "DEL c2"]
    assert daemon.stop() == 0


def test_entries_survive_daemons_until_they_can_be_done(site: Site, wait_until: WaitUntil) -> None:
    daemon = site.daemon().start()
    site.attach(daemon)
    assert daemon.stop() == 0
    site.refuse(now=True)
    (daemon.journal / "a.del").write_bytes(framing.encode_request(site.call("DEL")))
    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGHUP):
        tries = len(site.calls())
        daemon = site.daemon().start()
        wait_until(lambda: len(site.calls()) > tries)  # noqa: B023
        daemon.signal(number)
        if number == signal.SIGHUP:
            wait_until(lambda: daemon.log.read_text().count("for a successor") == 1)  # noqa: B023
            daemon.wait_until_serving()
        else:
            daemon.wait()
        assert site.journalled() == ["a.del"]
    reply = send(daemon.socket, site.call("ADD"))  # not before it is done
    assert json.loads(reply.stdout)["code"] == 11
    site.refuse(now=False)
    wait_until(lambda: site.journalled() == [], 15.0)
    assert daemon.stop() == 0


# --- two daemons -------------------------------------------------------------------------------------------------


def test_a_new_daemon_takes_over_from_an_old_one(site: Site, wait_until: WaitUntil) -> None:
    """The old one finishes its calls; those that come meanwhile wait for the new one."""
    old = site.daemon().start()
    site.attach(old, "c1", "c2")
    site.hold()
    running = begun(old, site.call("DEL", "c1"))
    wait_until(lambda: len(site.calls()) == 1)
    new = site.daemon().start(wait=False)
    wait_until(lambda: "waiting for another daemon" in new.log.read_text(), 20.0)
    waiting = begun(new, site.call("DEL", "c2"))
    assert site.calls() == ["DEL c1"]
    site.release()
    assert reply_on(running).exit_code == 0
    assert old.wait() == 0
    assert reply_on(waiting).exit_code == 0
    assert send(new.socket, call_of("VERSION")).exit_code == 0
    assert new.stop() == 0


def test_taking_over_under_load_loses_no_call(site: Site) -> None:
    """Callers come as shims do: they wait for a daemon to connect to, and send once."""
    daemons = [site.daemon().start()]
    answered = [0]
    stop = threading.Event()

    def keep_calling(n: int) -> None:
        while not stop.is_set():
            assert send_patiently(daemons[0].socket, call_of("VERSION", f"c{n}")).exit_code == 0
            answered[0] += 1

    with ThreadPoolExecutor(6) as pool:
        callers = [pool.submit(keep_calling, n) for n in range(6)]
        for _ in range(3):
            daemons.append(site.daemon().start(wait=False))
            assert daemons[-2].wait() == 0
        stop.set()
        for caller in callers:
            caller.result(30)
    assert answered[0] > 100
    daemons[-1].wait_until_serving()
    assert daemons[-1].stop() == 0


def test_a_daemon_whose_socket_was_removed_says_so(site: Site) -> None:
    daemon = site.daemon().start()
    daemon.socket.unlink()
    assert daemon.wait() == 3
    assert "somebody removed it" in daemon.log.read_text()


def _exchange_once(path: Path, call: Call) -> bytes:
    """One connection, one request: nothing is tried again."""
    with connect(path) as opened:
        opened.sendall(framing.encode_request(call))
        return read_all(opened)


def _refuses(path: Path) -> bool:
    try:
        connect(path).close()
    except (ConnectionRefusedError, FileNotFoundError):
        return True
    return False
