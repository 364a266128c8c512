"""Real daemons: who may call them, with what, what they cost, and how they refuse to start."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from tests.daemon_sites import Site
from tests.daemons import call_of, http, read_all, send

pytestmark = pytest.mark.root

WaitUntil = Callable[..., None]

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
