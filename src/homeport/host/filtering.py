"""nftables, through the nft program's JSON.

libnftables-json(5). One call is one transaction of the kernel: all of its commands happen, or none.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from homeport.host import errors, namespaces
from homeport.host.errors import place
from homeport.host.operating import Operating
from homeport.model.errors import KernelRefused, TryAgainLater, Unsupported

if TYPE_CHECKING:
    import subprocess

SYSTEM_DIRECTORIES = ("/usr/sbin", "/sbin")  # Debian leaves them out of an ordinary user's PATH
_TIMEOUT_SECONDS = 30
_ERRNOS = (errno.ENOENT, errno.EEXIST, errno.EBUSY, errno.EPERM, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSPC)


class Filtering(Operating):
    """The nftables verb of `ports.Host`."""

    def run_nft(self, commands: Sequence[Mapping[str, Any]], netns: str | None = None) -> Sequence[Mapping[str, Any]]:
        action = f"run {len(commands)} nftables commands{place(netns)}"
        nft = [_program("nft", action), "-j", "-f", "-"]
        where = netns or self._own
        if where is None:
            completed = _run(nft, commands, (), action)
        else:
            descriptor = namespaces.open_namespace(where)
            try:
                entering = [_program("nsenter", action), f"--net=/proc/self/fd/{descriptor}", "--"]
                completed = _run([*entering, *nft], commands, (descriptor,), action)
            finally:
                os.close(descriptor)
        if completed.returncode:
            told = completed.stderr.decode(errors="replace").strip()
            if told.startswith("nsenter:"):  # not nft's words: no ENOENT of its must look like a missing object
                raise KernelRefused(f"{action}: could not start nft in the namespace", told)
            raise KernelRefused(f"{action}: nft exited with {completed.returncode}", errors.explain(_errno(told), told))
        if not completed.stdout.strip():
            return ()
        try:
            return msgspec.json.decode(completed.stdout, type=_Answer).nftables
        except msgspec.DecodeError as error:
            raise KernelRefused(f"{action}: nft printed something else than its JSON", str(error)) from error


class _Answer(msgspec.Struct):
    nftables: list[dict[str, Any]]


def _run(
    argv: list[str], commands: Sequence[Mapping[str, Any]], descriptors: tuple[int, ...], action: str
) -> subprocess.CompletedProcess[bytes]:
    import subprocess  # needed by few calls, and a plugin's process would wait for the import in every one

    try:
        return subprocess.run(
            argv,
            input=msgspec.json.encode({"nftables": list(commands)}),
            capture_output=True,
            pass_fds=descriptors,
            env={**os.environ, "LC_ALL": "C"},  # its words are read below
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TryAgainLater(f"{action}: nft has not ended after {_TIMEOUT_SECONDS} s") from error
    except OSError as error:
        raise errors.refused(f"{action}: start {argv[0]}", error.errno or 0) from error


def _program(name: str, action: str) -> str:
    places = [*os.get_exec_path(), *SYSTEM_DIRECTORIES]
    for directory in places:
        path = os.path.join(directory, name)
        if os.access(path, os.X_OK):
            return path
    raise Unsupported(f"{action}: no program {name} on this machine", f"looked in {':'.join(places)}")


def _errno(told: str) -> int:
    """Nft exits with 1 for everything and tells the kernel's errno only by its text."""
    return next((code for code in _ERRNOS if os.strerror(code) in told), errno.EINVAL)
