"""Kubernetes built from Debian's source package, with Debian's own Go and etcd. I/O: apt, dpkg, the Go compiler.

Nothing is installed, nothing outside the work folder is written, and no root is needed: packages are unpacked in it.
Debian builds only kubectl from this source; the servers are in the same tree.
"""

from __future__ import annotations

import os
import re
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from testcluster.progress import Progress, Unavailable

SUITE = "bookworm"  # the release whose sources still have a vendor folder, so that no other module is downloaded
ARCHIVE = "http://deb.debian.org/debian"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
GO_PACKAGES = ("golang-1.19-go", "golang-1.19-src")
ETCD_PACKAGE = "etcd-server"
REFLECT_PACKAGE = "golang-github-modern-go-reflect2-dev"
REFLECT = "github.com/modern-go/reflect2"
SERVERS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
OWN = "k8s.io/kubernetes"
STAGING = f"{OWN}/vendor"
OPENAPI_GEN = f"{STAGING}/k8s.io/kube-openapi/cmd/openapi-gen"
OPENAPI_TAG = "+k8s:openapi-gen="
VERSION_PACKAGE = f"{STAGING}/k8s.io/component-base/version"
BUILD_SECONDS = 3600


def build(work: Path, out: Path, progress: Progress) -> str:
    """Fills `out` with the three servers and etcd, and returns the version built, such as "v1.20.2"."""
    _require_tools()
    progress.step("building Kubernetes from Debian's source package, once; this takes some minutes")
    progress.step(f"fetching the package lists of Debian {SUITE}")
    packages = work / "packages"
    packages.mkdir()
    apt = _apt(work, progress)
    progress.run("apt-get", "-q", "update", env=apt)
    progress.step("fetching etcd, Go and the source of Kubernetes")
    progress.run("apt-get", "-q", "download", *GO_PACKAGES, REFLECT_PACKAGE, ETCD_PACKAGE, cwd=packages, env=apt)
    progress.run("apt-get", "-q", "source", "--download-only", "kubernetes", cwd=packages, env=apt)
    progress.step("unpacking")
    root = work / "root"
    for package in sorted(packages.glob("*.deb")):
        progress.run("dpkg", "-x", str(package), str(root))
    tree = _unpack_source(packages, work)
    _renew_reflection(root, tree)
    version = "v" + tree.name.removeprefix("kubernetes-")
    go = _go(work, root, tree)
    progress.step("generating the OpenAPI definitions")
    _generate_openapi(work, tree, go, progress)
    out.mkdir()
    for done, server in enumerate(SERVERS):
        progress.step(f"compiling {server} {version} ({done + 1} of {len(SERVERS)})")
        flags = f"-s -w {_version_flags(version)}"
        _run_go(progress, go, tree, "build", "-trimpath", "-ldflags", flags, "-o", str(out), f"{OWN}/cmd/{server}")
    shutil.copy2(root / "usr" / "bin" / "etcd", out / "etcd")
    return version


def _require_tools() -> None:
    for tool, package in (("apt-get", "apt"), ("dpkg", "dpkg"), ("nice", "coreutils")):
        if shutil.which(tool) is None:
            raise Unavailable(
                f"{tool} (Debian package {package}) is not on this machine, so Kubernetes cannot be built here; "
                "name a folder with etcd, kube-apiserver, kube-controller-manager and kube-scheduler in "
                "KUBEBUILDER_ASSETS"
            )
    if not os.path.exists(KEYRING):
        raise Unavailable(f"{KEYRING} is missing, so no package could be verified; it is in debian-archive-keyring")


def _apt(work: Path, progress: Progress) -> Mapping[str, str]:
    """The environment that makes apt use lists and folders of ours beside the machine's own proxy settings."""
    for folder in ("apt/lists/partial", "apt/archives/partial", "apt/sources.list.d"):
        (work / folder).mkdir(parents=True)
    (work / "apt/status").touch()
    mirror = _mirror(progress)
    (work / "apt/sources.list").write_text(
        "".join(f"{kind} [signed-by={KEYRING}] {mirror} {SUITE} main\n" for kind in ("deb", "deb-src"))
    )
    conf = work / "apt.conf"
    conf.write_text(
        f'Dir::Etc::sourcelist "{work}/apt/sources.list";\n'
        f'Dir::Etc::sourceparts "{work}/apt/sources.list.d";\n'
        f'Dir::Etc::preferences "{work}/apt/preferences";\n'
        f'Dir::Etc::preferencesparts "{work}/apt/sources.list.d";\n'
        f'Dir::State::lists "{work}/apt/lists";\n'
        f'Dir::State::status "{work}/apt/status";\n'
        f'Dir::Cache "{work}/apt";\n'
        'Acquire::Languages "none";\n'
        'APT::Sandbox::User "";\n'
        'Acquire::Retries "3";\n'
    )
    return {**os.environ, "APT_CONFIG": str(conf), "LC_ALL": "C"}


