"""The runtime's configuration while a real daemon starts, restarts, hands over, fails and ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.root

WaitUntil = Callable[..., None]
PROGRAM = "from homeport.daemon.process import main; main()"


class Machine:
    """Directories of a node, and the daemons started there."""

    def __init__(self, root: Path, wait_until: WaitUntil) -> None:
        self.root = root
        self.directory = root / "net.d"
        self.directory.mkdir()
        self.target = self.directory / "00-multus.conf"
        self.log = root / "log"
        self.processes: list[subprocess.Popen[bytes]] = []
        self._wait_until = wait_until
        primary = {"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "bridge"}]}
        (self.directory / "10-pods.conflist").write_text(json.dumps(primary))

    def start(self, **changes: Any) -> subprocess.Popen[bytes]:
        file = self.root / "homeportd.json"
        own = {"socketDir": str(self.root / "run"), "stateDir": str(self.root / "state"), "logFile": str(self.log)}
        file.write_text(json.dumps({**own, "multusConfigFile": "auto", "cniConfigDir": str(self.directory), **changes}))
        process = subprocess.Popen([sys.executable, "-c", PROGRAM, "--config", str(file)])
        self.processes.append(process)
        return process

    def wait_for(self, count: int, text: str) -> None:
        """Until the log has `count` lines with that text."""
        self._wait_until(lambda: self.log.exists() and self.log.read_text().count(text) >= count, deadline=20)


@pytest.fixture
def machine(tmp_path: Path, wait_until: WaitUntil) -> Iterator[Machine]:
    made = Machine(tmp_path, wait_until)
    yield made
    for process in made.processes:
        process.kill()
        process.wait()


class Observer:
    """Looks at the file again and again: how often it was not there, or not whole."""

    def __init__(self, target: Path) -> None:
        self.wrong: list[str] = []
        self.looks = 0
        self._target = target
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Observer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(0.002):
            self.looks += 1
            try:
                json.loads(self._target.read_bytes())
            except (OSError, ValueError) as e:
                self.wrong.append(repr(e))


def test_it_is_there_through_restart_and_end(machine: Machine, wait_until: WaitUntil) -> None:
    daemon = machine.start()
    wait_until(machine.target.exists, deadline=20)
    machine.wait_for(1, "serving")
    with Observer(machine.target) as observer:
        daemon.send_signal(signal.SIGHUP)
        machine.wait_for(2, "serving")
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(20) == 0
    assert observer.looks > 10
    assert observer.wrong == []


def test_it_goes_with_the_daemon_where_that_is_asked_for_but_not_in_a_restart(
    machine: Machine, wait_until: WaitUntil
) -> None:
    daemon = machine.start(keepConfigOnExit=False)
    wait_until(machine.target.exists, deadline=20)
    machine.wait_for(1, "serving")
    with Observer(machine.target) as observer:
        daemon.send_signal(signal.SIGHUP)
        machine.wait_for(2, "serving")
        wait_until(lambda: observer.looks > 10)
    assert observer.wrong == []
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(20) == 0
    assert not machine.target.exists()


def test_another_daemon_takes_over_and_the_file_stays(machine: Machine, wait_until: WaitUntil) -> None:
    first = machine.start(keepConfigOnExit=False)
    machine.wait_for(1, "wrote the configuration")
    machine.wait_for(1, "serving")
    with Observer(machine.target) as observer:
        second = machine.start(keepConfigOnExit=False)
        assert first.wait(20) == 0
        machine.wait_for(2, "serving")
    assert observer.wrong == []
    assert second.poll() is None


def test_a_killed_daemon_leaves_it_to_the_next(machine: Machine, wait_until: WaitUntil) -> None:
    first = machine.start(keepConfigOnExit=False)
    machine.wait_for(1, "wrote the configuration")
    first.kill()
    first.wait()
    assert machine.target.exists()
    second = machine.start(keepConfigOnExit=False)
    machine.wait_for(2, "serving")
    second.send_signal(signal.SIGTERM)
    assert second.wait(20) == 0


def test_it_goes_when_the_primary_plugin_is_not_ready_any_more(machine: Machine, wait_until: WaitUntil) -> None:
    ready = machine.root / "ready"
    daemon = machine.start(readinessindicatorfile=str(ready))
    machine.wait_for(1, "not there yet")
    assert not machine.target.exists()
    ready.touch()
    wait_until(machine.target.exists, deadline=20)
    ready.unlink()
    assert daemon.wait(20) == 2
    assert not machine.target.exists()
    assert "has vanished" in machine.log.read_text()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"multusConfigFile": "no-path"}, 'key "multusConfigFile": found "no-path", expected an absolute path'),
        ({"cniVersion": "9.0.0"}, 'cniVersion: found "9.0.0"'),
        ({"logOptions": {"maxSize": "big"}}, 'key "logOptions.maxSize": found "big"'),
    ],
)
def test_a_wrong_configuration_ends_the_start(
    machine: Machine, capfd: pytest.CaptureFixture[str], changes: dict[str, Any], text: str
) -> None:
    assert machine.start(**changes).wait(20) == 1
    assert text in capfd.readouterr().err
    assert not machine.target.exists()
