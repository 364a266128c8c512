"""The plugin executables given what they should not be given: a clear CNI error each time, and nothing left behind."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from homeport.plugins import registry

pytestmark = pytest.mark.root

WaitUntil = Callable[..., None]
ALL = sorted(registry.MODULES)
MAIN = sorted(set(ALL) - {"host-local", "static", "whereabouts", "sbr", "passthru"})


@dataclass(frozen=True)
class Bench:
    """A host and a container of the test's own, and the installed executables."""

    host: str
    container: str
    home: Path

    def env(self, command: str | None = None, **change: str | None) -> dict[str, str]:
        env: dict[str, str | None] = {
            "PATH": os.environ["PATH"],
            "HOMEPORT_STORE": str(self.home / "store.db"),
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": "c1",
            "CNI_NETNS": f"/run/netns/{self.container}",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(self.home / "bin"),
            **change,
        }
        return {name: value for name, value in env.items() if value is not None}

    def start(self, plugin: str, env: dict[str, str]) -> subprocess.Popen[bytes]:
        command = ["nsenter", f"--net=/run/netns/{self.host}", "--", str(self.home / "bin" / plugin)]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=env, stdin=pipe, stdout=pipe, stderr=pipe)

    def run(self, plugin: str, stdin: bytes | dict[str, Any], env: dict[str, str]) -> tuple[int, bytes, str]:
        """(exit code, stdout, stderr)."""
        text = stdin if isinstance(stdin, bytes) else json.dumps(stdin).encode()
        with self.start(plugin, env) as process:
            stdout, stderr = process.communicate(text, timeout=60)
        return process.returncode, stdout, stderr.decode()

    def error(self, plugin: str, stdin: bytes | dict[str, Any], command: str = "ADD", **env: str | None) -> Any:
        """The error object the plugin must print; also asserts how it is printed."""
        code, stdout, stderr = self.run(plugin, stdin, self.env(**{"CNI_COMMAND": command} | env))
        assert code == 1, stdout.decode()
        assert "Traceback" not in stderr
        error = json.loads(stdout)
        assert stdout.decode() == json.dumps(error, indent=4)
        assert set(error) <= {"cniVersion", "code", "msg", "details"}
        return error

    def foreign(self, name: str, body: str) -> None:
        path = self.home / "bin" / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    def links(self, netns: str) -> list[str]:
        out = subprocess.run(["ip", "-json", "-netns", netns, "link"], capture_output=True, check=True).stdout
        return sorted(link["ifname"] for link in json.loads(out))

    def is_untouched(self) -> bool:
        return self.links(self.container) == ["lo"] and self.links(self.host) == ["eth1", "lo"]


@pytest.fixture(scope="module")
def executables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "homeport", "install", f"--bin-dir={folder}", "-o", "name"], check=True)
    return folder


@pytest.fixture
def bench(tmp_path: Path, executables: Path) -> Iterator[Bench]:
    token = secrets.token_hex(4)
    host, container = f"hp-bad-host-{token}", f"hp-bad-box-{token}"
    (tmp_path / "bin").mkdir()
    for executable in executables.iterdir():
        (tmp_path / "bin" / executable.name).symlink_to(executable)
    for name in (host, container):
        subprocess.run(["ip", "netns", "add", name], check=True)
    subprocess.run(["ip", "-netns", host, "link", "add", "eth1", "type", "bridge"], check=True)
    subprocess.run(["ip", "-netns", host, "link", "set", "eth1", "up"], check=True)
    yield Bench(host=host, container=container, home=tmp_path)
    for name in (host, container):
        subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def conf(plugin: str, **keys: Any) -> dict[str, Any]:
    return {"cniVersion": "1.1.0", "name": "net", "type": plugin, "master": "eth1", "bridge": "br0", **keys}


