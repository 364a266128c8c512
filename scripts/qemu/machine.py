"""One boot of the guest under qemu, from start to results. I/O: a qemu process, its console and results files."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

from qemu.kernel import Kernel, Unavailable

QEMU = "qemu-system-x86_64"
MEMORY_MB = 1536
CPUS = 2
CONSOLE_LINES_SHOWN = 60


class GuestFailed(Exception):
    """The guest did not come to its end in time, or brought no results; the text ends with its console."""


@dataclass(frozen=True)
class Step:
    """One command of the job. A `returncode` is negative for a signal, -9 for a command past its time."""

    command: str
    returncode: int
    seconds: float
    log: str


@dataclass(frozen=True)
class Report:
    """What a boot came to. `seconds` is the guest's own uptime at the end."""

    kernel: str
    seconds: float
    steps: tuple[Step, ...]


def boot(kernel: Kernel, image: Path, results: Path, *, seconds: int) -> Report:
    """Runs the image to its end. `results` then holds the files of the guest's /run/results, and `console.log`.

    Emulation, never KVM: where the machine is itself virtual, /dev/kvm may be there and hang.
    """
    if shutil.which(QEMU) is None:
        raise Unavailable(f"{QEMU} is not on this machine; it comes with Debian's package qemu-system-x86")
    results.mkdir(parents=True, exist_ok=True)
    console, parcel = results / "console.log", results / "results.tar"
    argv = [
        QEMU, "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", str(CPUS), "-m", str(MEMORY_MB),
        "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
        "-kernel", str(kernel.image), "-initrd", str(image),
        "-append", "console=ttyS0 quiet panic=-1 mitigations=off nokaslr random.trust_cpu=on",
        "-serial", f"file:{console}", "-serial", f"file:{parcel}",
    ]  # fmt: skip
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired as e:
        raise GuestFailed(f"the guest was not done after {seconds} s; its console ends:\n{_tail(console)}") from e
    if done.returncode != 0:
        raise GuestFailed(f"{QEMU}: exit status {done.returncode}\n{done.stderr.strip()}")
    try:
        with tarfile.open(parcel) as tar:
            for member in tar:
                if content := tar.extractfile(member):
                    (results / Path(member.name).name).write_bytes(content.read())
    except (OSError, tarfile.TarError) as e:
        raise GuestFailed(f"the guest brought no results; its console ends:\n{_tail(console)}") from e
    return _read_report(results)


def _read_report(results: Path) -> Report:
    raw = json.loads((results / "report.json").read_text())
    steps = tuple(
        Step(s["command"], s["returncode"], s["seconds"], (results / f"{n}.log").read_text(errors="replace"))
        for n, s in enumerate(raw["steps"])
    )
    return Report(kernel=raw["kernel"], seconds=raw["seconds"], steps=steps)


def _tail(console: Path) -> str:
    text = console.read_text(errors="replace") if console.exists() else ""
    return "\n".join(text.splitlines()[-CONSOLE_LINES_SHOWN:]) or "(empty)"
