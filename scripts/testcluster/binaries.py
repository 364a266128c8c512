"""Where the programs of the control plane come from; the first hit wins. I/O: files, the network, processes.

KUBEBUILDER_ASSETS; the cache; the project's official archives; a build from Debian's source package. What was fetched
or built is kept in `<cache>/kubernetes/<version>`, where it appears whole or not at all.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from testcluster import debian, downloads
from testcluster.progress import Progress, Unavailable

ROOT = Path(__file__).parents[2]
NAMES = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")


@dataclass(frozen=True)
class Binaries:
    """A directory that holds every one of `NAMES`; `version` is such as "v1.20.2"."""

    directory: Path
    version: str

    def path(self, name: str) -> str:
        return str(self.directory / name)


def cache(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder for versions of Kubernetes; HOMEPORT_CACHE lets several checkouts share one."""
    return Path(environ.get("HOMEPORT_CACHE") or ROOT / ".cache") / "kubernetes"


def find(environ: Mapping[str, str] = os.environ) -> Binaries | None:
    """What is on this machine already, or None. Raises `Unavailable` when KUBEBUILDER_ASSETS is not complete."""
    assets = environ.get("KUBEBUILDER_ASSETS")
    if assets:
        return _of_assets(Path(assets))
    complete = [d for d in cache(environ).glob("v*") if not _missing(d)]
    newest = max(complete, key=_version_key, default=None)
    return Binaries(newest, newest.name) if newest else None


def fetch(environ: Mapping[str, str] = os.environ) -> Binaries:
    """As `find`, and gets them when there are none, which takes minutes. Only one process at a time does that."""
    found = find(environ)
    if found is not None:
        return found
    folder = cache(environ)
    with _locked(folder):
        found = find(environ)  # another process may have got them while we waited
        if found is not None:
            return found
        progress = Progress("kubernetes", folder / "fetch.log")
        with TemporaryDirectory(dir=folder, prefix="new-") as work:
            version = _get(Path(work), progress)
            (Path(work) / "out").rename(folder / version)
        progress.step(f"{version} is ready in {folder / version}")
        return Binaries(folder / version, version)


def _get(work: Path, progress: Progress) -> str:
    """Fills `work/out` with `NAMES` and returns their version."""
    out = work / "out"
    try:
        version = downloads.fetch(out, progress)
    except downloads.NotReached as reason:
        progress.step(f"no download: {reason}")
        shutil.rmtree(out, ignore_errors=True)
        version = debian.build(work, out, progress)
    missing = _missing(out)
    if missing:
        raise Unavailable(f"no {', '.join(missing)} among what was fetched; see {cache()}/fetch.log")
    return version


def _of_assets(directory: Path) -> Binaries:
    missing = _missing(directory)
    if missing:
        raise Unavailable(
            f"KUBEBUILDER_ASSETS={directory} lacks {', '.join(missing)}: the suites need a whole control plane, while "
            "envtest's archive has only etcd and kube-apiserver. Put the missing programs of the same version there, "
            "or unset the variable"
        )
    return Binaries(directory, downloads.version_of(directory / "kube-apiserver"))


def _missing(directory: Path) -> list[str]:
    return [name for name in NAMES if not os.access(directory / name, os.X_OK)]


def _version_key(directory: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in directory.name[1:].split(".") if part.isdigit())


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for abandoned in folder.glob("new-*"):  # of a run that was killed
            shutil.rmtree(abandoned, ignore_errors=True)
        yield
