"""The guest's root file system: this machine's Python and programs, the project, and kernel modules.

Two archives one after the other, as the kernel allows: a base that changes rarely and is cached under a key of all it
was made from, and the project as it is now. Everything keeps its own path, so that the virtual environment works as it
stands. No root is needed and nothing of this machine is written but below the cache folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

from qemu.cpio import Archive
from qemu.kernel import Kernel, Unavailable, in_load_order

ROOT = Path(__file__).resolve().parents[2]
INIT = Path(__file__).with_name("init.py")
MODULES = (
    "af_packet", "bridge", "br_netfilter", "8021q", "dummy", "ipvlan", "macvlan", "veth", "vrf", "ifb",
    "nf_tables", "nft_*", "nf_conntrack", "nf_conntrack_bridge", "nf_nat", "overlay",
)  # fmt: skip
PROGRAMS = ("ip", "bridge", "nft", "ping", "sh", "mount", "umount", "unshare", "nsenter")
USEFUL_PROGRAMS = (
    "bash", "cat", "chmod", "date", "echo", "env", "false", "hostname", "id", "kill", "ls", "mkdir", "mv", "ps", "rm",
    "sed", "sleep", "ss", "sysctl", "tc", "timeout", "touch", "true", "uname",
)  # fmt: skip
GO_PLUGINS = ("bridge", "host-local", "ipvlan", "loopback", "macvlan", "sbr", "static")
EXTRAS = (
    *(f"/usr/lib/cni/{plugin}" for plugin in GO_PLUGINS),
    "/etc/iproute2", "/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/protocols",
)  # fmt: skip
ROOT_LINKS = ("/bin", "/sbin", "/lib", "/lib64")
DEVELOPMENT_ONLY = frozenset({
    "pip", "setuptools", "pkg_resources", "mypy", "mypyc", "ruff", "uv", "grimp", "importlinter",
    "librt", "ast_serialize",
})  # fmt: skip
LIBRARY_WITHOUT = frozenset({
    "site-packages", "dist-packages", "test", "tests", "idlelib", "tkinter", "turtledemo", "lib2to3", "ensurepip",
    "pydoc_data",
})  # fmt: skip
PROJECT_WITHOUT = frozenset({
    ".git", ".venv", ".cache", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", ".import_linter_cache",
})  # fmt: skip
GUEST_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BASES_KEPT = 2


def build(kernel: Kernel, cache: Path, target: Path, *, commands: Sequence[str], seconds: int) -> None:
    """Writes the whole image to `target`: the base, made now or found in `cache`, then project and job."""
    modules = list(in_load_order(kernel, MODULES))
    base = _base(kernel, cache, modules)
    with target.open("wb") as stream:
        with base.open("rb") as source:
            shutil.copyfileobj(source, stream, 1 << 20)
        archive = Archive(stream)
        archive.tree(ROOT, without=PROJECT_WITHOUT)
        job = {
            "modules": [_module_path(name) for name, _ in modules],
            "commands": list(commands),
            "seconds": seconds,
            "directory": str(ROOT),
            "environment": _environment(),
        }
        archive.file("/etc/homeport-job.json", json.dumps(job).encode())
        archive.file("/init", f"#!{_interpreter()} -IS\n".encode() + INIT.read_bytes(), mode=0o755)
        archive.close()


def _environment() -> dict[str, str]:
    venv = Path(sys.prefix) / "bin"
    return {
        "PATH": f"{venv}:{GUEST_PATH}",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _interpreter() -> str:
    return os.path.realpath(sys.executable)


def _module_path(name: str) -> str:
    return f"/lib/homeport-modules/{name}.ko"


def _base(kernel: Kernel, cache: Path, modules: Sequence[tuple[str, bytes]]) -> Path:
    """The cached archive of all but the project; older ones are removed."""
    paths = sorted(set(_library_paths()) | set(_program_paths()))
    key = hashlib.sha256()
    key.update(Path(__file__).read_bytes() + Path(__file__).with_name("cpio.py").read_bytes())
    key.update(str(kernel.image).encode())
    for path in paths:
        found = os.stat(path)
        key.update(f"{path}\0{found.st_mode}\0{found.st_size}\0{found.st_mtime_ns}\n".encode())
    base = cache / f"base-{key.hexdigest()[:16]}.cpio"
    if base.exists():
        os.utime(base)
        return base
    unfinished = base.with_suffix(".unfinished")
    with unfinished.open("wb") as stream:
        archive = Archive(stream)
        for link in ROOT_LINKS:
            archive.copy(link)
        archive.directory("/root")
        archive.character_device("/dev/console", 5, 1)
        for name, content in modules:
            archive.file(_module_path(name), content)
        for path in paths:
            archive.copy(path)
        archive.close()
    unfinished.rename(base)
    for old in sorted(cache.glob("base-*.cpio"), key=lambda p: p.stat().st_mtime)[:-BASES_KEPT]:
        old.unlink()
    return base


def _library_paths() -> Iterator[str]:
    """The interpreter, its standard library and the virtual environment, with every shared library they load."""
    venv = Path(sys.prefix)
    folders = [
        (Path(sysconfig.get_path("stdlib")), LIBRARY_WITHOUT),
        (Path(sysconfig.get_path("platstdlib")), LIBRARY_WITHOUT),
        (Path(sysconfig.get_path("purelib")), DEVELOPMENT_ONLY),
    ]
    files = [_interpreter(), sys.executable, str(venv / "pyvenv.cfg")]
    files += [str(p) for p in (venv / "bin").iterdir() if p.stat().st_size < 1 << 16 or p.is_symlink()]
    for top, without in folders:
        files += [str(p) for p in _files_below(top.resolve(), without)]
    yield from files
    yield from _shared_libraries([_interpreter(), *(f for f in files if re.search(r"\.so(\.|$)", f))])


def _files_below(top: Path, without: frozenset[str]) -> Iterator[Path]:
    for folder, names, files in os.walk(top):
        names[:] = [n for n in names if n not in without and not n.startswith("config-3")]
        wanted = (f for f in files if not f.startswith("_tkinter.") and "__mypyc." not in f)
        yield from (Path(folder) / f for f in wanted if (Path(folder) / f).exists())


def _program_paths() -> Iterator[str]:
    found = {p: shutil.which(p, path=GUEST_PATH) for p in (*PROGRAMS, *USEFUL_PROGRAMS)}
    if missing := [p for p in PROGRAMS if found[p] is None]:
        raise Unavailable(f"programs the guest needs are not on this machine: {', '.join(missing)}")
    programs = [p for p in found.values() if p]
    yield from programs
    for extra in map(Path, EXTRAS):
        yield from (str(p) for p in ([extra] if extra.is_file() else extra.rglob("*")) if p.is_file())
    yield from _shared_libraries(programs)


def _shared_libraries(files: Sequence[str]) -> Iterator[str]:
    """What the loader would map for these files, the loader itself included."""
    listing = subprocess.run(["ldd", *files], capture_output=True, text=True, timeout=120, check=False).stdout
    yield from sorted(set(re.findall(r"(?:=> |^\s+)(/\S+) \(0x", listing, re.MULTILINE)))
