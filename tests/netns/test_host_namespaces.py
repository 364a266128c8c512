"""Namespaces: telling them apart from everything else, making, unpinning, and never wandering into one."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from homeport.host.kernel import Kernel
from homeport.model.errors import CniError, InvalidNetns, KernelRefused

if TYPE_CHECKING:
    from tests.netns.conftest import IpJson, MakeNetns, Node

pytestmark = pytest.mark.root


@pytest.fixture
def unused() -> Iterator[str]:
    """A path below /run/netns where nothing is, and nothing stays."""
    name = f"hp-made-{secrets.token_hex(4)}"
    yield f"/run/netns/{name}"
    if os.path.exists(f"/run/netns/{name}"):
        subprocess.run(["ip", "netns", "delete", name], check=True)


@pytest.fixture(params=["helper", "direct"])
def kernel(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    kernel = Kernel(short_lived=request.param == "direct")
    yield kernel
    kernel.close()


def own_links() -> str:
    return subprocess.run(["ip", "link"], capture_output=True, check=True, text=True).stdout


def test_exists(host: Kernel, netns: MakeNetns, tmp_path: Path) -> None:
    assert host.namespace_exists(netns())
    assert host.namespace_exists(f"/proc/{os.getpid()}/ns/net")
    assert not host.namespace_exists("/run/netns/hp-nowhere")
    assert not host.namespace_exists(f"{netns()}/below-a-file")
    assert not host.namespace_exists("/proc/4194305/ns/net")
    (tmp_path / "plain").touch()
    os.mkfifo(tmp_path / "fifo")
    for other in (tmp_path / "plain", tmp_path / "fifo", tmp_path, "/dev/null", "/proc/self/ns/mnt"):
        with pytest.raises(InvalidNetns, match=str(other)):
            host.namespace_exists(str(other))


def test_own_namespace(host: Kernel, node: Node, netns: MakeNetns) -> None:
    assert host.is_own_namespace("/proc/self/ns/net")
    assert not host.is_own_namespace(node.netns)
    assert not host.is_own_namespace("/run/netns/hp-nowhere")
    assert node.host.is_own_namespace(node.netns)
    assert not node.host.is_own_namespace("/proc/self/ns/net")
    assert not node.host.is_own_namespace(netns())


def test_create_and_delete(kernel: Kernel, unused: str) -> None:
    before = own_links()
    kernel.create_namespace(unused)
    assert (
        os.path.basename(unused) in subprocess.run(["ip", "netns"], capture_output=True, check=True, text=True).stdout
    )
    assert kernel.namespace_exists(unused)
    assert [link.name for link in kernel.links(unused)] == ["lo"]
    with pytest.raises(KernelRefused, match=r"create network namespace .*: file exists"):
        kernel.create_namespace(unused)
    assert kernel.namespace_exists(unused)
    kernel.delete_namespace(unused)
    assert not os.path.exists(unused)
    kernel.delete_namespace(unused)
    assert own_links() == before


def test_operation_undoes_a_namespace(kernel: Kernel, unused: str) -> None:
    def run() -> None:
        with kernel.operation():
            kernel.create_namespace(unused)
            assert [link.name for link in kernel.links(unused)] == ["lo"]
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run()
    assert not os.path.exists(unused)


def test_delete_takes_nothing_that_is_no_namespace(host: Kernel, tmp_path: Path, netns: MakeNetns) -> None:
    file, link, leftover = tmp_path / "file", tmp_path / "link", tmp_path / "leftover"
    file.write_text("precious")
    link.symlink_to(netns())
    leftover.touch()
    for other in (file, link, tmp_path):
        with pytest.raises(InvalidNetns, match="found something else"):
            host.delete_namespace(str(other))
    assert file.read_text() == "precious"
    assert tmp_path.is_dir()
    host.delete_namespace(str(leftover))
    assert not leftover.exists()


def test_deleted_namespace_dies_at_once(
    kernel: Kernel, node: Node, unused: str, wait_until: Callable[..., None]
) -> None:
    """Nothing of ours keeps it alive, the helper included: the veth end inside goes, and its peer with it."""
    kernel.create_namespace(unused)
    kernel.create_veth("eth0", netns=unused, peer="veth1", peer_netns=node.netns)
    with kernel.operation():
        kernel.links(unused)
        assert kernel.read_sysctl("net/ipv4/conf/eth0/arp_notify", unused) == "0"
        kernel.delete_namespace(unused)
    wait_until(lambda: kernel.link("veth1", node.netns) is None)


def test_sockets_end_with_the_operation(kernel: Kernel, netns: MakeNetns) -> None:
    def count() -> int:
        entries = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
        return sum(os.readlink(entry).startswith("socket:") for entry in entries if os.path.lexists(entry))

    pods = [netns() for _ in range(3)]
    kernel.links(pods[0])
    before = count()
    with kernel.operation():
        for pod in pods * 2:
            kernel.links(pod)
        assert count() == before + len(pods)
    assert count() == before


def test_vanished_in_the_middle(kernel: Kernel, node: Node, netns: MakeNetns) -> None:
    """What is left to do is refused, and the undoing has nothing to complain about."""
    pod = netns()

    def run() -> None:
        with kernel.operation():
            kernel.create_veth("eth0", netns=pod, peer="veth1", peer_netns=node.netns)
            kernel.set_link("eth0", pod, up=True)
            subprocess.run(["ip", "netns", "delete", os.path.basename(pod)], check=True)
            kernel.create_macvlan("net1", netns=pod, parent="eth1", parent_netns=node.netns)

    with pytest.raises(InvalidNetns, match="not there") as failed:
        run()
    assert not hasattr(failed.value, "__notes__")
    assert kernel.link("veth1", node.netns) is None


def test_sixteen_threads_each_in_its_own_place(host: Kernel, netns: MakeNetns, ip_json: IpJson) -> None:
    pods = [netns("t") for _ in range(16)]
    errors: list[BaseException] = []
    start = threading.Barrier(len(pods))
    own = own_links()

    def work(number: int, pod: str) -> None:
        try:
            start.wait(10)
            for round_ in range(4):
                with host.operation():
                    host.create_veth(f"v{number}", netns=pod, peer=f"p{number}", peer_netns=pod)
                    assert {link.name for link in host.links(pod)} == {"lo", f"v{number}", f"p{number}"}
                    host.write_sysctl(f"net/ipv4/conf/v{number}/arp_notify", "1", pod)
                assert host.read_sysctl(f"net/ipv4/conf/v{number}/arp_notify", pod) == "1"
                if round_ < 3:
                    host.delete_links([f"v{number}"], pod)
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=work, args=entry) for entry in enumerate(pods)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    for number, pod in enumerate(pods):
        assert {link["ifname"] for link in ip_json(pod, "link")} == {"lo", f"v{number}", f"p{number}"}
    assert own_links() == own


def helper_of(process: int) -> list[int]:
    """PIDs of the namespace helpers that `process` has."""
    return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _is_helper_of(process, pid)]


def _is_helper_of(process: int, pid: int) -> bool:
    # Not by /proc/PID/task/TID/children, which may leave some out while others come and go (proc(5)).
    try:
        parent = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
        return parent == process and b"entering.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_helper_that_died_is_started_again(host: Kernel, netns: MakeNetns) -> None:
    pod = netns()
    host.links(pod)
    (helper,) = helper_of(os.getpid())
    os.kill(helper, signal.SIGKILL)
    assert [link.name for link in host.links(pod)] == ["lo"]
    (other,) = helper_of(os.getpid())
    assert other != helper


def test_helper_ends_with_close_and_comes_back(netns: MakeNetns) -> None:
    kernel = Kernel()
    kernel.links(netns())
    kernel.close()
    assert helper_of(os.getpid()) == []
    kernel.links(netns())
    kernel.close()


HOLDER = """
import os, sys
from homeport.host.kernel import Kernel
kernel = Kernel()  # kept, for its helper ends with it
kernel.links(sys.argv[1])
if os.fork() == 0:  # a child that has a copy of everything
    import time
    time.sleep(30)
    os._exit(0)