# --- stdin -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plugin", ALL)
def test_empty_stdin(bench: Bench, plugin: str) -> None:
    error = bench.error(plugin, b"")
    assert error == {"code": 6, "msg": "decode network configuration: found nothing, expected a JSON object"}
    assert bench.is_untouched()


@pytest.mark.parametrize(
    ("stdin", "text"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[]", "expected a JSON object"),
        (b"{}{}", "not JSON"),
        (b"[" * 1_000_000, "nested too deeply"),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, "nested too deeply"),
        (b'"' + b"x" * (17 * 1024 * 1024), "expected at most 16777216"),
        (b" " * (40 * 1024 * 1024), "expected at most 16777216"),
    ],
)
def test_what_is_no_configuration(bench: Bench, stdin: bytes, text: str) -> None:
    code, stdout, _ = bench.run("macvlan", stdin, bench.env("ADD"))
    error = json.loads(stdout)
    assert (code, error["code"]) == (1, 6)
    assert text in error["msg"]


def test_closed_stdin(bench: Bench) -> None:
    command = ["sh", "-c", "exec macvlan <&-"]
    env = bench.env("ADD", PATH=f"{bench.home}/bin:{os.environ['PATH']}")
    done = subprocess.run(command, capture_output=True, check=False, env=env)
    assert (done.returncode, json.loads(done.stdout)["code"]) == (1, 5)


@pytest.mark.parametrize("plugin", ALL)
@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        ({"name": ""}, 7, 'key "name": missing'),
        ({"name": "../../etc"}, 7, 'key "name": found "../../etc"'),
        ({"type": "../../bin/sh"}, 7, 'key "type"'),
        ({"cniVersion": "9.0.0"}, 1, 'cniVersion: found "9.0.0", expected one of 0.1.0'),
        ({"cniVersion": []}, 7, 'key "cniVersion": found []'),
        ({"ipam": "host-local"}, 7, 'key "ipam": found "host-local", expected object'),
        ({"prevResult": {"cniVersion": "0.2.0"}}, 7, 'key "prevResult.cniVersion"'),
        ({"prevResult": {"ips": [{"address": "10.0.0.1"}]}}, 7, 'key "prevResult.ips[0].address"'),
    ],
)
def test_wrong_shared_keys(bench: Bench, plugin: str, change: dict[str, Any], code: int, text: str) -> None:
    error = bench.error(plugin, conf(plugin, **change))
    assert error["code"] == code
    assert text in error["msg"]
    assert bench.is_untouched()


@pytest.mark.parametrize(("command", "version"), [("CHECK", "0.3.1"), ("GC", "1.0.0"), ("STATUS", "1.0.0")])
def test_verbs_their_version_does_not_have(bench: Bench, command: str, version: str) -> None:
    error = bench.error("macvlan", conf("macvlan", cniVersion=version), command)
    assert error["code"] == 1
    assert f'{command}: found cniVersion "{version}"' in error["msg"]


@pytest.mark.parametrize("plugin", ALL)
def test_gc_without_its_list_collects_nothing(bench: Bench, plugin: str) -> None:
    error = bench.error(plugin, conf(plugin), "GC")
    assert (error["code"], "cni.dev/valid-attachments" in error["msg"]) == (7, True)


# --- the environment ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plugin", ALL)
def test_missing_variables_are_all_named(bench: Bench, plugin: str) -> None:
    gone = {"CNI_CONTAINERID": None, "CNI_NETNS": None, "CNI_IFNAME": None, "CNI_PATH": None}
    error = bench.error(plugin, b"not even looked at", "ADD", **gone)
    assert error["code"] == 4
    assert all(f"{name}: missing, required for ADD" in error["msg"] for name in gone)


def test_an_unknown_verb(bench: Bench) -> None:
    error = bench.error("bridge", b"", "REMOVE")
    assert (error["code"], 'CNI_COMMAND: found "REMOVE"' in error["msg"]) == (4, True)


