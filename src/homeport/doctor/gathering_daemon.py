"""What the daemon of a node answers. I/O: one connection to its socket, which is asked whether it is ready; /proc."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import struct

from homeport.doctor.facts import Answering, DaemonFacts
from homeport.host import errors

_SECONDS = 3.0
_BODY_MAX = 4096
_SO_PEERCRED = struct.Struct("=iII")  # process, user, group: unix(7)
_PRODUCT = "homeportd/"


def gather(path: str) -> DaemonFacts:
    """Of the socket at `path`. Raises `CniError` when it may not be connected to."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(_SECONDS)
    with contextlib.closing(connection):
        try:
            connection.connect(path)
        except (FileNotFoundError, NotADirectoryError):
            return DaemonFacts(answering=Answering.MISSING)
        except ConnectionRefusedError:
            return DaemonFacts(answering=Answering.REFUSED)
        except TimeoutError:
            return DaemonFacts(answering=Answering.SILENT, problem=f"it took no connection for {_SECONDS:g} s")
        except OSError as e:
            raise errors.file_refused(f"connect to {path}", e) from e
        is_here = _is_here(connection)
        try:
            return _asked(connection, is_here)
        except (OSError, http.client.HTTPException) as e:
            why = f"{type(e).__name__}: {e}".rstrip(": ")
            return DaemonFacts(answering=Answering.SILENT, problem=why, is_here=is_here)


def _asked(connection: socket.socket, is_here: bool | None) -> DaemonFacts:
    asking = http.client.HTTPConnection("homeport", timeout=_SECONDS)
    asking.sock = connection
    asking.request("GET", "/readyz")
    answer = asking.getresponse()
    body = answer.read(_BODY_MAX)
    if answer.length:  # what it announced and did not send, or more than the daemon ever says
        raise http.client.IncompleteRead(body, answer.length)
    said = body.decode(errors="replace").strip()
    server = answer.getheader("Server", "")
    return DaemonFacts(
        answering=Answering.READY if answer.status == 200 else Answering.UNREADY,
        problem="" if answer.status == 200 else said or f"status {answer.status}",
        version=server.removeprefix(_PRODUCT) if server.startswith(_PRODUCT) else "",
        is_here=is_here,
    )


def _is_here(connection: socket.socket) -> bool | None:
    """Whether who listens lives in our network namespace; None when that cannot be seen."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _SO_PEERCRED.size)
    process, _, _ = _SO_PEERCRED.unpack(raw)
    try:
        return os.path.samestat(os.stat(f"/proc/{process}/ns/net"), os.stat("/proc/self/ns/net"))
    except OSError:
        return None
