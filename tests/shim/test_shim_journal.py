"""A DEL that no daemon answers is kept in the journal; where that cannot be, the runtime is told to try again."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.shim.builds import TRACED, WITHOUT_VALGRIND, Shim
from tests.shim.peers import Peer, answer, decode, hang_up, silent_until

START = Callable[..., Peer]
CONF = b'{"cniVersion": "1.1.0", "name": "lan", "type": "homeport"}'


@pytest.fixture(autouse=True)
def journal(shim: Shim) -> Path:
    shim.journal.mkdir(mode=0o700)
    return shim.journal


def missing(shim: Shim) -> str:
    return f'connect to homeportd at "{shim.socket}": found nobody for 0 s: No such file or directory'


def test_a_del_without_a_daemon_is_kept_as_the_request_itself(shim: Shim) -> None:
    done = shim.run("DEL", CONF, name="multus", CNI_ARGS="K8S_POD_NAME=web-0")
    assert (done.code, done.stdout) == (0, b"")
    assert done.stderr == f'{missing(shim)}; kept the DEL in "{shim.journal}"\n'
    (entry,) = shim.kept()
    assert re.fullmatch(r"c0ffee-eth0-[0-9a-f]{16}\.del", entry.name)
    assert entry.stat().st_mode & 0o7777 == 0o600
    request = decode(entry.read_bytes())
    assert request.stdin == CONF
    assert request.env[b"CNI_COMMAND"] == b"DEL"
    assert request.env[b"CNI_ARGS"] == b"K8S_POD_NAME=web-0"
    assert request.env[b"HOMEPORT_PLUGIN"] == b"multus"


def test_what_is_kept_is_what_would_have_been_sent(shim: Shim, peer: START) -> None:
    server = peer(answer())
    shim.run("DEL", CONF)
    server.close()
    shim.socket.unlink()
    shim.run("DEL", CONF)
    assert [entry.read_bytes() for entry in shim.kept()] == [request.frame for request in server.requests]


def test_every_del_has_an_entry_of_its_own(shim: Shim) -> None:
    for _ in range(3):
        shim.run("DEL", CONF)
    assert len(shim.kept()) == 3


def test_a_del_that_the_daemon_answers_is_not_kept(shim: Shim, peer: START) -> None:
    peer(answer(b'{"code": 5}', 1))
    done = shim.run("DEL", CONF)
    assert (done.code, done.stdout) == (1, b'{"code": 5}')
    assert shim.kept() == []


@pytest.mark.parametrize("pieces", [b"", b"HPR", b"garbage garbage", answer(b"0123456789")[:-1]])
def test_a_del_whose_answer_is_none_is_kept(shim: Shim, peer: START, pieces: bytes) -> None:
    peer(pieces)
    assert shim.run("DEL", CONF).code == 0
    assert len(shim.kept()) == 1


def test_a_del_that_is_refused_a_connection_is_kept(shim: Shim, peer: START) -> None:
    peer().close()
    assert shim.run("DEL", CONF).code == 0
    assert len(shim.kept()) == 1


def test_a_del_that_nobody_reads_is_kept(shim: Shim, peer: START) -> None:
    peer().then(hang_up)
    assert shim.run("DEL", b"x" * 4 * 1024 * 1024).code == 0
    assert len(shim.kept()) == 1


def test_a_del_without_an_answer_until_the_deadline_is_kept(shim: Shim, peer: START) -> None:
    over = threading.Event()
    peer().then(silent_until(over))
    done = shim.run("DEL", CONF, HOMEPORT_TIMEOUT_SECONDS=shim.soon)
    over.set()
    assert done.code == 0
    assert len(shim.kept()) == 1


@WITHOUT_VALGRIND
@pytest.mark.parametrize("command", ["ADD", "CHECK", "STATUS", "GC", "del", "DELETE"])
def test_nothing_else_is_kept(shim: Shim, command: str) -> None:
    assert shim.run(command, CONF).error["code"] == 11
    assert shim.kept() == []


def test_without_a_journal_a_del_is_to_be_tried_again(shim: Shim) -> None:
    shim.journal.rmdir()
    assert shim.run("DEL", CONF).error == {
        "cniVersion": "1.1.0",
        "code": 11,
        "msg": missing(shim),
        "details": f'keep the DEL in "{shim.journal}": open: No such file or directory',
    }
    assert not shim.journal.exists()


def test_a_journal_that_is_a_file(shim: Shim) -> None:
    shim.journal.rmdir()
    shim.journal.write_text("mine")
    assert shim.run("DEL", CONF).error["details"] == f'keep the DEL in "{shim.journal}": open: Not a directory'
    assert shim.journal.read_text() == "mine"


@pytest.fixture
def small_disk(shim: Shim) -> Iterator[Path]:
    """The journal is a disk of two pages."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k,mode=700", "tmpfs", shim.journal], check=True)
    yield shim.journal
    subprocess.run(["umount", "--lazy", shim.journal], check=True)


