"""Foreign plugins as real processes: what they print, how they end, what they leave."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from homeport.model.errors import InvalidNetConf, InvalidNetns, IOFailure, PluginFailed
from homeport.runtime import executing
from homeport.runtime.executing import Executor

WaitUntil = Callable[..., None]


def script(path: Path, body: str, mode: int = 0o755) -> str:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(mode)
    return str(path)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_environment_stdin_and_both_outputs(tmp_path: Path) -> None:
    plugin = script(tmp_path / "p", 'cat; echo "$CNI_COMMAND" >&2; exit 3')
    done = Executor().run(plugin, env={"CNI_COMMAND": "ADD", "PATH": "/bin:/usr/bin"}, stdin=b"{}", timeout_seconds=10)
    assert (done.returncode, done.stdout, done.stderr) == (3, b"{}", b"ADD\n")


def test_only_the_given_environment_is_passed(tmp_path: Path) -> None:
    plugin = script(tmp_path / "p", "exec /usr/bin/env")
    done = Executor().run(plugin, env={"ONLY": "this"}, stdin=b"", timeout_seconds=10)
    assert set(done.stdout.splitlines()) - {b"ONLY=this"} <= {b"PWD=" + os.getcwd().encode(), b"_=/usr/bin/env"}


def test_large_input_and_output_at_once(tmp_path: Path) -> None:
    plugin = script(tmp_path / "p", "cat; cat /dev/zero | head -c 3000000 >&2")
    text = b"x" * 3_000_000
    done = Executor().run(plugin, env={"PATH": "/bin:/usr/bin"}, stdin=text, timeout_seconds=30)
    assert done.stdout == text
    assert len(done.stderr) == 3_000_000


def test_a_plugin_need_not_read_its_input(tmp_path: Path) -> None:
    plugin = script(tmp_path / "p", "exec <&-; echo done")
    done = Executor().run(plugin, env={}, stdin=b"x" * 3_000_000, timeout_seconds=10)
    assert (done.returncode, done.stdout) == (0, b"done\n")


def test_a_killed_plugin(tmp_path: Path) -> None:
    done = Executor().run(script(tmp_path / "p", "kill -9 $$"), env={}, stdin=b"", timeout_seconds=10)
    assert done.returncode == -signal.SIGKILL


def test_a_plugin_that_hangs_is_killed_with_its_children(tmp_path: Path, wait_until: WaitUntil) -> None:
    plugin = script(tmp_path / "p", f"sleep 600 & echo $! > {tmp_path}/child; echo waiting >&2; wait")
    started = time.monotonic()
    with pytest.raises(PluginFailed, match=r"no answer within 0\.5 s") as caught:
        Executor().run(plugin, env={"PATH": "/bin:/usr/bin"}, stdin=b"", timeout_seconds=0.5)
    assert time.monotonic() - started < 10
    assert caught.value.details == "waiting\n"
    child = int((tmp_path / "child").read_text())
    wait_until(lambda: not is_running(child))


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_to_us_kills_the_plugin(tmp_path: Path, number: int, raised: type[BaseException]) -> None:
    plugin = script(tmp_path / "p", f"echo $$ > {tmp_path}/pid; exec sleep 600")
    read, write = os.pipe()
    os.write(write, bytes([number]))
    executor = Executor(interrupt_fd=read)
    with pytest.raises(raised):
        executor.run(plugin, env={"PATH": "/bin:/usr/bin"}, stdin=b"", timeout_seconds=20)
    if (tmp_path / "pid").exists():  # it may have been killed before its first word
        assert not is_running(int((tmp_path / "pid").read_text() or 0))
    undo = executor.run(script(tmp_path / "q", "echo undone"), env={}, stdin=b"", timeout_seconds=20)
    assert undo.stdout == b"undone\n"
    os.close(read)
    os.close(write)


def test_a_plugin_that_prints_for_ever_meets_the_deadline_too(tmp_path: Path) -> None:
    plugin = script(tmp_path / "p", "while :; do echo x; done")
    with pytest.raises(PluginFailed, match=r"no answer within 0\.3 s"):
        Executor().run(plugin, env={}, stdin=b"", timeout_seconds=0.3)


def test_output_without_end_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executing, "MAX_OUTPUT_BYTES", 100_000)
    with pytest.raises(PluginFailed, match="printed more than 100000 bytes"):
        Executor().run(
            script(tmp_path / "p", "exec cat /dev/zero"), env={"PATH": "/bin"}, stdin=b"", timeout_seconds=10
        )


def test_a_daemon_left_behind_holds_nobody_up(tmp_path: Path, wait_until: WaitUntil) -> None:
    plugin = script(tmp_path / "p", f"setsid sleep 600 & echo $! > {tmp_path}/daemon; echo done")
    done = Executor().run(plugin, env={"PATH": "/bin:/usr/bin"}, stdin=b"", timeout_seconds=20)
    assert done.stdout == b"done\n"
    daemon = int((tmp_path / "daemon").read_text())
    assert is_running(daemon), "it is the plugin's own affair"
    os.kill(daemon, signal.SIGKILL)
    wait_until(lambda: not is_running(daemon))


def test_a_busy_executable_is_tried_again(tmp_path: Path) -> None:
    plugin = script(tmp_path / "p", "echo done")
    writer = os.open(plugin, os.O_WRONLY)
    release = threading.Timer(0.3, os.close, [writer])
    release.start()
    done = Executor().run(plugin, env={}, stdin=b"", timeout_seconds=10)
    release.join()
    assert done.stdout == b"done\n"


def test_patience_with_a_busy_executable_ends(tmp_path: Path) -> None:
    plugin = script(tmp_path / "p", "echo done")
    writer = os.open(plugin, os.O_WRONLY)
    try:
        with pytest.raises(PluginFailed, match=f"start {plugin}: Text file busy"):
            Executor().run(plugin, env={}, stdin=b"", timeout_seconds=0.3)
    finally:
        os.close(writer)


@pytest.mark.parametrize(("contents", "reason"), [("#!/no/such/interpreter\n", "No such file"), ("\0", "Exec format")])
def test_what_cannot_be_started(tmp_path: Path, contents: str, reason: str) -> None:
    plugin = tmp_path / "p"
    plugin.write_text(contents)
    plugin.chmod(0o755)
    with pytest.raises(PluginFailed, match=f"start {plugin}: {reason}"):
        Executor().run(str(plugin), env={}, stdin=b"", timeout_seconds=10)


def test_no_descriptor_leaks(tmp_path: Path) -> None:
    plugin = script(tmp_path / "p", "cat >/dev/null")
    Executor().run(plugin, env={"PATH": "/bin"}, stdin=b"x", timeout_seconds=10)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        Executor().run(plugin, env={"PATH": "/bin"}, stdin=b"x", timeout_seconds=10)
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_first_executable_file_along_the_path(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d"):
        (tmp_path / name).mkdir()
    (tmp_path / "a" / "p").mkdir()
    script(tmp_path / "b" / "p", "", mode=0o644)
    wanted = script(tmp_path / "c" / "p", "")
    script(tmp_path / "d" / "p", "")
    path = [str(tmp_path / "none"), *(str(tmp_path / name) for name in "abcd")]
    assert Executor().find("p", path) == wanted
    assert Executor().find("q", path) is None
    assert Executor().find("p", []) is None


@pytest.mark.parametrize("name", ["../p", "/bin/sh", "..", ""])
def test_names_that_are_paths_find_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidNetConf, match='key "type"'):
        Executor().find(name, [str(tmp_path)])


def test_a_directory_that_cannot_be_searched_is_not_an_empty_one(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(IOFailure, match=r'find plugin "p" in .*: Too many levels of symbolic links'):
        Executor().find("p", [str(loop)])


@pytest.mark.root
def test_in_another_network_namespace(tmp_path: Path) -> None:
    name = f"hp-exec-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        ours = os.stat("/proc/self/ns/net").st_ino
        plugin = script(tmp_path / "p", "stat -L -c %i /proc/self/ns/net")
        env = {"PATH": "/bin:/usr/bin"}
        there = Executor().run(plugin, env=env, stdin=b"", timeout_seconds=10, netns=f"/run/netns/{name}")
        assert int(there.stdout) == os.stat(f"/run/netns/{name}").st_ino != ours
        assert int(Executor().run(plugin, env=env, stdin=b"", timeout_seconds=10).stdout) == ours
        assert os.stat("/proc/thread-self/ns/net").st_ino == ours
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


@pytest.mark.root
def test_in_a_namespace_that_is_none(tmp_path: Path) -> None:
    plugin = script(tmp_path / "p", "")
    with pytest.raises(InvalidNetns, match=r"enter network namespace /none: No such file"):
        Executor().run(plugin, env={}, stdin=b"", timeout_seconds=10, netns="/none")
    with pytest.raises(InvalidNetns, match="Invalid argument"):
        Executor().run(plugin, env={}, stdin=b"", timeout_seconds=10, netns=plugin)
