"""The official builds of Kubernetes, from where the network allows it. I/O: HTTPS, files.

envtest's archive (github.com/kubernetes-sigs/controller-tools) has etcd and kube-apiserver; the release's own server
(dl.k8s.io) has the controller-manager and the scheduler that go with them.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
import tarfile
from pathlib import Path
from urllib.parse import urlsplit

import urllib3

from testcluster.progress import Progress, Unavailable

VERSION = "v1.30.0"
ENVTEST = "https://github.com/kubernetes-sigs/controller-tools/releases/download"
RELEASES = "https://dl.k8s.io"
SHA512 = {  # of envtest's archive, from envtest-releases.yaml of controller-tools
    "amd64": "d53870e1a6c9b3b50366489a9387f4e254c664955e932e3e25e2088bb437b270"
    "bfab75d241b50849233f9a34bb1f08b41567ebb81ea29352104ae0f5b1cb9e88",
    "arm64": "140748efaa394598f50175e809cd53896881ed046d93ebdfbd5442100f68b3d8"
    "d51fd22f8cf1ae06a6e43473897b789df0db6e0ae6c45c8320b000d5ee900005",
}
CONNECT_SECONDS = 5.0
READ_SECONDS = 60.0
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


class NotReached(Exception):
    """The network does not lead there, or there is nothing for this machine."""


def fetch(out: Path, progress: Progress, *, envtest: str = ENVTEST, releases: str = RELEASES) -> str:
    """Fills `out` with the four programs and returns their version.

    Raises `NotReached` when that cannot be; `Unavailable` when what came is not what it should be.
    """
    arch = _MACHINES.get(platform.machine(), "")
    if arch not in SHA512:
        raise NotReached(f"no official archive for {platform.machine()}")
    archive = out.with_suffix(".tar.gz")
    progress.step(f"trying envtest's archive of {VERSION} at {urlsplit(envtest).netloc}")
    _get(f"{envtest}/envtest-{VERSION}/envtest-{VERSION}-linux-{arch}.tar.gz", archive, SHA512[arch])
    out.mkdir()
    _unpack(archive, out)
    archive.unlink()
    for name in ("kube-controller-manager", "kube-scheduler"):
        progress.step(f"downloading {name} from {urlsplit(releases).netloc}")
        address = f"{releases}/{VERSION}/bin/linux/{arch}/{name}"
        _get(address, out / name, _text(f"{address}.sha512"))
        (out / name).chmod(0o755)
    return VERSION


def version_of(apiserver: Path) -> str:
    """Such as "v1.30.0", as the program itself says."""
    done = subprocess.run([apiserver, "--version"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Unavailable(f"{apiserver} --version: exit status {done.returncode}\n{done.stderr}")
    return done.stdout.split()[-1]


def _get(address: str, to: Path, sha512: str) -> None:
    digest = hashlib.sha512()
    try:
        with _open(address) as answer, to.open("wb") as file:
            for chunk in answer.stream(1 << 20):
                digest.update(chunk)
                file.write(chunk)
    except urllib3.exceptions.HTTPError as e:
        raise NotReached(f"{address}: {_reason(e)}") from e
    if digest.hexdigest() != sha512:
        raise Unavailable(f"{address}: found SHA-512 {digest.hexdigest()[:16]}..., expected {sha512[:16]}...")


def _text(address: str) -> str:
    try:
        with _open(address) as answer:
            return answer.read().decode("ascii").split()[0]
    except urllib3.exceptions.HTTPError as e:
        raise NotReached(f"{address}: {_reason(e)}") from e


def _open(address: str) -> urllib3.BaseHTTPResponse:
    timeout = urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS)
    answer = urllib3.request(
        "GET", address, preload_content=False, timeout=timeout, retries=urllib3.Retry(1, redirect=5)
    )
    if answer.status != 200:
        answer.release_conn()
        raise NotReached(f"{address}: HTTP status {answer.status}")
    return answer


def _reason(error: urllib3.exceptions.HTTPError) -> str:
    """Without the addresses of objects that urllib3 prints."""
    cause = getattr(error, "reason", None) or error
    return str(cause).rpartition("object at 0x")[2].partition(">: ")[2] or type(cause).__name__


def _unpack(archive: Path, out: Path) -> None:
    """Only the two programs, whatever folder of the archive they are in."""
    with tarfile.open(archive) as tar:
        for member in tar:
            name = Path(member.name).name
            if name in ("etcd", "kube-apiserver") and member.isfile():
                content = tar.extractfile(member)
                assert content
                with (out / name).open("wb") as file:
                    shutil.copyfileobj(content, file)
                (out / name).chmod(0o755)
