"""Keeping the runtime's configuration right while the daemon runs. I/O: files, in a thread of its own.

Once a second it looks at what there is, works out what should be there, and writes only the difference. That is all:
no events, so none to miss, and nothing to remember that could be wrong. It costs a handful of system calls a second,
works on every file system and through every bind mount and symbolic link (a ConfigMap's files change by an inner link
that inotify does not see), and it heals: a file that another program deleted or overwrote is back within the second.
"""

from __future__ import annotations

import os
import secrets
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from homeport.cni import conflists
from homeport.daemon import generating
from homeport.daemon.generating import Generation
from homeport.host.files import LocalFiles
from homeport.metaplugin.readiness import is_ready
from homeport.model.errors import CniError, InvalidNetConf, IOFailure, TryAgainLater
from homeport.runtime import networks

log = structlog.get_logger("homeport.daemon.watching")

EXIT_CODE = 2  # the daemon's, after `on_fatal`
FIRST_SECONDS = 120.0
POLL_SECONDS = 1.0
_MODE = 0o600


class ConfigManager:
    """Writes the file that `wanted` describes and keeps it so, from `start` to `stop`.

    `on_fatal` is called once at most, from the manager's thread, with a reason for the log, when the daemon should end
    with EXIT_CODE: there was nothing to generate from for `first_seconds`, or the primary plugin's readiness file has
    vanished, and the generated file has been removed for that. It must not call `stop` itself.

    Until the readiness file is there, where one is named, nothing is written, and what an earlier daemon left is
    removed: a node must not look ready while its primary plugin is not. A primary plugin's file that vanishes or breaks
    later changes nothing. Errors are logged, each once, and tried again.

    Whoever ends the daemon decides what becomes of the file. For a hot restart, or when another daemon has taken over,
    it must stay: `stop(remove=False)`. Otherwise `stop(remove=not wanted.keep_on_exit)`. By default it stays then too:
    without it a runtime would fall back on the primary plugin, and start pods without their other networks for as long
    as an update of the daemon takes; with it the shim waits for the daemon or fails in so many words, and keeps a DEL.
    """

    def __init__(
        self,
        wanted: Generation,
        on_fatal: Callable[[str], None],
        *,
        first_seconds: float = FIRST_SECONDS,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self._wanted = wanted
        self._target = Path(wanted.target)
        self._on_fatal = on_fatal
        self._first_seconds = first_seconds
        self._poll_seconds = poll_seconds
        self._files = LocalFiles()
        self._primary: str | None = None
        self._contents: bytes | None = None  # ours, once they are in place
        self._told = ""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="configuration", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, *, remove: bool) -> None:
        """Ends the watch; with `remove` also takes away the file, unless somebody else's contents are there by now."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        if not remove or self._contents is None:
            return
        try:
            if self._files.read(self._target) == self._contents:
                self._remove()
        except CniError as e:
            log.error("cannot remove the configuration for the runtime", reason=str(e))

    def _run(self) -> None:
        deadline = time.monotonic() + self._first_seconds
        while True:  # once at least, so that `stop` knows what is ours
            try:
                self._look()
                self._told = ""
            except CniError as e:
                self._tell(e)
                if self._contents is None and time.monotonic() >= deadline:
                    self._on_fatal(f"no configuration for the runtime after {self._first_seconds:g} s: {e}")
                    return
            except _NotReadyAnyMore as e:
                self._on_fatal(str(e))
                return
            if self._stopping.wait(self._poll_seconds):
                return

    def _look(self) -> None:
        """One round: what there is, what should be, the difference."""
        self._require_ready()
        contents = self._copied() if self._wanted.source else self._generated()
        if contents != self._found():
            _write(self._target, contents)
            log.info(
                "wrote the configuration for the runtime",
                file=str(self._target),
                primary=self._primary or self._wanted.source,
            )
        self._contents = contents

    def _require_ready(self) -> None:
        ready = self._wanted.readiness_file
        if not ready or is_ready(ready):
            return
        self._remove()
        if self._contents is not None:
            raise _NotReadyAnyMore(f"the primary plugin's readiness file {ready} has vanished: removed {self._target}")
        raise TryAgainLater(f"wait for the primary plugin's readiness file {ready}: not there yet")

    def _copied(self) -> bytes:
        contents = self._files.read(self._wanted.source)
        if contents is None:
            raise IOFailure(f"read configuration {self._wanted.source}: no such file")
        conflists.parse(contents)
        return contents

    def _generated(self) -> bytes:
        if self._primary is None:
            self._primary = self._choose()
        network = networks.load_file(self._files, self._primary)
        return generating.generate(network, self._primary, self._wanted)

    def _choose(self) -> str:
        """The primary's file until the daemon ends. One that is broken is waited for: the next is another network."""
        wanted = self._wanted
        if wanted.primary:
            path = os.path.join(wanted.primary_dir, wanted.primary)
            if generating.is_ours(networks.load_file(self._files, path), wanted):
                raise InvalidNetConf(f'key "multusMasterCNI": {path} leads back to this daemon')
            return path
        for name in generating.candidates(self._files.list(wanted.primary_dir) or ()):
            path = os.path.join(wanted.primary_dir, name)
            if not generating.is_ours(networks.load_file(self._files, path), wanted):
                return path
        raise TryAgainLater(f"find the primary plugin's configuration in {wanted.primary_dir}: there is none yet")

    def _found(self) -> bytes | None:
        """The file's contents; None when it must be written whatever they are."""
        try:
            if stat.S_IMODE(self._target.lstat().st_mode) != _MODE and not self._is_source():
                return None
        except FileNotFoundError:
            return None
        except OSError as e:
            raise IOFailure(f"find {self._target}: {os.strerror(e.errno or 0)}") from e
        return self._files.read(self._target)

    def _is_source(self) -> bool:
        """Whether the file to copy is where its copy should be."""
        return bool(self._wanted.source) and os.path.realpath(self._wanted.source) == os.path.realpath(self._target)

    def _remove(self) -> None:
        try:
            self._target.unlink(missing_ok=True)
        except OSError as e:
            raise IOFailure(f"remove {self._target}: {os.strerror(e.errno or 0)}") from e

    def _tell(self, problem: CniError) -> None:
        """Once, until it is another one or gone."""
        if str(problem) == self._told:
            return
        self._told = str(problem)
        if isinstance(problem, TryAgainLater):
            log.info("no configuration for the runtime yet", reason=self._told)
        else:
            log.error("cannot write the configuration for the runtime", reason=self._told)


class _NotReadyAnyMore(Exception):
    """The readiness file was there and is not."""


def _write(target: Path, contents: bytes) -> None:
    """The whole file or nothing; runtimes pass over the unfinished one because of its name's ending."""
    unfinished = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _forget_unfinished(target)
        try:
            with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE), "wb") as file:
                os.fchmod(file.fileno(), _MODE)
                file.write(contents)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(target)
        finally:
            unfinished.unlink(missing_ok=True)
        _sync(target.parent)
    except OSError as e:
        raise IOFailure(f"write {target}: {os.strerror(e.errno or 0)}") from e


def _forget_unfinished(target: Path) -> None:
    """What a daemon left that was killed while it wrote. One that is writing now writes again a second later."""
    for left in target.parent.glob(f".{target.name}." + "[0-9a-f]" * 8):
        left.unlink(missing_ok=True)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
