"""Real daemons: restarted under load, drained, killed, replaced, and called by whom they should not listen to."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.daemons import DaemonProcess, call_of, connect, http, read_all, send, send_patiently

from homeport.daemon import framing
from homeport.daemon.calls import Call, Reply

pytestmark = pytest.mark.root

WaitUntil = Callable[..., None]
# A foreign plugin that takes as long as the test wants: it waits for a file, and notes that it was called.
PLUGIN = """#!/bin/sh
cat > /dev/null
echo "$CNI_COMMAND $CNI_CONTAINERID" >> {base}/calls
[ "$CNI_COMMAND" = DEL ] && [ -e {base}/refuse ] && {{ echo '{{"code": 5, "msg": "not now"}}'; exit 1; }}
while [ -e {base}/hold ]; do sleep 0.02; done
[ "$CNI_COMMAND" = ADD ] && echo '{{"cniVersion": "1.0.0"}}'
exit 0
"""


class Site:
    """A directory with a foreign plugin `slow`, and daemons that share its state."""

    def __init__(self, base: Path) -> None:
        self.base = base
        plugin = base / "bin" / "slow"
        plugin.parent.mkdir()
        plugin.write_text(PLUGIN.format(base=base))
        plugin.chmod(0o755)
        self.daemons: list[DaemonProcess] = []
        self.netns = f"hp-daemon-{os.getpid()}-{secrets.token_hex(4)}"
        subprocess.run(["ip", "netns", "add", self.netns], check=True)

    def close(self) -> None:
        (self.base / "hold").unlink(missing_ok=True)
        for daemon in self.daemons:
            daemon.end()
        subprocess.run(["ip", "netns", "delete", self.netns], check=True)

    def attach(self, daemon: DaemonProcess, *containers: str) -> None:
        """So that a DEL has something to do; `calls` begins anew."""
        for container in containers or ("c1",):
            assert send(daemon.socket, self.call("ADD", container)).exit_code == 0
        (self.base / "calls").unlink()

    def daemon(self, **config: Any) -> DaemonProcess:
        made = DaemonProcess(self.base, **config)
        self.daemons.append(made)
        return made

    def call(self, command: str, container: str = "c1") -> Call:
        """For the meta-plugin, with `slow` as its only delegate."""
        conf = {
            "cniVersion": "1.0.0",
            "name": "n",
            "type": "homeport",
            "binDir": str(self.base / "bin"),
            "delegates": [{"cniVersion": "1.0.0", "name": "slow", "type": "slow"}],
        }
        return call_of(command, container, stdin=json.dumps(conf).encode(), NETNS=f"/run/netns/{self.netns}")

    def hold(self) -> None:
        (self.base / "hold").touch()

    def release(self) -> None:
        (self.base / "hold").unlink()

    def refuse(self, *, now: bool) -> None:
        """Whether the plugin's DEL fails."""
        if now:
            (self.base / "refuse").touch()
        else:
            (self.base / "refuse").unlink()

    def calls(self) -> list[str]:
        path = self.base / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def journalled(self) -> list[str]:
        return sorted(os.listdir(self.base / "state" / "journal"))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()


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


# --- who may call, and what it costs -----------------------------------------------------------------------------

INTRUDER = """
import os, socket, sys
opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
directory = os.open(sys.argv[1], os.O_PATH)
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
try:
    opened.connect(f"/proc/self/fd/{directory}/homeport.sock")
    opened.sendall(sys.argv[2].encode())
    print(repr(opened.recv(100)))
except OSError as e:
    print(type(e).__name__)
"""


@pytest.mark.parametrize("request_", ["HPR1", "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"])
def test_another_user_is_kept_out(site: Site, request_: str) -> None:
    """By the modes; and where those were opened, by its credentials."""
    daemon = site.daemon().start()
    argv = [sys.executable, "-c", INTRUDER, str(daemon.socket.parent), request_]
    assert subprocess.check_output(argv).strip() == b"PermissionError"
    daemon.socket.parent.chmod(0o755)
    daemon.socket.chmod(0o666)
    assert subprocess.check_output(argv).strip() in (b"b''", b"ConnectionResetError", b"BrokenPipeError")
    assert "refused a caller uid=65534" in daemon.log.read_text()
    assert send(daemon.socket, call_of("VERSION")).exit_code == 0
    assert daemon.stop() == 0


def test_hostile_names_touch_nothing(site: Site) -> None:
    daemon = site.daemon().start()
    before = sorted(p for p in site.base.rglob("*") if p != daemon.log)
    for container in ("../../etc", "a/b", ".", "x" * 4096 + "/", "\n", " "):
        for command in ("ADD", "DEL", "CHECK"):
            reply = send(daemon.socket, site.call(command, container))
            assert (reply.exit_code, json.loads(reply.stdout)["code"]) == (1, 4)
    for plugin in ("../bin/slow", "/bin/sh", "x" * 4096, "."):
        call = call_of("DEL", plugin=plugin, stdin=b'{"cniVersion":"1.0.0","name":"n","type":"x"}')
        assert json.loads(send(daemon.socket, call).stdout)["code"] == 105
    assert sorted(p for p in site.base.rglob("*") if p != daemon.log) == before
    assert site.calls() == []
    assert daemon.stop() == 0


@pytest.mark.parametrize(
    ("config", "code", "words"),
    [
        ({"connectionLimit": 0}, 1, 'key "connectionLimit": found 0'),
        ({"perNodeCertificate": {"enabled": True}}, 1, "perNodeCertificate"),
        ({"multusConfigFile": "auto", "cniVersion": "9.9.9"}, 1, "9.9.9"),
        ({"kubeconfig": "/nonexistent"}, 3, "/nonexistent"),
        ({"socketDir": "/proc/nowhere"}, 3, "/proc/nowhere"),
        ({"store": "kubernetes"}, 3, 'key "store": found "kubernetes", expected a kubeconfig'),
        ({"whereaboutsNamespace": "kube-system"}, 3, 'key "whereaboutsNamespace": found "kube-system"'),
    ],
)
def test_exit_codes(site: Site, config: dict[str, Any], code: int, words: str) -> None:
    daemon = site.daemon(**config).start(wait=False)
    assert daemon.wait() == code
    assert words in daemon.log.read_text()
    assert "Traceback" not in daemon.log.read_text()


def test_metrics(site: Site, wait_until: WaitUntil) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    daemon = site.daemon(metricsPort=port).start()
    send(daemon.socket, site.call("DEL"))
    send(daemon.socket, call_of("FROB", plugin="made-up"))
    http(daemon.socket, "POST", "/cni", b"{}")

    def page() -> str:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as opened:
            opened.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            return read_all(opened).decode()

    def holds(line: str) -> bool:
        return line in page()

    for line in (
        'homeport_call_duration_seconds_count{code="0",plugin="homeport",verb="DEL"} 1.0',
        'homeport_call_duration_seconds_count{code="4",plugin="other",verb="other"} 1.0',
        'multus_server_request_total{code="200",handler="/healthz",method="get"}',
        "homeport_calls_in_flight 0.0",
        "homeport_journal_entries 0.0",
        'homeport_replica_attach_total{result="changed"} 0.0',
        "process_resident_memory_bytes",
    ):
        wait_until(partial(holds, line))  # a call is over only after its answer
    assert daemon.stop() == 0


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
