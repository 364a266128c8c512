"""`homeport-controller` as a process, with the role of deploy/rbac.yaml and no other. I/O: processes, files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from testcluster.control_plane import ControlPlane
from testcluster.homeport_node import ROOT

CONTROLLER = (sys.executable, "-m", "homeport.controller")
GROUP = "homeport:controllers"


class HomeportController:
    """One of `plane`, called `name`; its files are in `folder`.

    `settings` go over its configuration file, `environ` is added to its environment. Any number may run at once.
    """

    def __init__(
        self,
        plane: ControlPlane,
        folder: Path,
        *,
        name: str = "controller-a",
        settings: Mapping[str, Any] | None = None,
        program: Sequence[str] = CONTROLLER,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.log_file = folder / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        config = {"kubeconfig": str(plane.kubeconfig(name, [GROUP])), **(settings or {})}
        config_file = folder / f"{name}.json"
        config_file.write_text(json.dumps(config, indent=2))
        self._argv = (*program, "--config", str(config_file))
        self._environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "src"), **(environ or {})}

    def start(self) -> None:
        """Returns at once."""
        assert not self.is_running, f"{self.name} runs"
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                self._argv, env=self._environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """SIGKILL; idempotent."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        """SIGTERM, as a kubelet does; it must end well."""
        assert self.process is not None
        self.process.terminate()
        status = self.process.wait(30)
        assert status == 0, f"{self.name} ended with {status}\n{self.log()[-6000:]}"
        self.process = None

    def pause(self) -> None:
        """It keeps its connections and does nothing. Returns when the last of its threads has stopped."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def log(self) -> str:
        """What it said."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def wait(self, condition: Callable[[], object], seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.is_running, f"{self.name} ended\n{self.log()[-6000:]}"
            assert time.monotonic() < deadline, f"{self.name} after {seconds:g} s: {what}\n{self.log()[-6000:]}"
            time.sleep(0.02)
