"""One server program: started, awaited, paused, stopped. I/O: processes, HTTPS."""

from __future__ import annotations

import http.client
import os
import signal
import ssl
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

POLL_SECONDS = 0.02


class NotReady(Exception):
    """A server did not come up, or not in time; the text ends with the last lines of its log."""


class Server:
    """`argv` runs in the process group `group`; all it prints is added to `log`."""

    def __init__(self, name: str, argv: Sequence[str], log: Path, group: int) -> None:
        self.name = name
        self.log = log
        self._argv = list(argv)
        self._group = group
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the running program."""
        assert self._process, f"{self.name} is not running"
        return self._process.pid

    def start(self) -> None:
        assert self._process is None, f"{self.name} is running"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._argv,
                cwd=self.log.parent,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=self._group,
            )

    def wait(self, is_ready: Callable[[], bool], seconds: float) -> None:
        """Until it is ready; raises `NotReady` when it ended or the time is over."""
        deadline = time.monotonic() + seconds
        while not is_ready():
            assert self._process
            status = self._process.poll()
            if status is not None:
                raise NotReady(f"{self.name} ended with status {status}{self.tail()}")
            if time.monotonic() >= deadline:
                raise NotReady(f"{self.name} is not ready after {seconds:g} s{self.tail()}")
            time.sleep(POLL_SECONDS)

    def pause(self) -> None:
        """It keeps its connections and answers nothing. Returns when the last of its threads has stopped."""
        assert self._process
        self._signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def stop(self, seconds: float = 5.0, *, kill: bool = False) -> None:
        """Ends it and waits for that; idempotent. One that does not end in time is killed."""
        if self._process is None:
            return
        self._signal(signal.SIGKILL if kill else signal.SIGTERM)
        self._signal(signal.SIGCONT)
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def tail(self, lines: int = 20) -> str:
        """The last lines of its log, under a line that says where all of it is."""
        text = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join([f"\nthe end of {self.log}:", *(f"  {line[:400]}" for line in text[-lines:])])

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)


def answers_ok(host: str, port: int, path: str, *, ca: Path | None = None, token: str = "") -> bool:
    """Whether a GET is answered with status 200 now; over TLS when `ca` is given."""
    connection: http.client.HTTPConnection
    if ca is None:
        connection = http.client.HTTPConnection(host, port, timeout=5)
    else:
        context = ssl.create_default_context(cafile=str(ca))
        connection = http.client.HTTPSConnection(host, port, timeout=5, context=context)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
