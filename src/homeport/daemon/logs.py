"""The daemon's log: its options, its lines, where they go. I/O: stderr, and a file through `rotating`.

Every part of the daemon logs with `structlog.get_logger()`; what libraries say through `logging` comes out in the same
form. A line is an RFC 3339 time, the level, the text, then `key=value` as in logfmt, or one JSON object. A line never
breaks out of its own: control characters are escaped, whatever name or message brought them. Logging never fails a
call: a line that cannot be written is counted, and the loss is told as soon as writing works again.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, MutableMapping
from datetime import timedelta
from typing import Annotated, Any, Literal, TextIO

import msgspec
import structlog

from homeport.cni import documents
from homeport.daemon.rotating import RotatingFile

Level = Literal["debug", "verbose", "error", "panic"]

_THRESHOLDS: Mapping[str, int] = {
    "debug": logging.DEBUG,
    "verbose": logging.INFO,
    "error": logging.ERROR,
    "panic": logging.CRITICAL,
}
_LABELS = {"info": "verbose", "critical": "panic", "fatal": "panic"}
_CHATTY = ("h2", "hpack")  # their debug lines show headers, and with them tokens
_HIDDEN = "[hidden]"
_SECRET_KEY = re.compile(r"token|passw|secret|authorization|credential|(private|client).?key", re.IGNORECASE)
_SECRET_TEXT = re.compile(r"(?i:(?<=\bbearer )[\w.~+/=-]{8,})|\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*")
_BARE = re.compile(r"[^\s\"=\\]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_MEGABYTE = 1024 * 1024

_Count = Annotated[int, msgspec.Meta(ge=0)]


class LogOptions(msgspec.Struct, frozen=True, kw_only=True):
    """`max_age_days` and `max_backups` 0 keep every old part. `unknown_level` is a `logLevel` nobody knows."""

    file: str = ""
    level: Level = "panic"
    to_stderr: bool = True
    format: Literal["text", "json"] = "text"
    max_size_mb: int = 100
    max_age_days: int = 5
    max_backups: int = 5
    compress: bool = True
    unknown_level: str = ""


class _WireRotation(msgspec.Struct, rename="camel"):
    max_size: _Count = 100
    max_age: _Count = 5
    max_backups: _Count = 5
    compress: bool = True


class _WireLog(msgspec.Struct, rename="camel"):
    log_file: str = ""
    log_level: str = ""
    log_to_stderr: bool | None = None
    log_format: Literal["text", "json"] = "text"
    log_options: _WireRotation = msgspec.field(default_factory=_WireRotation)


_SPELLING = {field.encode_name.lower(): field.encode_name for field in msgspec.structs.fields(_WireLog)}


def parse(raw: Mapping[str, Any], *, default_level: Level = "panic") -> LogOptions:
    """The log keys of a configuration, in any case; all others are passed over. Pure.

    A level nobody knows leaves the default, and `configure` says so: a typing error there must not stop a node. Without
    a file, lines go to stderr unless that is refused in so many words. Raises `InvalidNetConf` naming the key.
    """
    spelled = {_SPELLING.get(key.lower(), key): value for key, value in raw.items()}
    wire = documents.convert(spelled, _WireLog)
    level = wire.log_level.lower()
    known = level in _THRESHOLDS
    return LogOptions(
        file=wire.log_file,
        level=msgspec.convert(level, Level) if known else default_level,
        to_stderr=wire.log_to_stderr if wire.log_to_stderr is not None else not wire.log_file,
        format=wire.log_format,
        max_size_mb=wire.log_options.max_size or 100,  # lumberjack: "defaults to 100 megabytes"
        max_age_days=wire.log_options.max_age,
        max_backups=wire.log_options.max_backups,
        compress=wire.log_options.compress,
        unknown_level="" if known else wire.log_level,
    )


_configuring = threading.Lock()


def configure(options: LogOptions) -> None:
    """Sends every log line of the process where `options` say; may be called again, from any thread.

    Never raises for a file that cannot be opened: that shows on stderr, and is tried again at every line.
    """
    threshold = _THRESHOLDS[options.level]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *_COMMON],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            _as_json if options.format == "json" else _as_text,
        ],
        keep_exc_info=False,
    )
    handlers: list[_Handler] = [_ToStderr()] if options.to_stderr else []
    if options.file:
        handlers.append(_ToFile(options))
    with _configuring:
        root = logging.getLogger()
        for handler in handlers:
            handler.setFormatter(formatter)
            root.addHandler(handler)
        for old in [h for h in root.handlers if isinstance(h, _Handler) and h not in handlers]:
            root.removeHandler(old)
            old.close()
        root.setLevel(threshold)
        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)
        structlog.configure(
            processors=[
                structlog.contextvars.merge_contextvars,
                *_COMMON,
                structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
            ],
            wrapper_class=structlog.make_filtering_bound_logger(threshold),
            logger_factory=structlog.stdlib.LoggerFactory(),
            cache_logger_on_first_use=False,
        )
    if options.unknown_level:
        known = ", ".join(_THRESHOLDS)
        _complain(f'key "logLevel": found {documents.shown(options.unknown_level)}, expected one of {known}')


# --- where lines go ----------------------------------------------------------------------------------------------


def _complain(text: str) -> None:
    """About the log itself."""
    with contextlib.suppress(OSError, ValueError):
        _to_stderr(f"homeport: {text}\n")


def _to_stderr(text: str) -> None:
    stream: TextIO | None = sys.stderr  # whatever it is now: it may have been replaced, or never been there
    if stream is not None:
        stream.write(text)
        stream.flush()


class _Handler(logging.Handler, ABC):
    """One of ours. Counts what could not be written instead of failing whoever logs."""

    def __init__(self) -> None:
        super().__init__()
        self._lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = f"{self.format(record)}\n".encode(errors="backslashreplace")
        except (TypeError, ValueError, LookupError, AttributeError) as e:  # a library's message with wrong arguments
            line = f"log line of {record.name} at line {record.lineno}: {type(e).__name__}\n".encode()
        try:
            if self._lost:
                self._put(f"{self._lost} log lines before this could not be written\n".encode())
                self._lost = 0
            self._put(line)
        except (OSError, ValueError) as e:
            self._lost += 1
            if self._lost == 1:
                self._refused(e)

    @abstractmethod
    def _put(self, line: bytes) -> None:
        """Writes it; raises OSError or ValueError when it cannot."""

    def _refused(self, reason: Exception) -> None:
        """The first of a row of failures."""


class _ToStderr(_Handler):
    def _put(self, line: bytes) -> None:
        _to_stderr(line.decode())


class _ToFile(_Handler):
    def __init__(self, options: LogOptions) -> None:
        super().__init__()
        self._file = RotatingFile(
            options.file,
            max_bytes=options.max_size_mb * _MEGABYTE,
            max_age=timedelta(days=options.max_age_days) if options.max_age_days else None,
            max_backups=options.max_backups or None,
            compress=options.compress,
        )

    def close(self) -> None:
        super().close()
        with self.lock or contextlib.nullcontext():  # no line is under way
            self._file.close()

    def _put(self, line: bytes) -> None:
        self._file.write(line)

    def _refused(self, reason: Exception) -> None:
        _complain(f"write log {self._file.path}: {reason}")


# --- lines -------------------------------------------------------------------------------------------------------

_Event = MutableMapping[str, Any]


def _label(_logger: Any, _method: str, event: _Event) -> _Event:
    event["level"] = _LABELS.get(event["level"], event["level"])
    return event


def _hide_secrets(_logger: Any, _method: str, event: _Event) -> _Event:
    for key in event:
        event[key] = _without_secrets(key, event[key])
    return event


def _without_secrets(key: str, value: Any, depth: int = 8) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _without_secrets(str(k), v, depth - 1) for k, v in value.items()} if depth else "..."
    return _HIDDEN if value and _SECRET_KEY.search(key) else value


_COMMON: list[Callable[..., Any]] = [
    structlog.stdlib.add_log_level,
    _label,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
    _hide_secrets,
]


def _as_text(_logger: Any, _method: str, event: _Event) -> str:
    when, level = event.pop("timestamp"), event.pop("level")
    text, traceback = _shown(event.pop("event", "")), event.pop("exception", "")
    line = f"{when} [{level}] {_escaped(text)}"
    for key, value in event.items():
        shown = _shown(value)
        line += f" {_escaped(key)}=" + (shown if _BARE.fullmatch(shown) else _quoted(shown))
    for inner in str(traceback).splitlines():
        line += f"\n    {_escaped(inner)}"  # indented, so that nothing in it passes for a line of its own
    return _SECRET_TEXT.sub(_HIDDEN, line)


def _as_json(_logger: Any, _method: str, event: _Event) -> str:
    ordered = {key: event.pop(key) for key in ("timestamp", "level", "event") if key in event} | dict(event)
    try:
        line = msgspec.json.encode(ordered, enc_hook=str).decode()
    except (TypeError, ValueError, RecursionError):  # a lone surrogate, a mapping that contains itself
        line = msgspec.json.encode({key: _escaped(_shown(value)) for key, value in ordered.items()}).decode()
    return _SECRET_TEXT.sub(_HIDDEN, line)


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return ",".join(value)
    try:
        plain = isinstance(value, bool | int | float | list | tuple | dict | None)
        return msgspec.json.encode(value, enc_hook=str).decode() if plain else str(value)
    except (TypeError, ValueError, RecursionError):
        return f"<{type(value).__name__}>"


def _quoted(text: str) -> str:
    return '"' + _escaped(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def _escaped(text: str) -> str:
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
