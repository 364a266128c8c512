"""Where the programs of the control plane come from, by servers of our own and without a network."""

from __future__ import annotations

import hashlib
import io
import os
import platform
import stat
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import pytest
from testcluster import binaries, debian, downloads
from testcluster.progress import Progress, Unavailable

VERSION = downloads.VERSION
COMPANIONS = ("kube-controller-manager", "kube-scheduler")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


class Mirror:
    """Serves envtest's archive and the release's programs, as their own servers lay them out."""

    def __init__(self, folder: Path, url: str) -> None:
        self.url = url
        self.releases = folder / VERSION / "bin" / "linux" / "amd64"
        self.releases.mkdir(parents=True)
        for name in COMPANIONS:
            (self.releases / name).write_bytes(name.encode())
            (self.releases / f"{name}.sha512").write_text(hashlib.sha512(name.encode()).hexdigest() + "\n")
        self.archive = folder / f"envtest-{VERSION}" / f"envtest-{VERSION}-linux-amd64.tar.gz"
        self.archive.parent.mkdir()
        with tarfile.open(self.archive, "w:gz") as tar:
            for name in ("etcd", "kube-apiserver", "kubectl"):
                member = tarfile.TarInfo(f"controller-tools/envtest/{name}")
                member.size = len(name)
                tar.addfile(member, io.BytesIO(name.encode()))


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    folder = tmp_path / "mirror"
    folder.mkdir()
    server = HTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    made = Mirror(folder, f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(downloads, "SHA512", {"amd64": hashlib.sha512(made.archive.read_bytes()).hexdigest()})
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    serving.start()
    yield made
    server.shutdown()
    serving.join()
    server.server_close()


@pytest.fixture
def progress(tmp_path: Path) -> Progress:
    return Progress("test", tmp_path / "fetch.log")


def test_official_builds_are_put_together(mirror: Mirror, progress: Progress, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert downloads.fetch(out, progress, envtest=mirror.url, releases=mirror.url) == VERSION
    assert sorted(path.name for path in out.iterdir()) == sorted(binaries.NAMES)
    for path in out.iterdir():
        assert path.read_text() == path.name
        assert path.stat().st_mode & stat.S_IXUSR


def test_a_download_that_is_not_what_it_should_be_is_refused(
    mirror: Mirror, progress: Progress, tmp_path: Path
) -> None:
    (mirror.releases / "kube-scheduler").write_bytes(b"something else")
    with pytest.raises(Unavailable, match=r"kube-scheduler: found SHA-512 \w{16}\.\.\., expected \w{16}\.\.\."):
        downloads.fetch(tmp_path / "out", progress, envtest=mirror.url, releases=mirror.url)


def test_what_is_not_there_is_not_reached(mirror: Mirror, progress: Progress, tmp_path: Path) -> None:
    mirror.archive.unlink()
    with pytest.raises(downloads.NotReached, match="HTTP status 404"):
        downloads.fetch(tmp_path / "out", progress, envtest=mirror.url, releases=mirror.url)
    with pytest.raises(downloads.NotReached, match=r"http://127\.0\.0\.1:1/"):
        downloads.fetch(tmp_path / "out", progress, envtest="http://127.0.0.1:1", releases=mirror.url)


def test_the_build_is_for_where_no_download_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def not_reached(out: Path, progress: Progress) -> str:
        out.mkdir()
        (out / "etcd").write_text("half of it")
        raise downloads.NotReached("no network")

    def build(work: Path, out: Path, progress: Progress) -> str:
        made.append("built")
        out.mkdir()
        programs(out)
        return "v1.20.2"

    monkeypatch.setattr(downloads, "fetch", not_reached)
    monkeypatch.setattr(debian, "build", build)
    environ = {"HOMEPORT_CACHE": str(tmp_path)}
    assert binaries.find(environ) is None
    first = binaries.fetch(environ)
    assert (first.directory, first.version) == (tmp_path / "kubernetes" / "v1.20.2", "v1.20.2")
    assert binaries.fetch(environ) == first == binaries.find(environ)
    assert made == ["built"]
    assert not list((tmp_path / "kubernetes").glob("new-*"))


def test_a_build_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def not_reached(out: Path, progress: Progress) -> str:
        raise downloads.NotReached("no network")

    def build(work: Path, out: Path, progress: Progress) -> str:
        progress.run("sh", "-c", "echo the compiler says no; exit 2")
        raise AssertionError("not reached")

    monkeypatch.setattr(downloads, "fetch", not_reached)
    monkeypatch.setattr(debian, "build", build)
    with pytest.raises(Unavailable, match=r"exit status 2[^$]*the compiler says no"):
        binaries.fetch({"HOMEPORT_CACHE": str(tmp_path)})
    assert binaries.find({"HOMEPORT_CACHE": str(tmp_path)}) is None
    assert [path.name for path in (tmp_path / "kubernetes").iterdir() if path.is_dir()] == []


def test_the_newest_version_of_the_cache_is_taken(tmp_path: Path) -> None:
    for version in ("v1.9.11", "v1.30.0", "v1.31.0"):
        (tmp_path / "kubernetes" / version).mkdir(parents=True)
    for version in ("v1.9.11", "v1.30.0"):
        programs(tmp_path / "kubernetes" / version)
    found = binaries.find({"HOMEPORT_CACHE": str(tmp_path)})
    assert found
    assert found.version == "v1.30.0", "v1.31.0 is not complete"


def test_the_assets_of_kubebuilder_come_first(tmp_path: Path) -> None:
    assets = tmp_path / "assets"
    assets.mkdir()
    programs(assets)
    environ = {"KUBEBUILDER_ASSETS": str(assets), "HOMEPORT_CACHE": str(tmp_path)}
    assert binaries.find(environ) == binaries.Binaries(assets, "v1.99.0")
    (assets / "kube-scheduler").unlink()
    with pytest.raises(Unavailable, match=f"KUBEBUILDER_ASSETS={assets} lacks kube-scheduler"):
        binaries.fetch(environ)


def programs(folder: Path) -> None:
    for name in binaries.NAMES:
        (folder / name).write_text("#!/bin/sh\necho Kubernetes v1.99.0\n")
        os.chmod(folder / name, 0o755)
