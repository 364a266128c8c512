"""`ports.FileAllocations` on files: the port's promises, and the reference plugin's format byte for byte."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from homeport.model.addresses import IPAddress
from homeport.model.errors import CniError, IOFailure, StoreFull, TryAgainLater
from homeport.ports import FileAllocations
from homeport.stores import disk
from homeport.stores.disk import DiskAllocations

REFERENCE = Path("/usr/lib/cni/host-local")


def ip(text: str) -> IPAddress:
    return ip_address(text)


@pytest.fixture
def store(tmp_path: Path) -> FileAllocations:
    return DiskAllocations(str(tmp_path), "net")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "net"


# --- the port ----------------------------------------------------------------------------------------------------


def test_an_address_is_reserved_once(store: FileAllocations) -> None:
    with store.lock():
        assert store.reserve(ip("10.1.0.2"), "c1", "eth0", 0)
        assert not store.reserve(ip("10.1.0.2"), "c2", "eth0", 0)
        assert not store.reserve(ip("10.1.0.2"), "c1", "eth0", 0)
        assert store.reserve(ip("fd00::2"), "c1", "eth0", 1)
        assert store.of("c1", "eth0") == (ip("10.1.0.2"), ip("fd00::2"))


def test_of_is_of_one_interface(store: FileAllocations) -> None:
    with store.lock():
        store.reserve(ip("10.1.0.2"), "c1", "eth0", 0)
        store.reserve(ip("10.1.0.3"), "c1", "net1", 0)
        store.reserve(ip("10.1.0.4"), "c11", "eth0", 0)
        assert store.of("c1", "net1") == (ip("10.1.0.3"),)
        assert store.of("c1", "eth") == ()
        assert store.of("c2", "eth0") == ()


def test_the_last_reserved_is_remembered_for_each_range_set(store: FileAllocations) -> None:
    with store.lock():
        assert store.last_reserved(0) is None
        store.reserve(ip("10.1.0.2"), "c1", "eth0", 0)
        store.reserve(ip("10.2.0.2"), "c1", "eth0", 1)
        store.reserve(ip("10.1.0.3"), "c2", "eth0", 0)
        store.reserve(ip("10.1.0.2"), "c3", "eth0", 0)  # refused, so not the last
        store.release("c2", "eth0")
        assert store.last_reserved(0) == ip("10.1.0.3")
        assert store.last_reserved(1) == ip("10.2.0.2")
        for address in ("10.1.0.200", "10.1.0.5", "fd00::1", "10.1.0.6"):  # each shorter or longer than the one before
            store.reserve(ip(address), "c4", "eth0", 0)
            assert store.last_reserved(0) == ip(address)


def test_release_is_of_one_interface_and_may_be_repeated(store: FileAllocations) -> None:
    with store.lock():
        for n, owner in enumerate([("c1", "eth0"), ("c1", "net1"), ("c2", "eth0")], start=2):
            store.reserve(ip(f"10.1.0.{n}"), *owner, 0)
        store.reserve(ip("fd00::2"), "c1", "eth0", 1)
        for _ in range(2):
            store.release("c1", "eth0")
            assert store.entries() == ((ip("10.1.0.3"), "c1", "net1"), (ip("10.1.0.4"), "c2", "eth0"))
        assert store.reserve(ip("10.1.0.2"), "c9", "eth0", 0)


def test_nothing_is_there_before_the_first_reservation(store: FileAllocations) -> None:
    with store.lock():
        assert store.of("c1", "eth0") == store.entries() == ()
        store.release("c1", "eth0")


# --- the format --------------------------------------------------------------------------------------------------


def test_the_files_are_the_reference_plugins(store: FileAllocations, directory: Path) -> None:
    with store.lock():
        store.reserve(ip("10.1.0.2"), "c1", "eth0", 0)
        store.reserve(ip("fd00:0:0::2"), "c1", "eth0", 1)
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == {
        "lock": b"",
        "10.1.0.2": b"c1\r\neth0",
        "fd00::2": b"c1\r\neth0",
        "last_reserved_ip.0": b"10.1.0.2",
        "last_reserved_ip.1": b"fd00::2",
    }
    assert (directory / "10.1.0.2").stat().st_mode & 0o777 == 0o644
    assert directory.stat().st_mode & 0o777 == 0o755


def test_files_of_before_there_were_interface_names(store: FileAllocations, directory: Path) -> None:
    directory.mkdir()
    (directory / "10.1.0.2").write_bytes(b"c1")
    (directory / "10.1.0.3").write_bytes(b"c1\r\nnet1")
    with store.lock():
        assert store.of("c1", "eth0") == (ip("10.1.0.2"),)
        assert store.entries() == ((ip("10.1.0.2"), "c1", ""), (ip("10.1.0.3"), "c1", "net1"))
        store.release("c1", "net1")  # has a file of its own, so the nameless one is another's
        assert store.entries() == ((ip("10.1.0.2"), "c1", ""),)
        store.release("c1", "eth0")
        assert store.entries() == ()


def test_other_files_are_not_allocations(store: FileAllocations, directory: Path) -> None:
    directory.mkdir()
    (directory / "README").write_bytes(b"c1\r\neth0")
    (directory / "last_reserved_ip.0").write_bytes(b"not an address")
    with store.lock():
        assert store.entries() == ()
        assert store.last_reserved(0) is None
        store.release("c1", "eth0")
    assert (directory / "README").exists()


def test_side_by_side_with_the_reference_plugin(store: FileAllocations, tmp_path: Path, directory: Path) -> None:
    """Each sees the other's reservations, goes on from the other's last one, and releases the other's."""

    def reference(command: str, container_id: str) -> dict[str, Any]:
        ipam = {"type": "host-local", "dataDir": str(tmp_path), "subnet": "10.1.0.0/24"}
        conf = {"cniVersion": "1.0.0", "name": "net", "type": "x", "ipam": ipam}
        env = {"CNI_COMMAND": command, "CNI_CONTAINERID": container_id, "CNI_NETNS": "/dev/null", "CNI_IFNAME": "eth0"}
        done = subprocess.run(
            [REFERENCE], env={**env, "CNI_PATH": "/"}, input=json.dumps(conf).encode(), capture_output=True, check=True
        )
        found: dict[str, Any] = json.loads(done.stdout or b"{}")
        return found

    assert reference("ADD", "theirs")["ips"][0]["address"] == "10.1.0.2/24"
    with store.lock():
        assert store.last_reserved(0) == ip("10.1.0.2")
        assert store.entries() == ((ip("10.1.0.2"), "theirs", "eth0"),)
        assert not store.reserve(ip("10.1.0.2"), "ours", "eth0", 0)
        assert store.reserve(ip("10.1.0.3"), "ours", "eth0", 0)
    assert reference("ADD", "theirs2")["ips"][0]["address"] == "10.1.0.4/24"
    reference("CHECK", "ours")
    reference("DEL", "ours")
    with store.lock():
        store.release("theirs", "eth0")
        store.release("theirs2", "eth0")
        assert store.entries() == ()


