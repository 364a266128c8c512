"""Log options as configurations write them, and lines as people and machines read them."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from homeport.daemon import logs
from homeport.daemon.logs import LogOptions
from homeport.model.errors import CniError, InvalidNetConf

STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z"


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Logging as it was."""
    level = logging.getLogger().level
    yield
    logs.configure(LogOptions(to_stderr=False))
    logging.getLogger().setLevel(level)
    structlog.reset_defaults()


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


PARSED: list[tuple[dict[str, Any], LogOptions]] = [
    ({}, LogOptions()),
    ({"type": "homeport", "unknown": [1]}, LogOptions()),
    ({"logFile": "/var/log/x.log"}, LogOptions(file="/var/log/x.log", to_stderr=False)),
    ({"logFile": "/x", "logToStderr": True}, LogOptions(file="/x", to_stderr=True)),
    ({"logToStderr": False}, LogOptions(to_stderr=False)),
    ({"logLevel": "DEBUG"}, LogOptions(level="debug")),
    ({"logLevel": "Verbose"}, LogOptions(level="verbose")),
    ({"logLevel": "loud"}, LogOptions(level="panic", unknown_level="loud")),
    ({"logFormat": "json"}, LogOptions(format="json")),
    (
        {"logOptions": {"maxSize": 7, "maxAge": 0, "maxBackups": 0, "compress": False}},
        LogOptions(max_size_mb=7, max_age_days=0, max_backups=0, compress=False),
    ),
    ({"logOptions": {"maxSize": 0}}, LogOptions(max_size_mb=100)),
    ({"logOptions": None, "logFile": None}, LogOptions()),
    ({"LOGLEVEL": "error", "logfile": "/x"}, LogOptions(level="error", file="/x", to_stderr=False)),
]


@pytest.mark.parametrize(("raw", "options"), PARSED)
def test_options(raw: dict[str, Any], options: LogOptions) -> None:
    assert logs.parse(raw) == options


def test_a_program_may_have_another_default_level() -> None:
    assert logs.parse({}, default_level="verbose").level == "verbose"
    assert logs.parse({"logLevel": "loud"}, default_level="verbose").level == "verbose"
    assert logs.parse({"loglevel": "debug"}, default_level="verbose").level == "debug"


@pytest.mark.parametrize(
    ("raw", "key"),
    [
        ({"logFile": 7}, "logFile"),
        ({"logToStderr": "yes"}, "logToStderr"),
        ({"logFormat": "xml"}, "logFormat"),
        ({"logOptions": {"maxSize": -1}}, "logOptions.maxSize"),
        ({"logOptions": {"compress": 1}}, "logOptions.compress"),
        ({"logOptions": []}, "logOptions"),
    ],
)
def test_wrong_options_name_the_key(raw: dict[str, Any], key: str) -> None:
    with pytest.raises(InvalidNetConf, match=f'key "{re.escape(key)}"'):
        logs.parse(raw)


def test_an_unknown_level_is_told_once_and_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(logs.parse({"logLevel": "loud"}))
    structlog.get_logger().error("hidden by the default level")
    structlog.get_logger().critical("shown")
    told, shown = lines(capsys)
    assert told == 'homeport: key "logLevel": found "loud", expected one of debug, verbose, error, panic'
    assert shown.endswith("[panic] shown")


