"""The shim as a program: what it says of itself, its settings, its descriptors, and the form of its errors."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.shim.builds import ROOT, WITHOUT_VALGRIND, Shim, build, make
from tests.shim.peers import Peer, answer

import homeport
from homeport.cni import versions
from homeport.daemon import framing
from homeport.daemon.calls import Reply

START = Callable[..., Peer]
CLOSING = {"stdin": "<&-", "stdout": ">&-", "stderr": "2>&-", "all three": "<&- >&- 2>&-"}


def test_version_is_what_every_executable_of_ours_says(shim: Shim) -> None:
    done = shim.run("VERSION", CNI_CONTAINERID="../x")
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout == msgspec.json.encode(versions.version_info()) + b"\n"


def test_without_a_command_it_introduces_itself(shim: Shim) -> None:
    done = shim.run("", name="multus")
    assert (done.code, done.stdout) == (0, b"")
    assert done.stderr == (
        f"CNI plugin multus of Homeport {homeport.__version__}, carried out by homeportd\n"
        f"CNI protocol versions supported: {', '.join(versions.SUPPORTED_VERSIONS)}\n"
    )


def test_options(shim: Shim) -> None:
    for command in ("", "ADD"):
        env = shim.environment(command)
        version = shim.execute([*shim.argv(), "--version"], env)
        assert (version.code, version.stdout) == (0, f"homeport-shim {homeport.__version__}\n".encode())
        usage = shim.execute([*shim.argv(), "--help"], env)
        assert (usage.code, usage.stderr) == (0, "")
        assert usage.stdout.startswith(b"usage: homeport-shim")
        for name in (b"HOMEPORT_SOCKET", b"HOMEPORT_JOURNAL", b"HOMEPORT_CONNECT_SECONDS", b"HOMEPORT_TIMEOUT_SECONDS"):
            assert name in usage.stdout


def test_help_tells_the_same_in_both_languages() -> None:
    texts = {subprocess.run([build(form), "--help"], capture_output=True).stdout for form in ("native", "python")}
    assert len(texts) == 1


@WITHOUT_VALGRIND
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("HOMEPORT_CONNECT_SECONDS", "seconds such as 0, 0.5 or 90"),
        ("HOMEPORT_TIMEOUT_SECONDS", "seconds such as 0.5 or 90, above 0"),
    ],
)
@pytest.mark.parametrize(
    "text",
    ["x", "-1", "1s", "1.", ".5", "0.0001", "1e3", " 1", "1000000", "999999999999999999999999999", "1.2.3", "+1"],
)
def test_a_time_that_is_none(shim: Shim, name: str, expected: str, text: str) -> None:
    done = shim.execute(shim.argv(), {**shim.environment("DEL"), name: text})
    assert done.error == {"code": 4, "msg": f'{name}: found "{text}", expected {expected}'}


@WITHOUT_VALGRIND
def test_times(shim: Shim, peer: START) -> None:
    peer(answer())
    for text in ("0.001", "0.25", "5", "007", "999999", "999999.999"):
        assert shim.run("ADD", HOMEPORT_CONNECT_SECONDS=text).code == 0, text
    assert shim.run("ADD", HOMEPORT_TIMEOUT_SECONDS="0").error["code"] == 4
    assert shim.run("ADD", HOMEPORT_TIMEOUT_SECONDS="999999.999").code == 0


@WITHOUT_VALGRIND  # valgrind opens the closed ones itself
@pytest.mark.parametrize("closed", list(CLOSING))
def test_closed_descriptors(shim: Shim, peer: START, closed: str) -> None:
    """None of them becomes the socket: the daemon receives a request and nothing else."""
    server = peer(answer(b"printed"))
    argv = ["sh", "-c", f'exec "$@" {CLOSING[closed]}', "sh", *shim.argv()]
    done = shim.execute(argv, shim.environment("ADD"), b"{}")
    if closed == "stderr":
        assert (done.code, done.stdout) == (0, b"printed")
    elif closed == "stdout":
        assert (done.code, done.stderr) == (1, "write to stdout: it is closed\n")
        assert [r.stdin for r in server.requests] == [b"{}"]
    elif closed == "stdin":
        assert done.error == {"code": 5, "msg": "read network configuration from stdin: it is closed"}
    else:
        assert (done.code, done.stdout, done.stderr) == (1, b"", "")


def test_a_runtime_that_hung_up(shim: Shim, peer: START) -> None:
    peer(answer(b"x" * 100_000))
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        shim.argv(), env=shim.environment("ADD"), input=b"{}", stdout=write, stderr=subprocess.PIPE, check=False
    )
    os.close(write)
    assert shim.done(done.returncode, b"", done.stderr) == shim.done(1, b"", b"write to stdout: Broken pipe\n")


def test_a_runtime_that_reads_slowly(shim: Shim, peer: START) -> None:
    stdout = os.urandom(1_000_000)
    peer(answer(stdout))
    argv = ["sh", "-c", '"$@" | { sleep 0.2; cat; }', "sh", *shim.argv()]
    assert shim.execute(argv, shim.environment("ADD")).stdout == stdout


def test_descriptors_that_do_not_block(shim: Shim, peer: START) -> None:
    """A runtime may share pipes with its own event loop."""
    stdout = os.urandom(1_000_000)
    server = peer(answer(stdout))
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    with subprocess.Popen(
        shim.argv(), env=shim.environment("ADD"), stdin=theirs.fileno(), stdout=theirs.fileno()
    ) as run:
        theirs.close()
        ours.sendall(b"x" * 1_000_000)
        ours.shutdown(socket.SHUT_WR)
        read = b"".join(iter(lambda: ours.recv(65536), b""))
        assert run.wait(30) == 0
    ours.close()
    assert read == stdout
    assert server.requests[0].stdin == b"x" * 1_000_000


@pytest.mark.parametrize("form", ["native"], indirect=True)  # an interpreter refuses to start on one
def test_stdin_that_is_a_directory(shim: Shim) -> None:
    done = shim.execute(["sh", "-c", 'exec "$@" </', "sh", *shim.argv()], shim.environment("ADD"))
    assert done.error == {"code": 5, "msg": "read network configuration from stdin: Is a directory"}


VERSIONS = [
    (b'{"cniVersion":"0.4.0"}', "0.4.0"),
    (b' \n{ "a" : [ {"cniVersion": "9.9.9"} ], "cniVersion"\t:\r\n"1.1.0" ', "1.1.0"),
    (b'{"name": "cniVersion", "cniVersion": "1.0.0"}', "1.0.0"),
    (b'{"x\\"": "\\\\", "y": "}{", "cniVersion": "1.0.0"}', "1.0.0"),
    (b"[" * 100_000 + b"]" * 100_000 + b'{"cniVersion":"1.0.0"}', "1.0.0"),
    (b'{"cniVersion":"1.0.0","cniVersion":"0.4.0"}', "1.0.0"),
    (b'}}{"cniVersion":"1.0.0"', "1.0.0"),
    (b'{"plugins":[{"cniVersion":"1.0.0"}]}', None),
    (b'[{"cniVersion":"1.0.0"}]', None),
    (b'"cniVersion":"1.0.0"', None),
    (b'{"cniVersion":100}', None),
    (b'{"cniVersion":"1.0.0', None),
    (b'{"cniVersion":"1.0.0\\', None),
    (b'{"cniVersion', None),
    (b'{"cniVersion"', None),
    (b'{"cniVersion":', None),
    (b'{"cniVersion":""}', None),
    (b'{"cniVersion":"one"}', None),
    (b'{"cniVersion":"1\\u002e0"}', None),
    (b'{"cniVersion":"11111111111111111"}', None),
    (b'{"cniVersion ":"1.0.0"}', None),
    (b'{"CniVersion":"1.0.0"}', None),
    (b'{"\\', None),
    (b'"', None),
    (b"", None),
    (b"\xff\xfe\x00", None),
    (b'{"' + b'\\"' * 500_000 + b'":0,"cniVersion":"1.0.0"}', "1.0.0"),
    (b'{"' + b'\\"' * 500_000, None),
]


@WITHOUT_VALGRIND
@pytest.mark.parametrize(("stdin", "expected"), VERSIONS, ids=[str(i) for i in range(len(VERSIONS))])
def test_an_error_carries_the_version_of_the_configuration(shim: Shim, stdin: bytes, expected: str | None) -> None:
    error = shim.run("ADD", stdin).error
    assert error.get("cniVersion") == expected
    assert error["code"] == 11


@settings(max_examples=150, deadline=None)
@given(
    path=st.binary(min_size=1, max_size=107).map(lambda b: b.replace(b"\0", b"\1")),
    stdin=st.binary(max_size=64) | st.lists(st.sampled_from(b'{}[]":\\ 1.0.0,'), max_size=40).map(bytes),
    version=st.sampled_from([b"", b'{"cniVersion":"1.0.0"}', b'"cniVersion":"0.3.1"']),
)
def test_both_languages_say_the_same_of_any_bytes(path: bytes, stdin: bytes, version: bytes) -> None:
    said = set()
    for form in ("native", "python"):
        env = {b"CNI_COMMAND": b"ADD", b"HOMEPORT_SOCKET": b"/no/" + path[:103], b"HOMEPORT_CONNECT_SECONDS": b"0"}
        done = subprocess.run([build(form)], env=env, input=stdin[:8] + version + stdin[8:], capture_output=True)
        assert done.returncode == 1
        said.add(done.stdout)
    (stdout,) = said
    msgspec.json.decode(stdout)
    assert (b"/no/" + path[:103]).decode(errors="replace") in msgspec.json.decode(stdout)["msg"]


def test_the_executable_stands_alone(tmp_path: Path) -> None:
    """Static: it starts where there is no library at all."""
    native = build("native")
    assert native.stat().st_size < 100_000 or "musl" not in subprocess.getoutput("command -v musl-gcc")
    with native.open("rb") as file:
        image = file.read()
    assert image.startswith(b"\x7fELF")
    assert b"/lib/ld-" not in image
    assert b"/lib64/ld-" not in image


def test_make_builds_for_every_machine_there_is_a_compiler_for(tmp_path: Path) -> None:
    make(f"INTO={tmp_path}", "all")
    machines = {b"\x3e\x00": "x86_64", b"\xb7\x00": "aarch64"}  # e_machine of elf(5)
    built = {path.name: machines[path.read_bytes()[18:20]] for path in tmp_path.iterdir()}
    crossed = subprocess.run(["sh", "-c", "command -v aarch64-linux-gnu-gcc"], capture_output=True).returncode == 0
    assert set(built.values()) == {os.uname().machine} | ({"aarch64"} if crossed else set())
    assert all(name == f"homeport-shim-{machine}" for name, machine in built.items())


def test_the_daemon_reads_what_the_shim_writes(shim: Shim, peer: START) -> None:
    server = peer(answer())
    env = {os.fsencode(k): os.fsencode(v) for k, v in shim.environment("ADD").items()}
    shim.execute(shim.argv("multus"), {**env, b"CNI_ARGS": b"A=\xff", b"CNI_EMPTY": b""}, b"{}")
    call = framing.decode_request(server.requests[0].frame)
    assert (call.plugin, call.stdin) == ("multus", b"{}")
    assert call.environ == {
        **{k: v for k, v in shim.environment("ADD").items() if k.startswith("CNI_")},
        "CNI_ARGS": "A=\udcff",
        "CNI_EMPTY": "",
    }


def test_the_shim_reads_what_the_daemon_writes(shim: Shim, peer: START) -> None:
    peer(framing.encode_reply(Reply(exit_code=7, stdout=b"{}\n")))
    done = shim.run("ADD", b"{}")
    assert (done.code, done.stdout) == (7, b"{}\n")


def test_both_keep_the_same_bounds() -> None:
    source = (ROOT / "shim" / "homeport-shim.c").read_text()
    for name, size in (
        ("ENV_MAX", framing.MAX_ENVIRONMENT_BYTES),
        ("STDIN_MAX", framing.MAX_STDIN_BYTES),
        ("STDOUT_MAX", framing.MAX_STDOUT_BYTES),
    ):
        assert (
            f"    {name} = {size // 1024} * 1024,\n" in source
            or f"    {name} = {size >> 20} * 1024 * 1024,\n" in source
        )
