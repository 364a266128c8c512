"""Starting foreign plugins: finding the executable, talking to it, ending it. I/O: processes.

CNI SPEC 1.1.0 §2: configuration on stdin, result on stdout, logs on stderr. A plugin gets a process group of its own,
so that one which hangs is killed with all it started.

A root directory, like a network namespace, is changed by a thread that ends right after it has started the plugin:
no other thread of the process ever sees either.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, TypeVar

from homeport.cni import netconfs
from homeport.model.errors import InvalidNetns, IOFailure, PluginFailed
from homeport.ports import Completed

MAX_OUTPUT_BYTES = 16 * 1024 * 1024
BUSY_RETRY_SECONDS = 6.0  # libcni's patience with a binary that is being replaced
_BUSY_PAUSE_SECONDS = 0.1
_CHUNK = 65536
_CLONE_FS = 0x00000200
_CLONE_NEWNET = 0x40000000

T = TypeVar("T")


class Executor:
    """`ports.Exec` on this machine.

    `root` is the directory that plugins are to have as their `/` (a container's view of the node's own file system; the
    setting `chrootDir`): directories of CNI_PATH and executables are names inside it, for `find` as for `run`, so that
    the caller needs no copy of them in its own view. Needs CAP_SYS_CHROOT. None or "" is the process's own root.

    A byte on `interrupt_fd` is the number of a signal this process got: the running plugin is killed, and `run` raises
    `KeyboardInterrupt` for SIGINT, `SystemExit` for any other. The next `run` goes on, so that an undo can.
    """

    def __init__(self, interrupt_fd: int | None = None, *, root: str | None = None) -> None:
        self._interrupt_fd = interrupt_fd
        self._root = root or None

    def find(self, name: str, path: Sequence[str]) -> str | None:
        netconfs.require_type(name, key="type")
        if self._root is None:
            return _find(name, path)
        return _elsewhere(lambda: _find(name, path), root=self._root)

    def run(
        self, executable: str, *, env: Mapping[str, str], stdin: bytes, timeout_seconds: float, netns: str | None = None
    ) -> Completed:
        """Runs it to its end, in the network namespace `netns` when given.

        Raises `PluginFailed` when it cannot be started, prints without end or is still running at the deadline;
        it and its children are dead then.
        """
        deadline = time.monotonic() + timeout_seconds
        process = _start(executable, env, netns, self._root, deadline)
        try:
            stdout, stderr = _Conversation(process, stdin, self._interrupt_fd).hold(deadline)
        except _Stopped as stopped:
            reason = stopped.reason.format(seconds=timeout_seconds)
            raise PluginFailed(f"run {executable}: {reason}", stopped.stderr.decode(errors="replace")) from stopped
        finally:
            _end(process)
        return Completed(process.returncode, stdout, stderr)


class _Stopped(Exception):
    """Why a conversation was broken off, and what was said on stderr until then."""

    def __init__(self, reason: str, stderr: bytes) -> None:
        super().__init__(reason)
        self.reason = reason
        self.stderr = stderr


def _find(name: str, path: Sequence[str]) -> str | None:
    for directory in path:
        candidate = os.path.join(directory, name)
        try:
            mode = os.stat(candidate).st_mode
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as e:
            raise IOFailure(f'find plugin "{name}" in {directory}: {os.strerror(e.errno or 0)}') from e
        if stat.S_ISREG(mode) and os.access(candidate, os.X_OK):
            return candidate
    return None


def _start(
    executable: str, env: Mapping[str, str], netns: str | None, root: str | None, deadline: float
) -> subprocess.Popen[bytes]:
    busy_until = min(deadline, time.monotonic() + BUSY_RETRY_SECONDS)
    while True:
        try:
            if netns is None and root is None:
                return _spawn(executable, env)
            return _elsewhere(lambda: _spawn(executable, env), netns=netns, root=root)
        except ValueError as e:  # a NUL in the environment
            raise PluginFailed(f"start {executable}: {e}") from e
        except OSError as e:
            if e.errno != errno.ETXTBSY or time.monotonic() >= busy_until:
                raise PluginFailed(f"start {executable}: {os.strerror(e.errno or 0)}") from e
            time.sleep(_BUSY_PAUSE_SECONDS)


def _spawn(executable: str, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [executable],
        env=dict(env),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def _elsewhere(action: Callable[[], T], *, netns: str | None = None, root: str | None = None) -> T:
    """`action` in a network namespace, a root directory or both, done by a thread of its own; raises what it raised."""
    done: list[T] = []
    failed: list[BaseException] = []

    def move_and_act() -> None:
        try:
            if netns is not None:  # its path is the caller's, so it comes before the new root
                _enter(netns)
            if root is not None:
                _change_root(root)
            done.append(action())
        except (OSError, ValueError, InvalidNetns, IOFailure) as e:
            failed.append(e)

    thread = threading.Thread(target=move_and_act, name="elsewhere")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return done[0]


def _enter(netns: str) -> None:
    import ctypes  # costs milliseconds, and few plugins are started elsewhere

    libc = ctypes.CDLL(None, use_errno=True)
    try:
        descriptor = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as e:
        raise InvalidNetns(f"enter network namespace {netns}: {os.strerror(e.errno or 0)}") from e
    try:
        if libc.setns(descriptor, _CLONE_NEWNET) != 0:
            raise InvalidNetns(f"enter network namespace {netns}: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(descriptor)


def _change_root(root: str) -> None:
    """For the calling thread alone: unshare(2) CLONE_FS parts its root and working directory from the other threads'.

    Without it chroot(2) would move the whole process.
    """
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_FS) != 0:
        raise IOFailure(f"change root to {root}: part from the other threads: {os.strerror(ctypes.get_errno())}")
    try:
        os.chroot(root)
        os.chdir("/")  # else the working directory would lead out of the new root
    except OSError as e:
        raise IOFailure(f"change root to {root}: {os.strerror(e.errno or 0)}") from e


class _Conversation:
    """stdin out, stdout and stderr in, until the process ends.

    The end is seen by a pidfd, not by the pipes: a daemon the plugin left behind may keep those open for ever.
    """

    def __init__(self, process: subprocess.Popen[bytes], stdin: bytes, interrupt_fd: int | None) -> None:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        self._process = process
        self._interrupt_fd = interrupt_fd
        self._stdin, self._stdout, self._stderr = process.stdin, process.stdout, process.stderr
        self._unsent = memoryview(stdin)
        self._outputs = {self._stdout: bytearray(), self._stderr: bytearray()}
        self._ended = False
        self._selector = selectors.DefaultSelector()

    def hold(self, deadline: float) -> tuple[bytes, bytes]:
        """(stdout, stderr); raises `_Stopped` at the deadline or when it prints without end."""
        pidfd = os.pidfd_open(self._process.pid)
        try:
            with self._selector as selector:
                selector.register(pidfd, selectors.EVENT_READ, self._see_end)
                if self._interrupt_fd is not None:
                    selector.register(self._interrupt_fd, selectors.EVENT_READ, self._see_signal)
                for pipe, send_or_receive in (
                    (self._stdin, self._send),
                    (self._stdout, self._receive),
                    (self._stderr, self._receive),
                ):
                    os.set_blocking(pipe.fileno(), False)
                    event = selectors.EVENT_WRITE if pipe is self._stdin else selectors.EVENT_READ
                    selector.register(pipe, event, send_or_receive)
                while not self._ended:
                    ready = selector.select(max(0.0, deadline - time.monotonic()))
                    for key, _ in ready:
                        key.data(key.fileobj)
                    if not self._ended and time.monotonic() >= deadline:
                        raise _Stopped("no answer within {seconds:g} s", bytes(self._outputs[self._stderr]))
            for pipe in self._outputs:
                while self._read(pipe):  # what it printed last is still in the pipe
                    continue
        finally:
            os.close(pidfd)
        return bytes(self._outputs[self._stdout]), bytes(self._outputs[self._stderr])

    def _see_end(self, _pidfd: object) -> None:
        self._ended = True

    def _see_signal(self, descriptor: int) -> None:
        number = os.read(descriptor, 1)[0]
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    def _send(self, _pipe: object) -> None:
        try:
            self._unsent = self._unsent[os.write(self._stdin.fileno(), self._unsent[:_CHUNK]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._unsent = self._unsent[:0]  # it does not read its configuration, which is its own affair
        if not self._unsent:
            self._selector.unregister(self._stdin)
            self._stdin.close()

    def _receive(self, pipe: IO[bytes]) -> None:
        if self._read(pipe) is False:
            self._selector.unregister(pipe)

    def _read(self, pipe: IO[bytes]) -> bool | None:
        """Whether there was something; False at the end of the pipe, None when it is empty for now."""
        try:
            chunk = os.read(pipe.fileno(), _CHUNK)
        except BlockingIOError:
            return None
        output = self._outputs[pipe]
        output += chunk
        if len(output) > MAX_OUTPUT_BYTES:
            raise _Stopped(f"printed more than {MAX_OUTPUT_BYTES} bytes", b"")
        return bool(chunk)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Leaves neither the process nor, if it had to be killed, its children; closes the pipes."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None and not pipe.closed:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