# --- what cannot be read or written is an error, never "nothing" ----------------------------------------------------


def unreadable(directory: Path) -> str:
    (directory / "10.1.0.9").mkdir()
    return "is a directory"


def not_text(directory: Path) -> str:
    (directory / "10.1.0.9").write_bytes(b"\xff\xfe")
    return "found bytes that are no text"


@pytest.mark.parametrize("spoil", [unreadable, not_text])
def test_what_cannot_be_read_is_an_error(spoil: Callable[[Path], str], store: FileAllocations, directory: Path) -> None:
    with store.lock():
        store.reserve(ip("10.1.0.2"), "c1", "eth0", 0)
        store.reserve(ip("10.1.0.200"), "c1", "eth0", 0)
        text = spoil(directory)
        for ask in (lambda: store.of("c1", "eth0"), store.entries, lambda: store.release("c1", "eth0")):
            with pytest.raises(IOFailure, match=rf"read {directory}/10\.1\.0\.9: {text}"):
                ask()
    # what could be read was released all the same
    assert sorted(p.name for p in directory.glob("10.*")) == ["10.1.0.9"]


def test_a_file_in_place_of_the_directory(store: FileAllocations, directory: Path) -> None:
    directory.touch()
    with pytest.raises(IOFailure, match=rf"make directory {directory}: file exists"), store.lock():
        pass


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for a directory and two files."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "nr_inodes=5,size=64k", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.root
def test_a_full_disk_changes_nothing(small_disk: Path) -> None:
    store = DiskAllocations(str(small_disk), "net")
    with store.lock():
        assert store.reserve(ip("10.1.0.2"), "c1", "eth0", 0)
        before = {path.name: path.read_bytes() for path in (small_disk / "net").iterdir()}
        with pytest.raises(StoreFull, match="no space left on device"):
            store.reserve(ip("10.1.0.3"), "c2", "eth0", 1)
        assert store.of("c2", "eth0") == ()
        assert {path.name: path.read_bytes() for path in (small_disk / "net").iterdir()} == before