@pytest.mark.parametrize(
    ("name", "value"),
    [("CNI_CONTAINERID", "../c1"), ("CNI_IFNAME", "../eth0"), ("CNI_IFNAME", "e" * 16), ("CNI_ARGS", "K8S_POD_NAME")],
)
@pytest.mark.parametrize("command", ["ADD", "DEL", "CHECK"])
def test_malformed_variables(bench: Bench, command: str, name: str, value: str) -> None:
    error = bench.error("host-local", conf("host-local"), command, **{name: value})
    assert (error["code"], f'{name}: found "{value}"' in error["msg"]) == (4, True)


@pytest.mark.parametrize("name", ["CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH"])
def test_bytes_that_are_not_utf8(bench: Bench, name: str) -> None:
    error = bench.error("bridge", conf("bridge"), "ADD", **{name: "K=/\udcff"})
    assert (error["code"], name in error["msg"], "udcff" in error["msg"]) == (4, True, True)


@pytest.mark.parametrize("plugin", ALL)
@pytest.mark.parametrize("command", ["ADD", "DEL"])
def test_the_plugins_own_namespace_is_refused_before_anything_is_done(bench: Bench, plugin: str, command: str) -> None:
    error = bench.error(plugin, conf(plugin), command, CNI_NETNS=f"/run/netns/{bench.host}")
    assert (error["code"], error["cniVersion"]) == (8, "1.1.0")
    assert "the plugin's own network namespace" in error["msg"]
    assert bench.is_untouched()


def test_its_own_namespace_may_be_allowed(bench: Bench) -> None:
    env = bench.env("ADD", CNI_NETNS=f"/run/netns/{bench.host}", CNI_NETNS_OVERRIDE="1", CNI_IFNAME="lo")
    assert bench.run("loopback", conf("loopback"), env)[0] == 0


@pytest.mark.parametrize("plugin", MAIN)
@pytest.mark.parametrize("netns", ["/run/netns/hp-no-such", "/etc/hostname"])
def test_a_namespace_that_is_none(bench: Bench, plugin: str, netns: str) -> None:
    ipam = {"type": "static", "addresses": [{"address": "10.0.0.9/24"}]}
    error = bench.error(plugin, conf(plugin, ipam=ipam), CNI_NETNS=netns)
    assert error["code"] in (8, 108), "108 where this kernel lacks the link type"
    if error["code"] == 8:
        assert netns in error["msg"]
    assert bench.is_untouched()


@pytest.mark.parametrize("plugin", ALL)
def test_about_and_version(bench: Bench, plugin: str) -> None:
    code, stdout, stderr = bench.run(plugin, b"", bench.env(""))
    assert (code, stdout) == (0, b"")
    assert f"CNI plugin {plugin} of Homeport" in stderr
    code, stdout, stderr = bench.run(plugin, b"", {"CNI_COMMAND": "VERSION"})
    assert (code, stderr, stdout.count(b"\n")) == (0, "", 1)
    assert json.loads(stdout)["supportedVersions"][-1] == json.loads(stdout)["cniVersion"] == "1.1.0"


# --- foreign IPAM plugins that misbehave -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "code", "text"),
    [
        ("echo garbage", 106, "ADD succeeded with a bad result"),
        ("", 106, "found nothing"),
        ("echo '{}'", None, ""),
        ("echo garbage; exit 1", 106, 'found "garbage", expected a CNI error object'),
        ("echo why >&2; exit 1", 106, "ended with exit code 1 without an error on stdout"),
        ("kill -9 $$", 106, "was killed by SIGKILL"),
        ("""echo '{"code":11,"msg":"later"}'; exit 1""", 11, 'plugin "foreign": later'),
        ("""echo '{"code":777,"msg":"no","details":"d"}'; exit 1""", 777, 'plugin "foreign": no'),
    ],
)
def test_foreign_ipam(bench: Bench, body: str, code: int | None, text: str) -> None:
    bench.foreign("foreign", f'if [ "$CNI_COMMAND" = ADD ]; then cat >/dev/null; {body or ":"}; fi')
    error = bench.error("macvlan", conf("macvlan", ipam={"type": "foreign"}))
    assert text in error["msg"]
    if code is not None:
        assert error["code"] == code
    assert bench.is_untouched()