print("ready", flush=True)
sys.stdin.read()
"""


def test_helper_dies_with_a_killed_parent(netns: MakeNetns, wait_until: Callable[..., None]) -> None:
    """Also where a forked child still holds the parent's end of the channel."""
    argv = [sys.executable, "-c", HOLDER, netns()]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        (helper,) = helper_of(parent.pid)
        parent.kill()
        wait_until(lambda: not _runs(helper))
        os.killpg(parent.pid, signal.SIGKILL)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_direct_entrance_comes_back_after_every_error(netns: MakeNetns) -> None:
    kernel, before = Kernel(short_lived=True), os.stat("/proc/self/ns/net").st_ino
    pod = netns()
    for attempt in (
        lambda: kernel.links("/run/netns/hp-nowhere"),
        lambda: kernel.links(__file__),
        lambda: kernel.write_sysctl("net/ipv4/ip_forward", "what", pod),
        lambda: kernel.create_namespace(pod),
        lambda: kernel.create_namespace("/proc/nowhere"),
    ):
        with pytest.raises(CniError):
            attempt()
        assert os.stat("/proc/self/ns/net").st_ino == before


def test_lock_keeps_others_out(host: Kernel, netns: MakeNetns) -> None:
    pod = netns()
    held, seen = threading.Event(), list[str]()

    def other() -> None:
        held.wait(10)
        with host.lock_namespace(pod):
            seen.append("other")

    thread = threading.Thread(target=other)
    thread.start()
    with host.lock_namespace(pod):
        held.set()
        contended = subprocess.run(["flock", "--nonblock", pod, "true"], check=False)
        assert contended.returncode == 1
        seen.append("first")
    thread.join()
    assert seen == ["first", "other"]
    with pytest.raises(InvalidNetns), host.lock_namespace(__file__):
        pass
