"""Foreign plugins under another root directory, while other threads keep theirs."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from homeport.model.errors import InvalidNetConf, IOFailure, PluginFailed
from homeport.runtime.executing import Executor

pytestmark = pytest.mark.root
STATIC = """
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int main(void) {
  char cwd[512] = "", line[64] = "";
  FILE *mark = fopen("/etc/mark", "r");
  if (mark && fgets(line, sizeof line, mark)) fclose(mark);
  printf("%s %s", line, getcwd(cwd, sizeof cwd) ? cwd : "?");
  if (getenv("CNI_IFNAME") && if_nametoindex(getenv("CNI_IFNAME"))) printf(" has it");
  return 0;
}
"""


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A static program that prints /etc/mark, its working directory and whether it sees the interface CNI_IFNAME."""
    built = tmp_path_factory.mktemp("static") / "where"
    subprocess.run(["gcc", "-static", "-x", "c", "-o", str(built), "-"], input=STATIC.encode(), check=True)
    return built


@pytest.fixture
def root(tmp_path: Path, plugin: Path) -> Iterator[Path]:
    node = tmp_path / "node"
    (node / "opt/cni/bin").mkdir(parents=True)
    (node / "etc").mkdir()
    (node / "etc/mark").write_text("node")
    shutil.copy(plugin, node / "opt/cni/bin/where")
    yield node
    assert os.path.samefile("/proc/self/root", "/")
    assert os.getcwd()


def test_found_and_run_inside(root: Path) -> None:
    executor = Executor(root=str(root))
    found = executor.find("where", ["/none", "/opt/cni/bin"])
    assert found == "/opt/cni/bin/where"
    assert not Path(found).exists(), "in our own view there is no such file"
    assert executor.run(found, env={}, stdin=b"{}", timeout_seconds=10).stdout == b"node /"


def test_links_inside_lead_inside(root: Path) -> None:
    (root / "opt/cni/bin/alias").symlink_to("/opt/cni/bin/where")
    executor = Executor(root=str(root))
    assert executor.find("alias", ["/opt/cni/bin"]) == "/opt/cni/bin/alias"
    assert executor.run("/opt/cni/bin/alias", env={}, stdin=b"", timeout_seconds=10).stdout == b"node /"


def test_nothing_of_our_own_view_is_found(root: Path, plugin: Path) -> None:
    assert Executor(root=str(root)).find("where", [str(plugin.parent)]) is None
    with pytest.raises(InvalidNetConf):
        Executor(root=str(root)).find("../where", ["/opt/cni/bin"])
    with pytest.raises(PluginFailed, match="No such file"):
        Executor(root=str(root)).run(str(plugin), env={}, stdin=b"", timeout_seconds=10)


def test_other_threads_keep_their_root(root: Path, plugin: Path) -> None:
    """Plugins are started with and without a root at once; each sees its own."""
    wrong: list[bytes] = []
    home = os.getcwd()

    def start(executor: Executor, executable: str, expected: bytes) -> None:
        for _ in range(15):
            said = executor.run(executable, env={}, stdin=b"", timeout_seconds=20).stdout
            if said != expected:
                wrong.append(said)

    ours = b" " + home.encode()  # there is no /etc/mark here
    assert not Path("/etc/mark").exists()
    rooted, plain = Executor(root=str(root)), Executor()
    threads = [
        *(threading.Thread(target=start, args=(rooted, "/opt/cni/bin/where", b"node /")) for _ in range(3)),
        *(threading.Thread(target=start, args=(plain, str(plugin), ours)) for _ in range(3)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert os.getcwd() == home


def test_in_a_network_namespace_too(root: Path) -> None:
    """The namespace's path is one of our own view; what is in the chroot does not matter for it."""
    name = f"hp-root-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-n", name, "link", "add", "hp-mark", "type", "bridge"], check=True)
        executor, env, path = Executor(root=str(root)), {"CNI_IFNAME": "hp-mark"}, f"/run/netns/{name}"
        there = executor.run("/opt/cni/bin/where", env=env, stdin=b"", timeout_seconds=10, netns=path)
        assert there.stdout == b"node / has it"
        here = executor.run("/opt/cni/bin/where", env=env, stdin=b"", timeout_seconds=10)
        assert here.stdout == b"node /"
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


def test_a_root_that_is_none(tmp_path: Path) -> None:
    executor = Executor(root=str(tmp_path / "none"))
    with pytest.raises(IOFailure, match=r"change root to .*/none: No such file or directory"):
        executor.find("where", ["/opt/cni/bin"])
    with pytest.raises(IOFailure, match="change root"):
        executor.run("/opt/cni/bin/where", env={}, stdin=b"", timeout_seconds=10)


def test_an_environment_that_no_process_can_have(root: Path, plugin: Path) -> None:
    for executor, executable in ((Executor(), str(plugin)), (Executor(root=str(root)), "/opt/cni/bin/where")):
        with pytest.raises(PluginFailed, match="embedded null byte"):
            executor.run(executable, env={"CNI_ARGS": "a\0b"}, stdin=b"", timeout_seconds=10)


def test_no_root_is_no_chroot(plugin: Path) -> None:
    for executor in (Executor(), Executor(root=None), Executor(root="")):
        assert executor.find("where", [str(plugin.parent)]) == str(plugin)
