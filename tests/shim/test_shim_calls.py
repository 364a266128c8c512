"""A call through the shim: what reaches the daemon, what comes back, and what is said when that goes wrong."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.shim.builds import Shim
from tests.shim.peers import Peer, answer, hang_up, read_request, silent_until

START = Callable[..., Peer]
STDIN_MAX = STDOUT_MAX = 4 * 1024 * 1024
ENV_MAX = 256 * 1024
CONF = b'{"cniVersion": "1.0.0", "name": "lan", "type": "homeport"}'


def test_the_answer_is_printed_byte_for_byte(shim: Shim, peer: START) -> None:
    stdout = b'{\n    "cniVersion": "1.0.0"\n}\xff\x00 and more'
    server = peer(answer(stdout))
    done = shim.run("ADD", CONF)
    assert (done.code, done.stdout, done.stderr) == (0, stdout, "")
    assert [r.stdin for r in server.requests] == [CONF]


@pytest.mark.parametrize("code", [0, 1, 2, 255])
def test_the_exit_code_is_the_daemons(shim: Shim, peer: START, code: int) -> None:
    peer(answer(b"{}", code))
    assert shim.run("CHECK", CONF).code == code


def test_only_cni_variables_are_sent_and_the_name_it_was_started_by(shim: Shim, peer: START) -> None:
    server = peer(answer())
    shim.run("ADD", CONF, name="whereabouts", CNI_ARGS="K8S_POD_NAME=web-0;X==", SECRET="no", CNI="no", CNI_="odd")
    (request,) = server.requests
    assert request.env == {
        b"CNI_COMMAND": b"ADD",
        b"CNI_CONTAINERID": b"c0ffee",
        b"CNI_NETNS": b"/run/netns/box",
        b"CNI_IFNAME": b"eth0",
        b"CNI_PATH": b"/opt/cni/bin",
        b"CNI_ARGS": b"K8S_POD_NAME=web-0;X==",
        b"CNI_": b"odd",
        b"HOMEPORT_PLUGIN": b"whereabouts",
    }
    assert request.variables[-1] == b"HOMEPORT_PLUGIN=whereabouts"
    assert len(request.variables) == len(request.env)


def test_variables_that_are_not_utf8_arrive_as_they_are(shim: Shim, peer: START) -> None:
    server = peer(answer())
    env = {os.fsencode(k): os.fsencode(v) for k, v in shim.environment("ADD").items()}
    shim.execute(shim.argv(), {**env, b"CNI_ARGS": b"\xff\xfe=\x80"})
    assert server.requests[0].env[b"CNI_ARGS"] == b"\xff\xfe=\x80"


def test_a_full_environment_and_stdin_pass(shim: Shim, peer: START) -> None:
    server = peer(answer(b"x" * STDOUT_MAX))
    base = shim.environment("ADD")
    sent = sum(len(k) + len(v) + 2 for k, v in base.items() if k.startswith("CNI_")) + len("HOMEPORT_PLUGIN=homeport\0")
    filling = {"CNI_A": "a" * 120_000, "CNI_B": "b" * 120_000}  # the kernel takes 128 KiB of each
    filling["CNI_C"] = "c" * (ENV_MAX - sent - 240_000 - 3 * len("CNI_A=\0"))
    stdin = bytes(range(256)) * (STDIN_MAX // 256)
    done = shim.execute(shim.argv(), {**base, **filling}, stdin)
    assert (done.code, done.stdout) == (0, b"x" * STDOUT_MAX)
    assert server.requests[0].stdin == stdin
    assert server.requests[0].env[b"CNI_C"] == filling["CNI_C"].encode()

    too_much = shim.execute(shim.argv(), {**base, **filling, "CNI_D": ""}, stdin)
    assert too_much.error["code"] == 4
    assert too_much.error["msg"] == f"CNI variables: found more than {ENV_MAX} bytes, expected at most that"


def test_stdin_is_bounded(shim: Shim, peer: START) -> None:
    server = peer(answer())
    done = shim.run("ADD", b"x" * (STDIN_MAX + 1))
    assert done.error == {
        "code": 6,
        "msg": f"read network configuration from stdin: found more than {STDIN_MAX} bytes, expected at most that",
    }
    assert server.connections == 0


def test_an_endless_stdin_is_bounded(shim: Shim) -> None:
    done = shim.execute(["sh", "-c", 'exec "$@" </dev/zero', "sh", *shim.argv()], shim.environment("DEL"))
    assert done.error["code"] == 6


def test_a_stdin_that_does_not_end_is_given_up_at_the_deadline(shim: Shim) -> None:
    read, write = os.pipe()
    os.write(write, CONF)
    env = shim.environment("DEL", HOMEPORT_TIMEOUT_SECONDS="0.3")
    done = subprocess.run(shim.argv(), env=env, stdin=read, capture_output=True, check=False)
    os.close(read)
    os.close(write)
    error = shim.done(done.returncode, done.stdout, done.stderr).error
    assert (error["code"], error["msg"]) == (
        5,
        "read network configuration from stdin: found no end within 0.3 s",
    )


def test_an_answer_in_pieces(shim: Shim, peer: START) -> None:
    whole = answer(b"0123456789", 3)
    peer(*(whole[i : i + 1] for i in range(len(whole))))
    done = shim.run()
    assert (done.code, done.stdout) == (3, b"0123456789")


def test_what_follows_the_answer_is_ignored(shim: Shim, peer: START) -> None:
    peer(answer(b"{}") + b"more")
    done = shim.run()
    assert (done.code, done.stdout) == (0, b"{}")


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (b"", "found its end after 0 bytes, expected 12"),
        (b"HPR1\0\0\0", "found its end after 7 bytes, expected 12"),
        (answer(b"0123456789")[:-3], "found its end after 7 bytes, expected 10"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", 'found "HTTP", expected "HPR1"'),
        (b"\xff\xfe\x00\x01" + bytes(8), 'found "\ufffd\ufffd\x00\x01", expected "HPR1"'),
        (b"HPR1" + (256).to_bytes(4, "big") + bytes(4), "found exit code 256, expected at most 255"),
        (b"HPR1" + b"\xff" * 8, "found exit code 4294967295, expected at most 255"),
        (
            b"HPR1" + bytes(4) + (STDOUT_MAX + 1).to_bytes(4, "big"),
            f"found a length of {STDOUT_MAX + 1} bytes, expected at most {STDOUT_MAX}",
        ),
    ],
    ids=["nothing", "half a header", "half a body", "http", "bytes", "exit code", "exit code max", "length"],
)
def test_an_answer_that_is_none(shim: Shim, peer: START, pieces: bytes, expected: str) -> None:
    server = peer(pieces)
    assert shim.run("ADD", CONF, HOMEPORT_CONNECT_SECONDS="25").error == {
        "cniVersion": "1.0.0",
        "code": 11,
        "msg": f'read the answer of homeportd at "{shim.socket}": {expected}',
    }
    assert len(server.requests) == 1, "a request that was read is never sent twice"


def test_no_answer_until_the_deadline(shim: Shim, peer: START) -> None:
    quiet = threading.Event()

    def hold(connection: socket.socket) -> None:
        connection.sendall(answer(b"0123456789")[:15])
        quiet.wait(30)

    peer().then(hold)
    done = shim.run("ADD", CONF, HOMEPORT_TIMEOUT_SECONDS=shim.soon)
    quiet.set()
    assert done.error["code"] == 11
    assert done.error["msg"] == f'call homeportd at "{shim.socket}": found no answer within {shim.soon} s'


def test_a_daemon_that_trickles_does_not_hold_it_past_the_deadline(shim: Shim, peer: START) -> None:
    over = threading.Event()

    def trickle(connection: socket.socket) -> None:
        connection.sendall(answer(bytes(1000))[:12])
        for _ in range(1000):
            if over.wait(0.02):
                return
            connection.sendall(b"x")

    peer().then(trickle)
    done = shim.run("ADD", CONF, HOMEPORT_TIMEOUT_SECONDS=shim.soon)
    over.set()
    assert f"found no answer within {shim.soon} s" in done.error["msg"]


def test_a_daemon_that_does_not_read_does_not_hold_it_past_the_deadline(shim: Shim, peer: START) -> None:
    over = threading.Event()
    peer().then(silent_until(over))
    done = shim.run("ADD", b"x" * STDIN_MAX, HOMEPORT_TIMEOUT_SECONDS=shim.soon)
    over.set()
    assert f"found no answer within {shim.soon} s" in done.error["msg"]


def test_a_full_queue_is_waited_for_until_the_deadline(shim: Shim) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(shim.socket))
        listener.listen(0)
        waiting = socket.socket(socket.AF_UNIX)
        waiting.connect(str(shim.socket))
        done = shim.run("ADD", CONF, HOMEPORT_TIMEOUT_SECONDS=shim.soon)
        waiting.close()
    assert f"found no answer within {shim.soon} s" in done.error["msg"]


@pytest.mark.parametrize("command", ["ADD", "CHECK", "STATUS", "GC"])
def test_a_missing_daemon(shim: Shim, command: str) -> None:
    assert shim.run(command, CONF).error == {
        "cniVersion": "1.0.0",
        "code": 11,
        "msg": f'connect to homeportd at "{shim.socket}": found nobody for 0 s: No such file or directory',
    }


def test_a_dead_daemons_socket(shim: Shim, peer: START) -> None:
    peer().close()
    done = shim.run("ADD", CONF)
    assert done.error["msg"].endswith("found nobody for 0 s: Connection refused")


def test_a_missing_daemon_is_waited_for(shim: Shim) -> None:
    argv, env = shim.argv(), shim.environment("ADD", HOMEPORT_CONNECT_SECONDS="25")
    with subprocess.Popen(argv, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stdin
        run.stdin.write(CONF)
        run.stdin.close()
        run.stdin = None
        with pytest.raises(subprocess.TimeoutExpired):
            run.wait(0.3)
        server = Peer(shim.socket, hang_up)
        server.then(server.replies(answer(b"late")))
        stdout, stderr = run.communicate(timeout=30)
    server.close()
    assert shim.done(run.returncode, stdout, stderr).stdout == b"late"


def test_a_missing_daemon_is_waited_for_no_longer_than_asked(shim: Shim) -> None:
    began = time.monotonic()
    done = shim.run("ADD", CONF, HOMEPORT_CONNECT_SECONDS="0.5")
    assert time.monotonic() - began >= 0.5
    assert "found nobody for 0.5 s" in done.error["msg"]
    began = time.monotonic()
    shim.run("ADD", CONF, HOMEPORT_CONNECT_SECONDS="999", HOMEPORT_TIMEOUT_SECONDS="0.5")
    assert time.monotonic() - began < 20


def test_a_request_that_nobody_read_is_sent_again(shim: Shim, peer: START) -> None:
    """A daemon that is replaced drops the connections in its queue: none of those calls is lost."""
    server = peer()
    server.then(hang_up, hang_up, server.replies(answer(b"second")))
    done = shim.run("ADD", CONF, HOMEPORT_CONNECT_SECONDS="25")
    assert (done.code, done.stdout) == (0, b"second")
    assert server.connections == 3


def test_a_large_request_that_nobody_read_is_sent_again(shim: Shim, peer: START) -> None:
    server = peer()
    server.then(hang_up, server.replies(answer(b"second")))
    done = shim.run("ADD", b"x" * STDIN_MAX, HOMEPORT_CONNECT_SECONDS="25")
    assert (done.code, done.stdout) == (0, b"second")


def test_a_daemon_that_always_hangs_up(shim: Shim, peer: START) -> None:
    server = peer()
    server.then(hang_up)
    done = shim.run("ADD", CONF, HOMEPORT_CONNECT_SECONDS="0.3")
    assert done.error["msg"].endswith("found nobody for 0.3 s: Connection reset by peer")
    assert server.connections > 1


def test_a_refusal_before_the_request_was_read_is_heard(shim: Shim, peer: START) -> None:
    def refuse(connection: socket.socket) -> None:
        connection.sendall(answer(b"not you", 1))

    server = peer()
    server.then(refuse)
    done = shim.run("ADD", b"x" * STDIN_MAX)
    assert (done.code, done.stdout) == (1, b"not you")
    assert server.connections == 1


def test_a_socket_that_may_not_be_used(shim: Shim, peer: START) -> None:
    peer(answer())
    shim.socket.chmod(0)
    unprivileged = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override"] if not os.geteuid() else []
    for command in ("ADD", "DEL"):
        done = shim.execute([*unprivileged, *shim.argv()], shim.environment(command, HOMEPORT_CONNECT_SECONDS="25"))
        assert done.error == {"code": 5, "msg": f'connect to homeportd at "{shim.socket}": Permission denied'}


def test_a_socket_path_through_a_file(shim: Shim, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = shim.run("ADD", HOMEPORT_SOCKET=tmp_path / "file" / "sock")
    assert (done.error["code"], done.error["msg"].rpartition(": ")[2]) == (5, "Not a directory")


def test_a_link_to_the_socket_is_followed(shim: Shim, peer: START, tmp_path: Path) -> None:
    peer(answer(b"{}"))
    (tmp_path / "multus.sock").symlink_to(shim.socket)
    assert shim.run("ADD", HOMEPORT_SOCKET=tmp_path / "multus.sock").code == 0


def test_the_longest_socket_path(shim: Shim, tmp_path: Path) -> None:
    done = shim.run("ADD", HOMEPORT_SOCKET="/" + "s" * 106)
    assert "No such file" in done.error["msg"]
    done = shim.run("ADD", HOMEPORT_SOCKET="/" + "s" * 107)
    assert done.error == {"code": 4, "msg": "HOMEPORT_SOCKET: found a path of 108 bytes, expected at most 107"}


@pytest.mark.parametrize("command", ["ADD", "DEL"])
def test_a_signal_ends_the_waiting(shim: Shim, peer: START, command: str) -> None:
    received = threading.Event()

    def hold(connection: socket.socket) -> None:
        read_request(connection)
        received.set()
        connection.recv(1)

    shim.journal.mkdir()
    peer().then(hold)
    with subprocess.Popen(
        shim.argv(), env=shim.environment(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    ) as run:
        assert received.wait(30)
        run.send_signal(signal.SIGTERM)
        stdout, _ = run.communicate(timeout=10)
    assert (run.returncode, stdout) == (-signal.SIGTERM, b"")
    assert shim.kept() == []
