"""Carries out repairs, each after looking once more whether its proof still holds. I/O: files, links, the daemon.

Idempotent: what is already as it should be is left as it is.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import stat
import time
from collections.abc import Iterator

import msgspec

from homeport.doctor.findings import Repair
from homeport.doctor.repairs import ChangeMode, MakeDirectory, RemoveLink, RemoveUnfinished, TakeDown
from homeport.host import errors
from homeport.host.kernel import Kernel
from homeport.model.errors import InternalError, IOFailure, TryAgainLater

_UNFINISHED_SECONDS = 60.0
_DEL_SECONDS = 30.0
_STAYS_SECONDS = 0.5


def carry_out(repair: Repair) -> str:
    """What became of it, in a few words. Raises `CniError` when it failed, or its proof holds no longer."""
    match repair:
        case ChangeMode():
            with _translated("change the mode of", repair.path):
                return _change_mode(repair)
        case MakeDirectory():
            with _translated("make", repair.path):
                return _make_directory(repair)
        case RemoveUnfinished():
            with _translated("remove", repair.path):
                return _remove_unfinished(repair)
        case RemoveLink():
            return _remove_link(repair)
        case TakeDown():
            return _take_down(repair)
        case _:
            raise InternalError(f"repair: found {type(repair).__name__}, expected one that is known")


@contextlib.contextmanager
def _translated(action: str, path: str) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise errors.file_refused(f"{action} {path}", e) from e


def _change_mode(repair: ChangeMode) -> str:
    """Through one descriptor: the file that is looked at is the one that is changed."""
    descriptor = os.open(repair.path, os.O_PATH | os.O_CLOEXEC)
    try:
        mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
        if not mode & repair.take:
            return "nothing to do"
        os.chmod(f"/proc/self/fd/{descriptor}", mode & ~repair.take)
    finally:
        os.close(descriptor)
    return f"mode {mode & ~repair.take:04o}"


def _make_directory(repair: MakeDirectory) -> str:
    if os.path.isdir(repair.path):
        return "nothing to do"
    os.makedirs(os.path.dirname(repair.path), mode=0o700, exist_ok=True)
    os.mkdir(repair.path, 0o700)
    return "made"


def _remove_unfinished(repair: RemoveUnfinished) -> str:
    try:
        if time.time() - os.stat(repair.path).st_mtime <= _UNFINISHED_SECONDS:
            raise TryAgainLater(f"remove {repair.path}: found it written to a moment ago, expected a dead writer")
        os.unlink(repair.path)
    except FileNotFoundError:
        return "nothing to do"
    return "removed"


def _remove_link(repair: RemoveLink) -> str:
    """A plugin that is making a link for a pod has it here for some milliseconds: this one has to stay for longer."""
    host = Kernel(short_lived=True)
    try:
        for seconds in (_STAYS_SECONDS, 0.0):
            link = host.link_by_index(repair.index)
            if link is None or link.name != repair.name:
                return "nothing to do"
            if link.up or host.addresses(link.name):
                raise TryAgainLater(
                    f'delete link "{repair.name}": found it in use, expected it down, without addresses'
                )
            time.sleep(seconds)
        host.delete_links([repair.name])
    finally:
        host.close()
    return "deleted"


def _take_down(repair: TakeDown) -> str:
    """As the runtime would ask for it, through the protocol of upstream's shim."""
    host = Kernel(short_lived=True)
    try:
        if repair.netns and host.namespace_exists(repair.netns):
            raise TryAgainLater(f"take down container {repair.container_id}: found its namespace {repair.netns} there")
    finally:
        host.close()
    with _translated("read", repair.config), open(repair.config, "rb") as file:
        config = file.read()
    environ = {"CNI_COMMAND": "DEL", "CNI_CONTAINERID": repair.container_id, "CNI_IFNAME": "eth0", "CNI_NETNS": ""}
    body = msgspec.json.encode({"env": environ, "config": config})
    with _translated("ask the daemon at", repair.socket):
        status, answer = _post(repair.socket, body)
    if status != 200:
        raise IOFailure(f"take down container {repair.container_id}: {answer}")
    return "taken down"


def _post(path: str, body: bytes) -> tuple[int, str]:
    connection = http.client.HTTPConnection("homeport", timeout=_DEL_SECONDS)
    with contextlib.closing(connection):
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(_DEL_SECONDS)
        connection.sock.connect(path)
        try:
            connection.request("POST", "/cni", body)
            answer = connection.getresponse()
            return answer.status, answer.read(4096).decode(errors="replace")
        except http.client.HTTPException as e:
            raise IOFailure(f"ask the daemon at {path}: {type(e).__name__}: {e}") from e
