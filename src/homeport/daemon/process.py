"""`homeportd`: the daemon as a process. I/O: signals, exec, and all that the parts it joins do.

SIGTERM and SIGINT end it: it takes no new call, finishes those it has, and exits 0; a second one ends it at once.
SIGHUP lets it become itself again, with the program and the configuration as they are on the disk now: calls under
way are finished before, and those that come meanwhile wait in the socket's queue. SIGKILL needs nothing: the next
start goes on with the journal.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

import msgspec
import structlog

import homeport
from homeport.daemon import generating, logs, placing, settings, watching
from homeport.daemon.logs import LogOptions
from homeport.daemon.operating import SIGNALS, Daemon, Signals
from homeport.daemon.placing import Inode, Socket
from homeport.daemon.serving import Stop
from homeport.daemon.settings import DaemonSettings
from homeport.model.errors import CniError, IOFailure

log = structlog.get_logger("homeport.daemon")

EXIT_CONFIGURATION = 1
EXIT_CONFIGURATION_MANAGER = watching.EXIT_CODE
EXIT_START = 3
_INHERITED = "HOMEPORTD_INHERITED"
_CAP_NET_ADMIN = 12


class Inherited(msgspec.Struct, frozen=True):
    """What a hot restart hands on: descriptors of listener, lock and received signals, and the socket's file."""

    listener: int
    lock: int
    signals: int
    path: str
    inode: Inode


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The console script. Ends the process itself: a call that hangs in a thread must not keep it."""
    signals = Signals()
    signals.listen()
    os.umask(0o077)
    arguments = _arguments(argv)
    try:
        code = run(arguments.config, signals)
    except CniError as e:
        print(f"homeportd: {e}", file=sys.stderr)
        code = EXIT_START
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def run(config: Path | None, signals: Signals) -> int:
    """From the configuration to the end of serving; the exit code. Does not return from a hot restart."""
    try:
        _require_privilege()
        found = _load(config)
        logs.configure(_log_options(found))
    except CniError as e:
        print(f"homeportd: {e}", file=sys.stderr)
        return EXIT_CONFIGURATION
    for warning in found.warnings:
        log.warning("configuration", problem=warning)
    inherited = _take_inherited()
    reload = partial(_load, config)
    if inherited is None:
        socket = placing.bind(found.socket_dir)
        daemon = Daemon(found, socket, signals, reload=reload)
        lock = placing.lock(found.state_dir, daemon.wait_for_lock)
    else:
        signals.inherit(inherited.signals)
        socket = placing.take_over(inherited.listener, Path(inherited.path), inherited.inode)
        daemon = Daemon(found, socket, signals, reload=reload)
        lock = inherited.lock
    if lock is not None and daemon.serve() is Stop.FOR_SUCCESSOR:
        _become_successor(socket, lock, signals)
    if socket.is_gone():
        raise IOFailure(f"socket {socket.path}: somebody removed it")
    socket.remove()
    return EXIT_CONFIGURATION_MANAGER if daemon.fatal else 0


def _load(config: Path | None) -> DaemonSettings:
    """The whole configuration, checked in all its parts."""
    found = settings.load(config, os.environ)
    _log_options(found)
    generating.parse(found.raw)
    return found


def _log_options(found: DaemonSettings) -> LogOptions:
    return logs.parse({"logLevel": "verbose", **found.raw})


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="homeportd", description="The node's daemon: calls of the container runtime in, answers out."
    )
    parser.add_argument(
        "--config", "-config", type=Path, metavar="FILE", help=f"JSON, by default {settings.CONFIG_FILE} if it is there"
    )
    parser.add_argument("--version", action="version", version=f"homeportd {homeport.__version__}")
    return parser.parse_args(argv)


def _require_privilege() -> None:
    """Root, or whoever has CAP_NET_ADMIN in a user namespace of their own."""
    if os.geteuid() == 0:
        return
    status = Path("/proc/self/status").read_text(encoding="ascii")
    effective = next((line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), "0")
    if not int(effective, 16) >> _CAP_NET_ADMIN & 1:
        raise IOFailure(f"start as user {os.geteuid()}: found no CAP_NET_ADMIN, expected root")


# --- hot restart -------------------------------------------------------------------------------------------------


def _become_successor(socket: Socket, lock: int, signals: Signals) -> NoReturn:
    """The same process with the program as it is on the disk now; the socket and the lock stay open."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # they wait for the successor, or in the pipe of `signals`
    handed_on = Inherited(socket.listener.fileno(), lock, signals.received, str(socket.path), socket.inode)
    for descriptor in (handed_on.listener, handed_on.lock, handed_on.signals):
        os.set_inheritable(descriptor, True)
    os.environ[_INHERITED] = msgspec.json.encode(handed_on).decode()
    try:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606  # no shell is wanted
    except OSError as e:
        raise IOFailure(f"restart {sys.executable}: {os.strerror(e.errno or 0)}") from e


def _take_inherited() -> Inherited | None:
    """None in a process that was started, rather than one that has become this program."""
    text = os.environ.pop(_INHERITED, "")
    if not text:
        return None
    try:
        inherited = msgspec.json.decode(text, type=Inherited)
        os.set_inheritable(inherited.lock, False)
    except (msgspec.DecodeError, OSError) as e:
        raise IOFailure(f"restart: found {_INHERITED}={text}, expected open descriptors: {e}") from e
    return inherited