def test_a_foreign_ipam_plugin_that_is_nowhere(bench: Bench) -> None:
    error = bench.error("macvlan", conf("macvlan", ipam={"type": "nowhere"}))
    assert (error["code"], str(bench.home / "bin") in error["msg"]) == (105, True)
    assert bench.is_untouched()


@pytest.mark.parametrize("path", ["../../../bin/true", "/bin/true", ".."])
def test_a_type_that_is_a_path_is_never_executed(bench: Bench, path: str) -> None:
    error = bench.error("macvlan", conf("macvlan", ipam={"type": path}))
    assert (error["code"], 'key "ipam.type"' in error["msg"]) == (7, True)
    assert bench.is_untouched()


def test_sigterm_while_a_foreign_plugin_runs_undoes_the_add(bench: Bench, wait_until: WaitUntil) -> None:
    started = bench.home / "started"
    bench.foreign("foreign", f'[ "$CNI_COMMAND" = ADD ] || exit 0; echo $$ > {started}; exec sleep 600')
    with bench.start("macvlan", bench.env("ADD")) as process:
        assert process.stdin is not None
        process.stdin.write(json.dumps(conf("macvlan", ipam={"type": "foreign"})).encode())
        process.stdin.close()
        process.stdin = None
        wait_until(lambda: started.exists() and started.read_text().strip(), 30.0)
        process.send_signal(signal.SIGTERM)
        stdout, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert json.loads(stdout)["code"] == 11
    assert bench.is_untouched()
    wait_until(lambda: not Path(f"/proc/{started.read_text().strip()}").exists())


def test_a_reader_that_is_gone(bench: Bench) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [str(bench.home / "bin" / "loopback")]
    done = subprocess.run(
        command,
        env={"CNI_COMMAND": "VERSION"},
        stdin=subprocess.DEVNULL,
        stdout=write,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr.decode()) == (1, "write to stdout: Broken pipe\n")


def test_closed_stdout(bench: Bench) -> None:
    command = ["sh", "-c", "exec loopback >&-"]
    env = {"CNI_COMMAND": "VERSION", "PATH": f"{bench.home}/bin:{os.environ['PATH']}"}
    done = subprocess.run(command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, check=False, env=env)
    assert (done.returncode, done.stderr.decode()) == (1, "write to stdout: it is closed\n")


def test_closed_stderr(bench: Bench) -> None:
    command = ["sh", "-c", "exec loopback 2>&-"]
    env = {"CNI_COMMAND": "", "PATH": f"{bench.home}/bin:{os.environ['PATH']}"}
    done = subprocess.run(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, check=False, env=env)
    assert (done.returncode, done.stdout) == (0, b"")


def test_a_bug_is_an_error_object_too(bench: Bench) -> None:
    """The bug is a launcher that passes a list where a name belongs."""
    launcher = (bench.home / "bin" / "static").read_text().replace("main('static')", "main(['static'])")
    (bench.home / "bin" / "static").unlink()
    (bench.home / "bin" / "static").write_text(launcher)
    (bench.home / "bin" / "static").chmod(0o755)
    error = bench.error("static", conf("static", ipam={"type": "static"}))
    assert (error["code"], error["details"]) == (999, "set HOMEPORT_DEBUG=1 for the traceback")
    assert "unexpected TypeError" in error["msg"]
    code, stdout, _ = bench.run("static", conf("static"), bench.env("ADD", HOMEPORT_DEBUG="1"))
    assert (code, "Traceback" in json.loads(stdout)["details"]) == (1, True)
