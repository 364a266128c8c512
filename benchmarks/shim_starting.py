"""What the shim costs: from its start to the daemon's accept, a whole call, and its memory while it waits.

`python -m benchmarks.shim_starting` prints the figures by themselves, without a daemon or root. The clock runs in
the process that starts the shim and is also the daemon's place: from before the spawn to after the accept.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from benchmarks.measuring import Figure, Samples, figures

from homeport.cli import executables
from homeport.daemon import framing
from homeport.daemon.calls import Reply

NATIVE, PYTHON = "shim, native", "shim in Python"
CONNECT, CALL = "shim: start to connect", "shim: start to exit"
ROUNDS = 200
_CONF = b'{"cniVersion": "1.1.0", "name": "cluster", "type": "homeport"}'
_RESULT = b'{\n    "cniVersion": "1.1.0",\n    "ips": [{"address": "10.1.2.3/24"}]\n}'
_PEAK = "VmHWM:"


class ShimCosts(msgspec.Struct, frozen=True, kw_only=True):
    """Times of every round, and the largest resident set of each shim in KiB. Without a native shim, Python's alone."""

    samples: Samples
    peak_kib: Mapping[str, int]


def measure(folder: Path, *, rounds: int) -> ShimCosts:
    """All that is made lies in `folder`. The shims take turns; one more round warms up."""
    files = _place(folder)
    samples: Samples = {what: {who: [] for who in files} for what in (CONNECT, CALL)}
    peaks = dict.fromkeys(files, 0)
    path = folder / "sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        for number in range(rounds + 1):
            for who, file in files.items():
                connect_ms, call_ms, peak_kib = _call(file, path, listener)
                if number:
                    samples[CONNECT][who].append(connect_ms)
                    samples[CALL][who].append(call_ms)
                    peaks[who] = max(peaks[who], peak_kib)
    return ShimCosts(samples=samples, peak_kib=peaks)


def _place(folder: Path) -> dict[str, Path]:
    """As `homeport install` writes them."""
    found = {PYTHON: executables.python_shim("homeport")}
    native = executables.shim("homeport")
    if native.kind == "shim":
        found = {NATIVE: native, **found}
    files = {}
    for who, executable in found.items():
        files[who] = folder / executable.kind
        files[who].write_bytes(executable.contents)
        files[who].chmod(0o755)
    return files


def _call(file: Path, path: Path, listener: socket.socket) -> tuple[float, float, int]:
    """Milliseconds from the spawn to the accept and to the exit; the peak in KiB."""
    environment = {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "0123456789abcdef" * 4,
        "CNI_NETNS": "/run/netns/cni-01234567-89ab-cdef-0123-456789abcdef",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": "/opt/cni/bin",
        "HOMEPORT_SOCKET": str(path),
    }
    stdin = os.memfd_create("stdin", 0)
    os.write(stdin, _CONF)
    os.lseek(stdin, 0, os.SEEK_SET)
    null = os.open(os.devnull, os.O_WRONLY)
    actions: Sequence[tuple[int, int, int]] = [(os.POSIX_SPAWN_DUP2, stdin, 0), (os.POSIX_SPAWN_DUP2, null, 1)]
    began = time.perf_counter_ns()
    child = os.posix_spawn(file, [str(file)], environment, file_actions=actions)
    connection, _ = listener.accept()
    connected = time.perf_counter_ns()
    with connection:
        _read_request(connection)
        peak_kib = _peak_kib(child)  # before the answer: afterwards there is nothing left to look at
        paused = time.perf_counter_ns()
        connection.sendall(framing.encode_reply(Reply(exit_code=0, stdout=_RESULT)))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    ended = time.perf_counter_ns()
    os.close(stdin)
    os.close(null)
    if code:
        raise RuntimeError(f"{file}: exit code {code}")
    return (connected - began) / 1e6, (ended - paused + connected - began) / 1e6, peak_kib


def _read_request(connection: socket.socket) -> None:
    received = b""
    size = framing.HEADER_BYTES
    while len(received) < size:
        received += connection.recv(65536)
        if len(received) >= framing.HEADER_BYTES:
            size = framing.request_sizes(received[: framing.HEADER_BYTES]).whole


def _peak_kib(process: int) -> int:
    status = Path(f"/proc/{process}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(_PEAK))


def shim_figures(costs: ShimCosts) -> list[Figure]:
    """The native shim against the one in Python."""
    return figures(costs.samples, alternative=PYTHON)


def main() -> None:
    rounds = int(sys.argv[1]) if sys.argv[1:] else ROUNDS
    with tempfile.TemporaryDirectory(prefix="homeport-bench-") as folder:
        costs = measure(Path(folder), rounds=rounds)
    for figure in shim_figures(costs):
        spread = f"{figure.ms.min:6.2f} {figure.ms.median:6.2f} {figure.ms.max:6.2f}"
        print(f"{figure.what:24} {figure.who:16} {spread} ms (min, median, max of {figure.rounds})")
    for who, peak_kib in costs.peak_kib.items():
        print(f"{'shim: peak memory':24} {who:16} {peak_kib:6} KiB")


if __name__ == "__main__":
    main()
