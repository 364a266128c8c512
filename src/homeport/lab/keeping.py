"""The keeper: one sleeping process whose namespaces hold everything a lab has in the kernel. I/O: processes, files.

While it lives, commands come and go in its namespaces; when it dies by whatever means, the kernel removes every
node, replica and link of the lab. Who it is stands in `keeper.json`, safe against reused process IDs.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from pathlib import Path
from typing import NoReturn

import msgspec

from homeport.lab import entering
from homeport.model.errors import IOFailure

RUN = "run"  # below the lab's directory: a tmpfs that exists only inside
_SLEEP = "import signal\nwhile True: signal.pause()"
_END_SECONDS = 10.0


class Keeper(msgspec.Struct, frozen=True, kw_only=True):
    """A process by ID and start time (clock ticks since boot), in one boot of the machine."""

    pid: int
    start_time: int
    boot_id: str


def find(directory: Path) -> Keeper | None:
    """The lab's living keeper; None when there is none, or it has died."""
    try:
        keeper = msgspec.json.decode((directory / "keeper.json").read_bytes(), type=Keeper)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as e:
        raise IOFailure(f'read "{directory / "keeper.json"}": {e}') from e
    return keeper if keeper == _observe(keeper.pid) else None


def start(directory: Path) -> Keeper:
    """Starts a keeper with an empty tmpfs at `directory/run`; it outlives the caller and holds nothing of it."""
    (directory / RUN).mkdir(exist_ok=True)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _become_keeper(directory, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)  # the first of two forks, gone at once; the keeper is init's child
    match msgspec.json.decode(answer or b"[]"):
        case [int() as pid]:
            keeper = _observe(pid)
        case [int() as number, str() as text]:
            error = OSError(number, text)
            raise entering.refusal(error) from error
        case _:
            keeper = None
    if keeper is None:
        raise IOFailure(f'start the keeper of lab "{directory.name}": it died at once')
    record = directory / "keeper.json.new"
    record.write_bytes(msgspec.json.encode(keeper))
    record.replace(directory / "keeper.json")
    return keeper


def enter(keeper: Keeper) -> None:
    """Puts this process into the keeper's namespaces; nothing to do when it is there already."""
    try:
        pidfd = os.pidfd_open(keeper.pid)
    except ProcessLookupError as e:
        raise IOFailure(f"enter the lab: its keeper, process {keeper.pid}, has just ended") from e
    try:
        if not entering.is_inside(keeper.pid):
            entering.join(keeper.pid, pidfd)
    finally:
        os.close(pidfd)


def end(directory: Path) -> None:
    """Kills the keeper, and with it all the lab has in the kernel; returns when it is dead. Idempotent."""
    keeper = find(directory)
    if keeper:
        with contextlib.suppress(ProcessLookupError):
            pidfd = os.pidfd_open(keeper.pid)
            try:
                if keeper == _observe(keeper.pid):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                    if not select.select([pidfd], [], [], _END_SECONDS)[0]:
                        raise IOFailure(f"end the lab's keeper, process {keeper.pid}: still there after SIGKILL")
            finally:
                os.close(pidfd)
    (directory / "keeper.json").unlink(missing_ok=True)


def _become_keeper(directory: Path, pipe: int) -> NoReturn:
    """In the forked child: forks again, makes the namespaces, answers by the pipe, sleeps as a bare interpreter."""
    try:
        os.setsid()
        if os.fork() != 0:
            os._exit(0)
        os.chdir("/")
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.dup2(pipe, 3)
        os.closerange(4, os.sysconf("SC_OPEN_MAX"))
        os.set_inheritable(3, False)
        try:
            entering.unshare()
            entering.mount_tmpfs(directory / RUN)
            answer: list[object] = [os.getpid()]
        except OSError as e:
            answer = [e.errno, str(e)]
        os.write(3, msgspec.json.encode(answer))
        if len(answer) == 1:
            argv = [sys.executable, "-I", "-S", "-c", _SLEEP, f"homeport lab keeper of {directory}"]
            os.execv(argv[0], argv)  # noqa: S606 -- there is to be no shell
    finally:
        os._exit(1)


def _observe(pid: int) -> Keeper | None:
    """The process that has this ID now; None when there is none, or it is a corpse."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    except OSError as e:
        raise IOFailure(f"read /proc/{pid}/stat: {e.strerror}") from e
    fields = stat[stat.rindex(")") + 2 :].split()  # the name in parentheses may hold blanks
    if fields[0] in "ZX":
        return None
    return Keeper(pid=pid, start_time=int(fields[19]), boot_id=boot_id)
