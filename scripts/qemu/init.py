"""The guest's first process: makes a running machine, runs the job's commands, hands back what came of them.

Standard library only. I/O: everything; it is alone in the machine. `/etc/homeport-job.json` is the job. Results leave
as a tar on the second serial port; whatever is in /run/results goes along. The machine ends however the job ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shlex
import signal
import subprocess
import sys
import tarfile
import time
import traceback
import tty
from pathlib import Path
from typing import Any, BinaryIO

JOB = Path("/etc/homeport-job.json")
RESULTS = Path("/run/results")
RESULTS_PORT = "/dev/ttyS1"
SYS_FINIT_MODULE = 313  # x86-64
REBOOT_RESTART = 0x1234567
MODULE_PARAMETERS = {"dummy": b"numdummies=0", "ifb": b"numifbs=0"}  # no links nobody asked for
MOUNTS = (
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("tmpfs", "/run"),
    ("tmpfs", "/dev/shm"),  # noqa: S108
    ("devpts", "/dev/pts"),
)
libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> None:
    """Raises the C library's error unless `result` is 0."""
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def mount_all() -> None:
    """The file systems every Linux machine has. Nothing is mounted on /tmp: the project itself may lie below it."""
    for kind, where in MOUNTS:
        os.makedirs(where, exist_ok=True)
        check(libc.mount(kind.encode(), where.encode(), kind.encode(), 0, None), f"mount {where}")
    os.makedirs("/tmp", exist_ok=True)  # noqa: S108 (a machine with one user)
    os.makedirs(RESULTS)


def load_modules(paths: list[str]) -> None:
    """In the order given: dependencies come first."""
    for path in map(Path, paths):
        parameters = MODULE_PARAMETERS.get(path.stem, b"")
        with path.open("rb") as module:
            check(libc.syscall(SYS_FINIT_MODULE, module.fileno(), parameters, 0), f"load {path}")


def run(number: int, command: str, job: dict[str, Any]) -> dict[str, Any]:
    """Runs one command with its output on the console and in `N.log`; it is killed when the job's time is up."""
    print(f"--- {command}", flush=True)
    began = time.monotonic()
    argv = shlex.split(command)
    with open(RESULTS / f"{number}.log", "wb") as log:
        try:
            child = subprocess.Popen(
                argv,
                cwd=job["directory"],
                env=job["environment"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            log.write(f"{argv[0]}: {error.strerror}\n".encode())
            return {"command": command, "returncode": 127, "seconds": 0.0}
        signal.signal(signal.SIGALRM, lambda *_: os.killpg(child.pid, signal.SIGKILL))
        signal.alarm(max(1, job["seconds"] - int(time.monotonic())))
        assert child.stdout is not None
        copy_until_exit(child, child.stdout.fileno(), log)
        signal.alarm(0)
    return {"command": command, "returncode": child.returncode, "seconds": round(time.monotonic() - began, 1)}


def copy_until_exit(child: subprocess.Popen[bytes], output: int, log: BinaryIO) -> None:
    """Until the child itself is gone: something it left running may hold its output open."""
    while True:
        gone = child.poll() is not None
        if select.select([output], [], [], 0 if gone else 0.2)[0]:
            piece = os.read(output, 65536)
            log.write(piece)
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
            if piece:
                continue
            child.wait()
            return
        if gone:
            return


def send_results() -> None:
    """To whoever started the machine."""
    with open(RESULTS_PORT, "wb", buffering=0) as port:
        tty.setraw(port.fileno())
        with tarfile.open(fileobj=port, mode="w|") as tar:
            tar.add(RESULTS, arcname=".")
        libc.tcdrain(port.fileno())


def main() -> None:
    """The whole life of the machine but its end."""
    mount_all()
    job = json.loads(JOB.read_text())
    load_modules(job["modules"])
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True, env=job["environment"])
    steps = [run(number, command, job) for number, command in enumerate(job["commands"])]
    report = {"kernel": os.uname().release, "seconds": round(time.monotonic(), 1), "steps": steps}
    (RESULTS / "report.json").write_text(json.dumps(report, indent=2))
    send_results()


def work() -> None:
    """The job in a child, so that the first process is free to reap whatever loses its parent."""
    try:
        main()
    except Exception:  # noqa: BLE001 (the outermost edge: the console is the only witness)
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(0)


if __name__ == "__main__":
    worker = os.fork()
    if worker == 0:
        work()
    while os.wait()[0] != worker:
        pass
    libc.reboot(REBOOT_RESTART)  # qemu runs with -no-reboot: this ends it
