"""A client of the daemon's own protocol, and real daemons as processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from homeport.daemon import framing
from homeport.daemon.calls import Call, Reply

TIMEOUT_SECONDS = 30.0


def call_of(command: str, container: str = "c1", *, plugin: str = "homeport", stdin: bytes = b"{}", **env: str) -> Call:
    """A call as a runtime makes it; `env` are further variables without their CNI_."""
    environ = {"CNI_COMMAND": command, "CNI_CONTAINERID": container, "CNI_IFNAME": "eth0", "CNI_PATH": "/opt/cni/bin"}
    return Call(plugin=plugin, environ={**environ, **{f"CNI_{k}": v for k, v in env.items()}}, stdin=stdin)


def connect(path: Path) -> socket.socket:
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    opened.settimeout(TIMEOUT_SECONDS)
    try:
        opened.connect(os.fspath(path))
    except OSError:
        opened.close()
        raise
    return opened


def read_all(opened: socket.socket) -> bytes:
    """Until the other end closes. What it sent before it closed on unread bytes counts too."""
    received = bytearray()
    try:
        while chunk := opened.recv(65536):
            received += chunk
    except ConnectionResetError:
        pass
    return bytes(received)


def exchange(path: Path, request: bytes, *, half_close: bool = False) -> bytes:
    """Sends all of it, as far as it is taken, and reads the whole answer."""
    with connect(path) as opened:
        try:
            opened.sendall(request)
            if half_close:
                opened.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass
        return read_all(opened)


def send(path: Path, call: Call) -> Reply:
    """As the shim does."""
    return framing.decode_reply(exchange(path, framing.encode_request(call)))


def send_patiently(path: Path, call: Call, *, seconds: float = 10.0) -> Reply:
    """As the shim does: a daemon that is not there yet is waited for, but a request is sent once."""
    end = time.monotonic() + seconds
    while True:
        try:
            opened = connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            if time.monotonic() > end:
                raise
            time.sleep(0.01)
            continue
        with opened:
            opened.sendall(framing.encode_request(call))
            return framing.decode_reply(read_all(opened))


def http(path: Path, method: str, target: str, body: bytes = b"", headers: Sequence[str] = ()) -> tuple[int, bytes]:
    """(status, body) of one request."""
    lines = [f"{method} {target} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *headers, "", ""]
    answer = exchange(path, "\r\n".join(lines).encode() + body)
    head, _, content = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), content


class DaemonProcess:
    """`homeportd` with directories of its own below `base`, in the network namespace `netns` when given."""

    def __init__(self, base: Path, *, netns: str | None = None, **config: Any) -> None:
        self.socket = base / "run" / "homeport.sock"
        self.state = base / "state"
        self.journal = self.state / "journal"
        self.config = base / "homeportd.json"
        self.log = base / "log"
        self.cni_dir = base / "cni"
        self._netns = netns
        self._given = {
            "socketDir": str(self.socket.parent),
            "stateDir": str(self.state),
            "store": str(base / "allocations.db"),
            "cniDir": str(self.cni_dir),
            **config,
        }
        self.write_config()
        self.process: subprocess.Popen[bytes] | None = None

    def write_config(self, **config: Any) -> None:
        self._given |= config
        self.config.write_text(json.dumps(self._given))

    def start(self, *, wait: bool = True, environ: Mapping[str, str] | None = None) -> DaemonProcess:
        """Returns when it serves."""
        argv = [sys.executable, "-m", "homeport.daemon", "--config", str(self.config)]
        if self._netns is not None:
            argv = ["nsenter", f"--net={self._netns}", "--", *argv]
        env = {**os.environ, "NODENAME": "node-a", **(environ or {})}
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env)
        if wait:
            self.wait_until_serving()
        return self

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def wait_until_serving(self, seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        while not self._answers():
            assert self.process is not None
            assert self.process.poll() is None, f"it ended with {self.process.returncode}:\n{self.log.read_text()}"
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.02)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self, seconds: float = 30.0) -> int:
        """Its exit code."""
        assert self.process is not None
        return self.process.wait(seconds)

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self.wait()

    def end(self) -> None:
        """After a test, whatever state it is in."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def _answers(self) -> bool:
        try:
            with connect(self.socket) as opened:
                opened.settimeout(1.0)
                opened.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                return read_all(opened).startswith(b"HTTP/1.1 200")
        except OSError:
            return False
