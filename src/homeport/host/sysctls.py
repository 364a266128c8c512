"""Kernel settings below /proc/sys/net of a namespace.

proc(5). Which namespace's settings a path leads to is decided when the file is opened, by the opener's namespace.
"""

from __future__ import annotations

import errno
import os

from homeport.host import errors
from homeport.host.entering import CannotEnter
from homeport.host.errors import place
from homeport.host.operating import Operating
from homeport.model.errors import KernelRefused

_READ_BYTES = 1 << 16


class Sysctls(Operating):
    """The sysctl verbs of `ports.Host`."""

    def read_sysctl(self, key: str, netns: str | None = None) -> str | None:
        path = _path(key)
        action = f"read sysctl {key}{place(netns)}"
        try:
            descriptor = self._open_sysctl(path, os.O_RDONLY, netns)
            try:
                return os.read(descriptor, _READ_BYTES).decode(errors="surrogateescape").strip()
            finally:
                os.close(descriptor)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                return None
            raise errors.refused(action, error.errno or 0) from error

    def write_sysctl(self, key: str, value: str, netns: str | None = None) -> None:
        path = _path(key)
        before = self.read_sysctl(key, netns) if self._operations.recording else None
        action = f'write sysctl {key} = "{value}"{place(netns)}'
        try:
            descriptor = self._open_sysctl(path, os.O_WRONLY, netns)
            try:
                os.write(descriptor, value.encode())
            finally:
                os.close(descriptor)
        except OSError as error:
            raise errors.refused(action, error.errno or 0) from error
        if before is not None and before != value:
            self._operations.record(lambda: self._restore_sysctl(key, before, netns))

    def _restore_sysctl(self, key: str, value: str, netns: str | None) -> None:
        if self.read_sysctl(key, netns) is not None:  # a setting of a link goes with the link
            self.write_sysctl(key, value, netns)

    def _open_sysctl(self, path: str, flags: int, netns: str | None) -> int:
        where = netns or self._own
        if where is None:
            return os.open(path, flags | os.O_CLOEXEC)
        try:
            return self._entrance.open_file(where, path, flags)
        except CannotEnter as error:
            raise errors.namespace_refused(where, error) from error


def _path(key: str) -> str:
    """Only settings that belong to a network namespace: anything else would change the whole machine."""
    parts = key.split("/")
    if parts[0] != "net" or len(parts) < 2 or any(part in ("", ".", "..") for part in parts) or "\0" in key:
        raise KernelRefused(f'sysctl key "{key}": expected a path below net/, such as net/ipv4/ip_forward', "EINVAL")
    return f"/proc/sys/{key}"
