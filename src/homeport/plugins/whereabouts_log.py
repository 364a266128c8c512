"""The log a network asks for with `log_file` and `log_level`: one line an event, `TIME LEVEL TEXT, KEY=VALUE ...`.

A log that cannot be written never fails an attachment. structlog is imported only when there is a file to write.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from typing import Any

from homeport.cni.invocations import Attachment
from homeport.model.errors import CniError
from homeport.ports import Files

# Whereabouts' levels, and the words people write for them; "debug" is its default.
_LEVELS = {
    "debug": logging.DEBUG,
    "verbose": logging.INFO,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "panic": logging.CRITICAL,
}
_MAX_BYTES = 10 * 1024 * 1024


class Log:
    """Events of one attachment. Without a path every call does nothing."""

    def __init__(self, files: Files, path: str, level: int, fields: Mapping[str, str]) -> None:
        self._files = files
        self._path = path
        self._level = level
        self._fields = fields

    def info(self, event: str, **fields: object) -> None:
        """Something was done."""
        self._write(logging.INFO, event, fields)

    @contextmanager
    def failures_of(self, verb: str) -> Iterator[None]:
        """Notes an expected failure of the block, and lets it through."""
        self._write(logging.DEBUG, f"{verb} started", {})
        try:
            yield
        except CniError as e:
            self._write(logging.ERROR, f"{verb} failed: {e.msg}", {"code": e.code})
            raise

    def _write(self, level: int, event: str, fields: Mapping[str, object]) -> None:
        if not self._path or level < self._level:
            return
        with suppress(CniError):
            line = _line(level, event, {**self._fields, **fields})
            self._files.append(self._path, f"{line}\n", max_bytes=_MAX_BYTES)


def open_log(ipam: Mapping[str, Any], network: str, attachment: Attachment, files: Files) -> Log:
    """The log an ipam section asks for; keys of a wrong type ask for none, so that a DEL goes on."""
    path, level = ipam.get("log_file"), ipam.get("log_level") or "debug"
    known = _LEVELS.get(level.lower() if isinstance(level, str) else "", logging.DEBUG)
    fields = {"network": network, "container": attachment.container_id, "ifname": attachment.ifname}
    if "K8S_POD_NAME" in attachment.args:
        fields["pod"] = f"{attachment.args.get('K8S_POD_NAMESPACE', '')}/{attachment.args['K8S_POD_NAME']}"
    given = {key: value for key, value in fields.items() if value}
    return Log(files, path if isinstance(path, str) else "", known, given)


def _line(level: int, event: str, fields: Mapping[str, object]) -> str:
    import structlog

    logger = structlog.wrap_logger(
        structlog.ReturnLogger(),
        processors=[structlog.stdlib.add_log_level, structlog.processors.TimeStamper(fmt="iso", utc=True), _render],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
    )
    return str(logger.log(level, event, **fields))


def _render(_logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
    time, level, text = event.pop("timestamp"), event.pop("level"), event.pop("event")
    fields = " ".join(f"{key}={value}" for key, value in event.items())
    line = f"{time} {level} {text}, {fields}"
    return "".join(c if c.isprintable() else " " for c in line)
