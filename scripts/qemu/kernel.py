"""Debian's cloud kernel, unpacked and not installed.

I/O: apt and dpkg as an ordinary user, files under a cache folder.
"""

from __future__ import annotations

import hashlib
import lzma
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

META_PACKAGE = "linux-image-cloud-amd64"
FETCH_SECONDS = 300


class Unavailable(Exception):
    """The guest cannot be had on this machine; the text says what is missing."""


@dataclass(frozen=True)
class Kernel:
    """`modules` holds the .ko files of `release`, in the kernel's own layout."""

    release: str
    image: Path
    modules: Path


def cached(cache: Path) -> Kernel | None:
    """The kernel fetched last, or None when none has been."""
    folders = sorted(cache.glob("linux-image-*"), key=lambda p: p.stat().st_mtime)
    return _kernel(folders[-1]) if folders else None


def fetch(cache: Path) -> Kernel:
    """The newest kernel of this machine's Debian archive, in a folder named by package, version and content."""
    cache.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=cache, prefix="fetch-") as work_name:
        work = Path(work_name)
        options: list[str] = []
        package = _package(options)
        if package is None:  # no lists, as in a fresh container: fetch them into a place of our own
            options = _private_lists(work)
            package = _package(options)
        if package is None:
            raise Unavailable(f"apt knows no package {META_PACKAGE}; does its configuration name a Debian archive?")
        _run(["apt-get", *options, "-q", "download", package], cwd=work)
        (archive,) = work.glob("*.deb")
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()[:12]
        _run(["dpkg", "-x", str(archive), str(work / "root")])
        _keep_what_boots(work / "root")
        folder = cache / f"{archive.stem}_{digest}"
        if not folder.exists():
            (work / "root").rename(folder)
    return _kernel(folder)


def in_load_order(kernel: Kernel, wanted: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """(name, content) of the wanted modules and all they depend on, dependencies first.

    A wanted name may end in `*`. Names this kernel lacks are left out: they are built in, or a test will miss them.
    """
    files = {p.name.split(".ko")[0].replace("-", "_"): p for p in sorted(kernel.modules.rglob("*.ko*"))}
    done: set[str] = set()

    def load(name: str) -> Iterator[tuple[str, bytes]]:
        if name in done or name not in files:
            return
        done.add(name)
        content = files[name].read_bytes()
        if files[name].suffix == ".xz":
            content = lzma.decompress(content)
        depends = re.search(rb"\0depends=([^\0]*)\0", content)
        for needed in depends.group(1).decode().split(",") if depends else ():
            yield from load(needed.replace("-", "_"))
        yield name, content

    for pattern in wanted:
        matching = [n for n in files if n.startswith(pattern[:-1])] if pattern.endswith("*") else [pattern]
        for name in matching:
            yield from load(name)


def _kernel(folder: Path) -> Kernel:
    (image,) = (folder / "boot").glob("vmlinuz-*")
    release = image.name.removeprefix("vmlinuz-")
    (modules,) = folder.glob(f"**/modules/{release}/kernel")
    return Kernel(release=release, image=image, modules=modules)


def _package(options: list[str]) -> str | None:
    """The package that the meta-package stands for now."""
    answer = subprocess.run(
        ["apt-cache", *options, "depends", META_PACKAGE], capture_output=True, text=True, timeout=FETCH_SECONDS
    )
    found = re.search(r"^\s*Depends: (linux-image-\S+)$", answer.stdout, re.MULTILINE)
    return found.group(1) if found else None


def _private_lists(work: Path) -> list[str]:
    """Fetches package lists into `work`, which needs no root; the options that make apt use them."""
    (work / "lists" / "partial").mkdir(parents=True)
    (work / "archives" / "partial").mkdir(parents=True)
    options = [
        f"-oDir::State::lists={work}/lists",
        f"-oDir::Cache={work}",
        f"-oDir::Cache::archives={work}/archives",
    ]
    _run(["apt-get", *options, "-q", "update"])
    return options


def _keep_what_boots(root: Path) -> None:
    for path in root.iterdir():
        if path.name not in ("boot", "lib", "usr"):
            shutil.rmtree(path)
    for share in root.glob("usr/share"):
        shutil.rmtree(share)


def _run(argv: list[str], cwd: Path | None = None) -> None:
    try:
        done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=FETCH_SECONDS)
    except FileNotFoundError as e:
        raise Unavailable(f"{argv[0]} is not on this machine; it comes with Debian") from e
    if done.returncode != 0:
        raise Unavailable(f"{' '.join(argv)}: exit status {done.returncode}\n{done.stderr.strip()}")