def _mirror(progress: Progress) -> str:
    """The Debian mirror this machine is set up with, else the one everybody can reach."""
    listed = progress.ask("apt-get", "indextargets", "--format", "$(ORIGIN) $(RELEASE) $(REPO_URI)")
    for line in listed.splitlines():
        found = re.fullmatch(rf"Debian {SUITE} (https?://\S+)", line)
        if found:
            return found.group(1)
    return ARCHIVE


def _unpack_source(packages: Path, work: Path) -> Path:
    """The tree as upstream has it: Debian's patches are about kubectl."""
    (archive,) = packages.glob("kubernetes_*.orig.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(work, filter="tar")
    (tree,) = work.glob("kubernetes-*")
    return tree


def _renew_reflection(root: Path, tree: Path) -> None:
    """Replaces the one vendored module that is too old for this Go: the server would crash on any custom resource.

    reflect2 reaches into the runtime, where Go 1.18 changed the function that starts an iteration over a map.
    """
    vendored = tree / "vendor" / REFLECT
    shutil.rmtree(vendored)
    shutil.copytree(root / "usr" / "share" / "gocode" / "src" / REFLECT, vendored)


def _go(work: Path, root: Path, tree: Path) -> Mapping[str, str]:
    """The environment of Go's GOPATH mode: its module mode refuses this tree's vendor folder."""
    (goroot,) = (root / "usr" / "lib").glob("go-*")
    own = work / "gopath" / "src" / OWN
    own.parent.mkdir(parents=True)
    own.symlink_to(tree)
    return {
        "PATH": f"{goroot}/bin:{os.environ['PATH']}",
        "HOME": str(work),
        "GOROOT": str(goroot),
        "GOPATH": str(work / "gopath"),
        "GOCACHE": str(work / "gocache"),
        "GOTMPDIR": str(work),
        "GO111MODULE": "off",
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "",
        "CGO_ENABLED": "0",
    }


def _run_go(progress: Progress, go: Mapping[str, str], tree: Path, *argv: str) -> None:
    inside = Path(go["GOPATH"]) / "src" / OWN  # not `tree`: Go asks for the name by which it came here
    assert inside.resolve() == tree.resolve()
    progress.run(f"{go['GOROOT']}/bin/go", *argv, cwd=inside, env={**go, "PWD": str(inside)}, seconds=BUILD_SECONDS)


def _generate_openapi(work: Path, tree: Path, go: Mapping[str, str], progress: Progress) -> None:
    """The one generated file that is not in the tree and that the servers do not compile without."""
    tool = work / "openapi-gen"
    _run_go(progress, go, tree, "build", "-o", str(tool), OPENAPI_GEN)
    inside = Path(go["GOPATH"]) / "src" / OWN
    progress.run(
        str(tool),
        *("--input-dirs", ",".join(_tagged_packages(tree))),
        *("--output-package", f"{OWN}/pkg/generated/openapi"),
        *("--output-file-base", "zz_generated.openapi"),
        *("--go-header-file", "hack/boilerplate/boilerplate.generatego.txt"),
        *("--report-filename", str(work / "api-violations")),
        cwd=inside,
        env={**go, "PWD": str(inside)},
    )


def _tagged_packages(tree: Path) -> list[str]:
    """Import paths of the packages whose types have OpenAPI definitions, sorted."""
    return sorted({_import_path(tree, file.parent) for file in _sources(tree) if OPENAPI_TAG in file.read_text()})


def _sources(tree: Path) -> Iterator[Path]:
    for top in ("pkg/apis", "staging/src/k8s.io"):
        for folder, folders, files in os.walk(tree / top):
            folders[:] = [f for f in folders if f != "code-generator" and not f.startswith("sample-")]
            yield from (Path(folder, f) for f in files if f.endswith(".go") and not f.endswith("_test.go"))


def _import_path(tree: Path, package: Path) -> str:
    inside = package.relative_to(tree).as_posix()
    staged = inside.removeprefix("staging/src/")
    return f"{STAGING}/{staged}" if staged != inside else f"{OWN}/{inside}"


def _version_flags(version: str) -> str:
    major, minor, _ = version.removeprefix("v").split(".")
    values = {"gitMajor": major, "gitMinor": minor, "gitVersion": version, "gitTreeState": "archive"}
    return " ".join(f"-X {VERSION_PACKAGE}.{name}={value}" for name, value in values.items())