def test_a_line_of_text(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(LogOptions(level="verbose"))
    structlog.get_logger().info(
        "added interface", pod="a/b", ifname="net1", ok=True, took_ms=3.5, missing=None, ips=["a", "b"], n=[1]
    )
    (line,) = lines(capsys)
    told = r"\[verbose\] added interface pod=a/b ifname=net1 ok=true took_ms=3\.5 missing=null ips=a,b n=\[1\]"
    assert re.fullmatch(f"{STAMP} {told}", line)


def test_nothing_in_a_line_can_pass_for_another(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(LogOptions(level="verbose"))
    forged = "x\n2026-01-01T00:00:00Z [panic] forged\r\x1b[31m\u2028\udcff"
    try:
        raise CniError(forged)
    except CniError:
        structlog.get_logger().error(forged, pod=forged, exc_info=True, **{"a\nb": 'say "hi" \\'})
    found = lines(capsys)
    assert [line for line in found if not line.startswith("    ")] == [found[0]]
    assert "\x1b" not in "".join(found)
    assert r'a\nb="say \"hi\" \\"' in found[0]
    assert found[1] == "    Traceback (most recent call last):"


def test_a_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(LogOptions(level="debug", format="json"))
    logger = structlog.get_logger().bind(pod="a/b")
    logger.debug("x\ny", n=1, where=Path("/run"), nested={"password": "p", "k": 1})
    logger.info("odd", bad="\udcff")
    first, second = (json.loads(line) for line in lines(capsys))
    assert list(first)[:3] == ["timestamp", "level", "event"]
    first.pop("timestamp")
    nested = {"password": "[hidden]", "k": 1}
    assert first == {
        "level": "debug", "event": "x\ny", "pod": "a/b", "n": 1, "where": "/run", "nested": nested
    }  # fmt: skip
    assert second["event"] == "odd"
    assert second["bad"] == r"\udcff"


@pytest.mark.parametrize("form", ["text", "json"])
def test_secrets_stay_out(capsys: pytest.CaptureFixture[str], form: str) -> None:
    logs.configure(logs.parse({"logLevel": "debug", "logFormat": form}))
    jwt = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl"
    log = structlog.get_logger()
    log.info("sent", token="hunter2", headers={"Authorization": "hunter2", "deep": {"clientKey": "hunter2"}})
    log.error("Authorization: Bearer hunter2hunter2", text=f"got {jwt} back")
    log.error("structs", options=[{"bearer": f"Bearer {jwt}"}])
    try:
        raise ValueError("Bearer hunter2hunter2")
    except ValueError:
        log.exception("refused")
    logging.getLogger("urllib3.connectionpool").warning("header %s", "bearer hunter2hunter2")
    logging.getLogger("hpack").debug("never shown: headers")
    shown = capsys.readouterr().err
    assert shown.count("[hidden]") >= 7
    assert "hunter2" not in shown
    assert "eyJ" not in shown
    assert "never shown" not in shown


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("debug", ["debug", "verbose", "warning", "error", "panic"]),
        ("verbose", ["verbose", "warning", "error", "panic"]),
        ("error", ["error", "panic"]),
        ("panic", ["panic"]),
    ],
)
def test_levels(capsys: pytest.CaptureFixture[str], level: logs.Level, shown: list[str]) -> None:
    logs.configure(LogOptions(level=level))
    for log in (structlog.get_logger(), logging.getLogger("some.library")):
        log.debug("x")
        log.info("x")
        log.warning("x")
        log.error("x")
        log.critical("x")
        assert [re.findall(r"\[(\w+)\]", line)[0] for line in lines(capsys)] == shown


def test_a_library_with_wrong_arguments_fails_nobody(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure(LogOptions(level="verbose"))
    ours = [handler for handler in logging.getLogger().handlers if isinstance(handler, logs._Handler)]
    monkeypatch.setattr(logging.getLogger(), "handlers", ours)  # pytest's own would fail the test
    logging.getLogger("lib").info("%s %s", 1)
    assert re.fullmatch(r"log line of lib at line \d+: TypeError", lines(capsys)[0])


def test_loggers_made_before_follow_a_later_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    log = structlog.get_logger()
    logs.configure(LogOptions(level="panic"))
    log.error("quiet")
    logs.configure(LogOptions(level="error"))
    log.error("loud")
    logs.configure(LogOptions(level="error", to_stderr=False))
    log.error("quiet again")
    assert [line.rpartition("] ")[2] for line in lines(capsys)] == ["loud"]


class Broken(io.StringIO):
    """A pipe that nobody reads any more."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


def test_a_broken_or_missing_stderr_fails_nobody(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure(LogOptions(level="error"))
    with monkeypatch.context() as patched:
        patched.setattr("sys.stderr", Broken())
        structlog.get_logger().error("lost")
        structlog.get_logger().error("lost")
        patched.setattr("sys.stderr", None)
        logs.configure(logs.parse({"logLevel": "loud"}))
        structlog.get_logger().critical("nowhere to go")
    logs.configure(LogOptions(level="error"))
    structlog.get_logger().error("kept")
    shown = capsys.readouterr()
    assert [line.rpartition("] ")[2] for line in shown.err.splitlines()] == ["kept"]
    assert shown.out == ""
