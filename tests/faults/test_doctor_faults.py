"""Doctor among ruins: whatever stands where a file should be, it says so and goes on."""

from __future__ import annotations

import os
import random
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from homeport.cli.doctor_site import TOOLS
from homeport.doctor import gathering_daemon
from homeport.doctor.facts import Answering, Site
from homeport.doctor.findings import Report
from homeport.doctor.node import examine

SEED = 20260102


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """All of it below one directory, and nothing of it there; no API server."""
    return Site(
        node="n1",
        version="1.0",
        config_file=str(tmp_path / "homeportd.json"),
        socket=str(tmp_path / "s/homeport.sock"),
        state_dir=str(tmp_path / "state"),
        cni_dir=str(tmp_path / "cni"),
        bin_dir=str(tmp_path / "bin"),
        runtime_dir=str(tmp_path / "net.d"),
        generated=str(tmp_path / "net.d/00-multus.conf"),
        shim="homeport",
        shim_types=frozenset({"homeport"}),
        built_in=frozenset(),
    )


def told(report: Report) -> tuple[set[str], set[str]]:
    """(ids, places that could not be looked at)"""
    return {d.id for d in report.diagnoses}, {one.place for one in report.unlooked}


def test_nothing_is_there(site: Site) -> None:
    ids, unlooked = told(examine(site, TOOLS, environ={}))
    assert ids == {"daemon-missing", "journal-missing", "runtime-dir-missing", "shim-missing"}
    assert unlooked == set()


def test_files_where_directories_should_be(site: Site) -> None:
    for path in (site.state_dir, site.cni_dir, site.bin_dir, site.runtime_dir, os.path.dirname(site.socket)):
        Path(path).write_bytes(b"")
    ids, unlooked = told(examine(site, TOOLS, environ={}))
    assert "daemon-missing" in ids
    assert {"the runtime's networks", "the plugins' programs", "the journal"} <= unlooked


def test_directories_where_files_should_be(site: Site) -> None:
    for path in (site.config_file, site.socket, site.claims, site.generated, f"{site.bin_dir}/homeport"):
        Path(path).mkdir(parents=True)
    (Path(site.journal) / "c-eth0-1.del").mkdir(parents=True)
    ids, unlooked = told(examine(site, TOOLS, environ={}))
    assert "journal-unreadable" in ids
    assert "claims of this node" in unlooked
    assert "the runtime's networks" in unlooked


def test_links_that_lead_nowhere_and_to_themselves(site: Site) -> None:
    for path in (site.config_file, site.claims, site.generated, f"{site.journal}/x.del", f"{site.bin_dir}/homeport"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).symlink_to(path)
    ids, unlooked = told(examine(site, TOOLS, environ={}))
    assert {"daemon-missing", "journal-unreadable"} <= ids
    assert {"the plugins' programs", "the runtime's networks"} <= unlooked


def test_any_bytes_in_any_file(site: Site) -> None:
    chance = random.Random(SEED)
    for _ in range(20):
        for path in (
            f"{site.cni_dir}/results/lan-c-net1",
            site.claims,
            site.generated,
            f"{site.runtime_dir}/10-x.conflist",
            f"{site.journal}/c-eth0-1.del",
            f"{site.bin_dir}/homeport",
        ):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_bytes(chance.choice((b"", b"{", b"[]", b"\x7fELF", b"SQLite format 3\0", b"HPR1")))
            with open(path, "ab") as file:
                file.write(chance.randbytes(chance.randrange(300)))
        ids, _ = told(examine(site, TOOLS, environ={}))
        assert {"entry-unreadable", "runtime-config-missing", "journal-unreadable"} <= ids


# --- who may listen on the socket ------------------------------------------------------------------------------------


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[Callable[[bytes], str]]:
    """`listening(answer)` is the path of a socket whose first caller gets these bytes, and then the end."""
    opened: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def listen(answer: bytes) -> str:
        listener = socket.socket(socket.AF_UNIX)
        opened.append(listener)
        path = str(tmp_path / f"{len(opened)}.sock")
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            caller, _ = listener.accept()
            with caller:
                caller.recv(4096)
                caller.sendall(answer)

        threads.append(threading.Thread(target=serve))
        threads[-1].start()
        return path

    yield listen
    for thread in threads:
        thread.join(10)
    for listener in opened:
        listener.close()


@pytest.mark.parametrize(
    "answer", [b"", b"\0" * 100, b"HTTP/1.1 ", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"]
)
def test_a_stranger_on_the_socket_is_no_daemon(listening: Callable[[bytes], str], answer: bytes) -> None:
    assert gathering_daemon.gather(listening(answer)).answering is Answering.SILENT


def test_a_daemon_of_a_version_that_says_none(listening: Callable[[bytes], str]) -> None:
    found = gathering_daemon.gather(listening(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
    assert (found.answering, found.version, found.is_here) == (Answering.READY, "", True)


def test_a_daemon_that_is_stopping_says_why(listening: Callable[[bytes], str]) -> None:
    body = b"the daemon is stopping\n"
    answer = b"HTTP/1.1 500 Internal Server Error\r\nServer: homeportd/1.0\r\nContent-Length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )
    found = gathering_daemon.gather(listening(answer))
    assert (found.answering, found.problem, found.version) == (
        Answering.UNREADY,
        "the daemon is stopping",
        "1.0",
    )


def test_a_socket_that_nobody_listens_on(tmp_path: Path) -> None:
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / "left.sock"))
    left.close()
    assert gathering_daemon.gather(str(tmp_path / "left.sock")).answering is Answering.REFUSED
