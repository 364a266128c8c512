"""`ports.Devices`: which devices the kubelet gave a pod. I/O: the kubelet's socket, else its checkpoint file.

The socket is the kubelet's own word and comes first. The file is for kubelets without it: it is read only when there is
no socket at all, never because the socket fails.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from homeport.devices import checkpoints, podresources
from homeport.model.errors import InvalidEnvironment, IOFailure, TryAgainLater
from homeport.model.names import PodRef

DEFAULT_DIR = "/var/lib/kubelet"
MAX_BYTES = 16 * 1024 * 1024
_SOCKET = "pod-resources/kubelet.sock"
_CHECKPOINT = "device-plugins/kubelet_internal_checkpoint"
_FIRST_PAUSE_SECONDS = 0.05


class KubeletDevices:
    """Safe for threads. `directory` is the kubelet's `--root-dir`."""

    def __init__(self, directory: str | Path = DEFAULT_DIR, *, timeout_seconds: float = 10.0) -> None:
        self._socket = Path(directory) / _SOCKET
        self._checkpoint = Path(directory) / _CHECKPOINT
        self._timeout_seconds = timeout_seconds

    def of_pod(self, ref: PodRef, uid: str) -> Mapping[str, Sequence[str]]:
        """See `ports.Devices`. {} says that the pod has no device.

        Raises `TryAgainLater` when the kubelet is silent, overloaded or does not list the pod at all; `IOFailure` or
        `DecodeFailure` when what it says cannot be used, or there is neither socket nor file.
        """
        if _exists(self._socket):
            return self._ask(ref)
        contents = _read(self._checkpoint)
        if contents is None:
            raise IOFailure(f"find devices of pod {ref}: found neither {self._socket} nor {self._checkpoint}")
        if not uid:
            raise InvalidEnvironment(f"find devices of pod {ref}: {self._checkpoint} knows pods by UID: found none")
        return checkpoints.devices_of(contents, uid)

    def _ask(self, ref: PodRef) -> Mapping[str, Sequence[str]]:
        found = podresources.devices_of(self._list(), ref)
        if found is None:
            # It admitted the pod and gave it its devices before it called the container runtime.
            raise TryAgainLater(f"find devices of pod {ref}: the kubelet does not list this pod at {self._socket}")
        return found

    def _list(self) -> bytes:
        """The kubelet serves a hundred calls a second, ten at once, and turns the others away: those come again."""
        from homeport.devices import calling  # h2 costs memory that a node without devices never needs

        deadline = time.monotonic() + self._timeout_seconds
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                return calling.call(
                    str(self._socket),
                    podresources.LIST,
                    b"",
                    timeout_seconds=max(0.0, deadline - time.monotonic()),
                    max_reply_bytes=MAX_BYTES,
                )
            except calling.Overloaded:
                if time.monotonic() + pause >= deadline:
                    raise
            time.sleep(pause)
            pause *= 2


def _exists(path: Path) -> bool:
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as e:
        raise IOFailure(f"find {path}: {os.strerror(e.errno or 0)}") from e
    return True


def _read(path: Path) -> bytes | None:
    try:
        with open(path, "rb") as file:
            contents = file.read(MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as e:
        raise IOFailure(f"read {path}: {os.strerror(e.errno or errno.EIO)}") from e
    if len(contents) > MAX_BYTES:
        raise IOFailure(f"read {path}: found more than {MAX_BYTES} bytes")
    return contents