@pytest.mark.root
def test_a_full_journal(shim: Shim, small_disk: Path) -> None:
    assert shim.run("DEL", CONF).code == 0
    (small_disk / "ballast").write_bytes(b"x" * 4096)
    before = shim.kept()
    for stdin in (CONF, b"x" * 100_000):
        error = shim.run("DEL", stdin).error
        assert (error["code"], error["msg"]) == (11, missing(shim))
        assert error["details"] == f'keep the DEL in "{shim.journal}": write: No space left on device'
        assert shim.kept() == before
    (small_disk / "ballast").unlink()
    assert shim.run("DEL", CONF).code == 0


@pytest.mark.root
def test_a_read_only_journal(shim: Shim, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    error = shim.run("DEL", CONF).error
    assert error["details"] == f'keep the DEL in "{shim.journal}": create a file: Read-only file system'
    assert shim.kept() == []


@WITHOUT_VALGRIND
@pytest.mark.parametrize(
    "container_id",
    ["../x", "..", ".", "/etc/passwd", "a/../../b", "-rf", "_x", "a b", "a\nb", "\N{SNOWMAN}", "a" * 219, "a" * 4096],
)
def test_a_hostile_container_id_never_names_a_file(shim: Shim, peer: START, container_id: str) -> None:
    done = shim.run("DEL", CONF, CNI_CONTAINERID=container_id)
    shown = container_id if len(container_id) <= 256 else "a" * 256 + "..."
    assert done.error == {
        "cniVersion": "1.1.0",
        "code": 4,
        "msg": f'CNI_CONTAINERID: found "{shown}", '
        'expected a letter or digit, then letters, digits, "_", "." or "-", at most 218',
        "details": missing(shim),
    }
    assert shim.kept() == []
    assert sorted(p.name for p in shim.folder.iterdir() if "valgrind" not in p.name) == ["bin", "journal"]

    server = peer(answer(b"the daemon's word", 1))  # it knows better what is wrong
    assert shim.run("DEL", CONF, CNI_CONTAINERID=container_id).stdout == b"the daemon's word"
    assert server.requests[0].env[b"CNI_CONTAINERID"] == container_id.encode()


@WITHOUT_VALGRIND
@pytest.mark.parametrize("ifname", ["..", ".", "../x", "a/b", "a:b", "a b", "a" * 16, "eth\N{SNOWMAN}", "\x7f"])
def test_a_hostile_ifname_never_names_a_file(shim: Shim, ifname: str) -> None:
    done = shim.run("DEL", CONF, CNI_IFNAME=ifname)
    assert done.error["code"] == 4
    assert done.error["msg"].startswith(f'CNI_IFNAME: found "{ifname}", expected 1 to 15 ASCII characters')
    assert shim.kept() == []


@pytest.mark.parametrize("name", ["CNI_CONTAINERID", "CNI_IFNAME"])
def test_a_del_that_names_no_attachment(shim: Shim, name: str) -> None:
    assert shim.run("DEL", CONF, **{name: ""}).error["msg"].startswith(f'{name}: found "", expected')
    assert shim.kept() == []


def test_the_longest_names_are_kept(shim: Shim) -> None:
    assert shim.run("DEL", CONF, CNI_CONTAINERID="a" * 218, CNI_IFNAME="-" * 15).code == 0
    assert [len(entry.name) for entry in shim.kept()] == [255]


def test_a_signal_while_the_daemon_is_waited_for_leaves_nothing(shim: Shim, peer: START) -> None:
    """The runtime that sends it will send the DEL again."""
    tried = threading.Event()

    def note_and_hang_up(_connection: socket.socket) -> None:
        tried.set()

    peer().then(note_and_hang_up)
    env = shim.environment("DEL", HOMEPORT_CONNECT_SECONDS="25")
    with subprocess.Popen(shim.argv(), env=env, stdin=subprocess.DEVNULL) as run:
        assert tried.wait(30)
        run.terminate()
        assert run.wait(10) == -signal.SIGTERM
    assert shim.kept() == []


def traced(shim: Shim, *inject: str) -> list[str]:
    """The shim with the kernel's answers changed, as strace(1) words it."""
    return ["strace", "-f", "-o", str(shim.folder / "trace"), *(f"--inject={i}" for i in inject), *shim.argv()]


@TRACED
@pytest.mark.parametrize(
    ("inject", "step"),
    [
        ("openat:error=ENOSPC:when={openat}", "create a file: No space left on device"),
        ("write:error=ENOSPC:when=1", "write: No space left on device"),
        ("fsync:error=EROFS:when=1", "fsync: Read-only file system"),
        ("/^rename:error=EACCES", "rename: Permission denied"),
        ("fsync:error=EROFS:when=2", "fsync the directory: Read-only file system"),
    ],
    ids=["create", "write", "fsync", "rename", "fsync of the directory"],
)
def test_a_step_that_fails_is_named_and_leaves_no_temporary_file(shim: Shim, inject: str, step: str) -> None:
    if "{openat}" in inject:  # the only one of that name
        counted = shim.execute(traced(shim, "openat:delay_exit=1"), shim.environment("DEL"), CONF)
        assert counted.code == 0
        opened = [line for line in (shim.folder / "trace").read_text().splitlines() if " openat(" in line]
        inject = inject.format(openat=1 + next(i for i, line in enumerate(opened) if '".tmp-' in line))
        shim.kept()[0].unlink()
    error = shim.execute(traced(shim, inject), shim.environment("DEL"), CONF).error
    assert (error["code"], error["msg"]) == (11, missing(shim))
    assert error["details"] == f'keep the DEL in "{shim.journal}": {step}'
    # After the rename the entry is whole; that it may not outlast a power cut is why the runtime is to try again.
    assert [p.suffix for p in shim.kept()] == ([".del"] if "directory" in step else [])


@TRACED
def test_interrupted_calls_are_made_again(shim: Shim, peer: START) -> None:
    server = peer(answer(b"{}"))
    storm = "poll,connect,sendto,recvfrom,write,nanosleep,clock_nanosleep:error=EINTR:when=2+3"
    storm = f"read,{storm}" if shim.form == "native" else storm  # an interpreter is loaded with reads of others
    stdin = b"x" * 1_000_000
    done = shim.execute(traced(shim, storm), shim.environment("DEL", HOMEPORT_CONNECT_SECONDS="25"), stdin)
    assert (done.code, done.stdout) == (0, b"{}")
    assert server.requests[-1].stdin == stdin
    server.close()
    storm = storm.replace("connect,", "")
    assert shim.execute(traced(shim, storm), shim.environment("DEL"), stdin).code == 0
    assert [decode(entry.read_bytes()).stdin for entry in shim.kept()] == [stdin]


@TRACED
def test_a_signal_while_the_entry_is_written_waits_until_it_is_whole(
    shim: Shim, wait_until: Callable[..., None]
) -> None:
    pid = shim.folder / "pid"
    slow = traced(shim, "fsync:delay_enter=500000:when=1")
    argv = [*slow[:-1], "sh", "-c", 'echo $$ >"$0"; exec "$@"', str(pid), slow[-1]]
    with subprocess.Popen(argv, env=shim.environment("DEL"), stdin=subprocess.DEVNULL) as run:
        wait_until(lambda: any(p.name.startswith(".tmp-") and p.stat().st_size for p in shim.kept()), 30)
        os.kill(int(pid.read_text()), signal.SIGTERM)
        assert run.wait(10) == -signal.SIGTERM
    (entry,) = shim.kept()
    assert entry.suffix == ".del"
    assert decode(entry.read_bytes()).env[b"CNI_COMMAND"] == b"DEL"
