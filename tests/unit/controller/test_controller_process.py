"""The program as people and kubelets meet it: its file, its pages, its exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from prometheus_client import CollectorRegistry, Gauge

from homeport.controller import settings
from homeport.controller.serving import Pages
from homeport.model.errors import InvalidNetConf, IOFailure

PROGRAM = [sys.executable, "-m", "homeport.controller"]


def run(*argv: str, config: Any = None, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    arguments = list(argv)
    if folder is not None:
        file = folder / "controller.json"
        file.write_text(config if isinstance(config, str) else json.dumps(config))
        arguments += ["--config", str(file)]
    return subprocess.run([*PROGRAM, *arguments], capture_output=True, text=True, timeout=30, check=False)


# --- settings ----------------------------------------------------------------------------------------------------


def test_everything_has_a_default() -> None:
    found = settings.parse({}, pod="", namespace="")
    assert (found.lease.namespace, found.lease.name) == ("kube-system", "homeport-controller")
    lease = found.lease
    assert (lease.duration_seconds, lease.renew_seconds, lease.retry_seconds) == (15.0, 10.0, 2.0)
    assert (found.kubeconfig, found.metrics_port, found.full_pass_seconds) == (None, None, 300.0)
    assert (found.keeping.days, found.keeping.entries) == (30, 1_000_000)


def test_where_it_runs_names_the_lease_and_every_process_its_own() -> None:
    first, second = (settings.parse({}, pod="homeport-controller-0", namespace="net") for _ in range(2))
    assert first.lease.namespace == "net"
    assert first.lease.identity.startswith("homeport-controller-0_")
    assert first.lease.identity != second.lease.identity


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"leaseSecond": 3}, 'key "leaseSecond": unknown, expected one of kubeconfig, '),
        ({"leaseSeconds": 0}, "leaseSeconds"),
        ({"metricsPort": 70000}, "metricsPort"),
        ({"ledgerDays": "30"}, "ledgerDays"),
        ({"logFormat": "xml"}, "logFormat"),
    ],
)
def test_what_cannot_be_right_is_named(raw: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidNetConf, match=words):
        settings.parse(raw, pod="", namespace="")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("{", "configuration"),
        ({"port": 1}, 'key "port": unknown'),
        ({"kubeconfig": "/nowhere/at/all"}, "/nowhere/at/all"),
    ],
)
def test_it_ends_with_1_when_it_cannot_start(tmp_path: Path, config: Any, words: str) -> None:
    done = run(config=config, folder=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("homeport-controller: ")
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_it_ends_with_1_without_a_file_that_is_named_and_with_2_for_an_unknown_argument() -> None:
    missing = run("--config", "/nowhere.json")
    assert (missing.returncode, "/nowhere.json" in missing.stderr) == (1, True)
    assert run("--unknown").returncode == 2
    assert run("--version").stdout.startswith("homeport-controller ")


# --- pages -------------------------------------------------------------------------------------------------------


class Served:
    def __init__(self) -> None:
        self.unhealthy = self.unready = ""
        registry = CollectorRegistry()
        Gauge("answer", "What is asked for.", registry=registry).set(42)
        self.pages = Pages(
            "127.0.0.1",
            0,
            registry=registry,
            unhealthy=lambda: self.unhealthy,
            unready=lambda: self.unready,
        )
        self.pages.start()

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urlopen(f"http://127.0.0.1:{self.pages.server_address[1]}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as e:
            with e:
                return e.code, e.read().decode()


@pytest.fixture
def served() -> Iterator[Served]:
    made = Served()
    yield made
    made.pages.close()


def test_the_pages_say_how_it_is(served: Served) -> None:
    assert served.get("/healthz") == served.get("/readyz") == (200, "ok\n")
    served.unhealthy, served.unready = "no step for 700 s", "never listed yet: pods"
    assert served.get("/healthz") == (503, "no step for 700 s\n")
    assert served.get("/readyz?verbose") == (503, "never listed yet: pods\n")
    status, text = served.get("/metrics")
    assert (status, "answer 42.0" in text) == (200, True)
    assert served.get("/other") == (404, "/other: found no such page, expected /healthz, /readyz or /metrics\n")


def test_a_port_that_is_taken_is_an_error(served: Served) -> None:
    port = served.pages.server_address[1]
    with pytest.raises(IOFailure, match=f"listen on 127.0.0.1:{port}"):
        Pages("127.0.0.1", port, registry=CollectorRegistry(), unhealthy=str, unready=str)


# --- the process -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_well_at_a_signal_though_no_api_server_answers(
    tmp_path: Path, number: int, wait_until: Callable[..., None]
) -> None:
    kubeconfig = {
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "current-context": "c",
    }
    (tmp_path / "kubeconfig").write_text(json.dumps(kubeconfig))
    (tmp_path / "controller.json").write_text(json.dumps({"kubeconfig": str(tmp_path / "kubeconfig")}))
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*PROGRAM, "--config", str(tmp_path / "controller.json")], stderr=log, env={**os.environ}
        )
    try:
        wait_until(lambda: b"cannot ask for the lease" in (tmp_path / "log").read_bytes(), 20.0)
        wait_until(lambda: _is_awaited(process.pid, number), 20.0)
        process.send_signal(number)
        assert process.wait(20) == 0, (tmp_path / "log").read_text()
    finally:
        process.kill()
        process.wait()


def _is_awaited(pid: int, number: int) -> bool:
    """Whether it has come so far as to wait for the signal: its other threads block it."""
    tasks = [status.read_text().splitlines() for status in Path(f"/proc/{pid}/task").glob("*/status")]
    blocked = [int(line.split()[1], 16) for task in tasks for line in task if line.startswith("SigBlk:")]
    return any(mask >> (number - 1) & 1 for mask in blocked) and len(tasks) > 2


def test_what_only_reviews_need_is_not_loaded_for_the_rest() -> None:
    heavy = ("cryptography", "homeport.lint", "ruamel", "starlette", "uvicorn")
    told = f"import sys, homeport.controller.process; print([m for m in {heavy} if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