@pytest.mark.root
def test_a_read_only_disk(small_disk: Path) -> None:
    store = DiskAllocations(str(small_disk), "net")
    with store.lock():
        store.reserve(ip("10.1.0.2"), "c1", "eth0", 0)
    subprocess.run(["mount", "-o", "remount,bind,ro", small_disk], check=True)
    with store.lock():
        assert store.of("c1", "eth0") == (ip("10.1.0.2"),)
        for act in (
            lambda: store.reserve(ip("10.1.0.3"), "c2", "eth0", 0),
            lambda: store.release("c1", "eth0"),
        ):
            with pytest.raises(IOFailure, match="read-only file system"):
                act()


# --- many at once, and crashes -------------------------------------------------------------------------------------


def test_the_lock_is_the_reference_plugins(
    store: FileAllocations, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "_LOCK_SECONDS", 0.05)
    directory.mkdir()
    holding = ["flock", str(directory / "lock"), "sh", "-c", "echo held; read _"]
    with subprocess.Popen(holding, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(TryAgainLater, match="still held by another process"), store.lock():
            pass
        other.stdin.close()
        other.wait()
    with store.lock():
        pass


TAKE_TEN = """
import sys
from ipaddress import ip_address
from homeport.stores.disk import DiskAllocations
store = DiskAllocations(sys.argv[1], "net")
for n in range(10):
    with store.lock():
        last = store.last_reserved(0) or ip_address("10.1.0.1")
        while not store.reserve(last := last + 1, sys.argv[2], f"eth{n}", 0):
            pass
"""


def test_processes_and_threads_at_once_share_no_address(tmp_path: Path, store: FileAllocations) -> None:
    processes = [subprocess.Popen([sys.executable, "-c", TAKE_TEN, str(tmp_path), f"p{n}"]) for n in range(3)]
    taking = compile(TAKE_TEN.replace("sys.argv[1]", "DATA_DIR").replace("sys.argv[2]", "OWNER"), "take ten", "exec")
    threads = [
        threading.Thread(target=exec, args=(taking, {"DATA_DIR": str(tmp_path), "OWNER": f"t{n}"})) for n in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    with store.lock():
        entries = store.entries()
    assert len(entries) == 60
    assert len({(container_id, ifname) for _, container_id, ifname in entries}) == 60


RESERVE_FOREVER = """
import itertools, sys
from ipaddress import ip_address
from homeport.stores.disk import DiskAllocations
store = DiskAllocations(sys.argv[1], "net")
for n in itertools.count(int(sys.argv[2])):
    with store.lock():
        store.reserve(ip_address(0x0a000000 + n), f"c{n}", "eth0", 0)
    if n % 50 == 0:
        print("on", flush=True)
"""


def test_a_writer_killed_at_any_time_leaves_whole_reservations(
    tmp_path: Path, store: FileAllocations, directory: Path
) -> None:
    for round_number in range(5):
        argv = [sys.executable, "-c", RESERVE_FOREVER, str(tmp_path), str(round_number * 100_000 + 1)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            os.kill(writer.pid, signal.SIGKILL)
    with store.lock():
        entries = store.entries()
        assert len(entries) >= 5
        assert all(container_id == f"c{int(address) - 0x0A000000}" for address, container_id, _ in entries)
        assert all(ifname == "eth0" for *_, ifname in entries)
        assert not [path for path in directory.iterdir() if path.name.startswith(".")]
        last = store.last_reserved(0)
    assert last is not None


def test_a_reservation_that_was_never_finished_is_none(store: FileAllocations, directory: Path) -> None:
    directory.mkdir()
    (directory / ".unfinished").write_bytes(b"c1\r\neth0")
    with store.lock():
        assert store.entries() == store.of("c1", "eth0") == ()
        assert store.reserve(ip("10.1.0.2"), "c2", "eth0", 0)
    assert not (directory / ".unfinished").exists()


def test_an_empty_file_names_nobody_and_keeps_its_address(store: FileAllocations, directory: Path) -> None:
    """The reference plugin leaves one when it dies between making the file and writing it."""
    directory.mkdir()
    (directory / "10.1.0.2").touch()
    with store.lock():
        assert store.entries() == ((ip("10.1.0.2"), "", ""),)
        assert store.of("c1", "eth0") == ()
        store.release("c1", "eth0")
        assert not store.reserve(ip("10.1.0.2"), "c1", "eth0", 0)


def test_every_failure_is_an_expected_one(store: FileAllocations, directory: Path) -> None:
    directory.mkdir()
    (directory / "lock").mkdir()
    with pytest.raises(CniError), store.lock():
        pass
