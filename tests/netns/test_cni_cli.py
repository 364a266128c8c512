"""`homeport cni` and `homeport install` as a person runs them, on a host of the test's own."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.netns.conftest import IpJson, MakeNetns

pytestmark = pytest.mark.root

DEBIAN_PLUGINS = "/usr/lib/cni"
HOMEPORT = (sys.executable, "-m", "homeport")


@dataclass(frozen=True)
class Bench:
    """A host with a container, and Homeport's files in a directory of the test's own."""

    host: str
    container: str
    home: Path

    def __call__(self, *args: str, code: int = 0, env: dict[str, str] | None = None) -> str:
        """Runs `homeport ARGS` on the host; stdout, or stderr where it is to fail with `code`."""
        environ = {"PATH": os.environ["PATH"], "HOMEPORT_STORE": str(self.home / "store.db"), **(env or {})}
        command = ["nsenter", f"--net={self.host}", "--", *HOMEPORT, *args]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environ)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr if code else done.stdout

    def cni(self, verb: str, *args: str, code: int = 0, env: dict[str, str] | None = None) -> str:
        places = [f"--conf-dir={self.home}/net.d"]
        if verb not in ("status", "version"):
            places.append(f"--cache-dir={self.home}")
        return self("cni", verb, *args, *places, code=code, env=env)

    def configure(self, file: str, **conf: Any) -> Path:
        path = self.home / "net.d" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(conf))
        return path

    def bridged(self, *more: dict[str, Any], version: str = "1.1.0", dual: bool = False) -> None:
        """Network `lan`: a bridge, host-local and `more`. `dual` adds IPv6, whose duplicate detection takes time."""
        ipam = {
            "type": "host-local",
            "dataDir": str(self.home / "networks"),
            "ranges": [[{"subnet": "10.77.0.0/24"}], *([[{"subnet": "fd77::/64"}]] if dual else [])],
            "routes": [{"dst": "0.0.0.0/0"}],
        }
        bridge = {"type": "bridge", "bridge": "br0", "isGateway": True, "ipam": ipam, "dns": {"domain": "lab"}}
        self.configure("10-lan.conflist", cniVersion=version, name="lan", plugins=[bridge, *more])

    @property
    def allocated(self) -> list[str]:
        folder = self.home / "networks" / "lan"
        return sorted(p.name for p in folder.glob("*") if p.name[0] in "1f")


@pytest.fixture
def bench(netns: MakeNetns, tmp_path: Path) -> Bench:
    return Bench(host=netns("host"), container=netns("box"), home=tmp_path)


def interface(ip_json: IpJson, netns: str, name: str = "eth0") -> dict[str, Any] | None:
    return next((link for link in ip_json(netns, "address", "show") if link["ifname"] == name), None)


def test_add_check_del(bench: Bench, ip_json: IpJson) -> None:
    bench.bridged(dual=True)
    table = bench.cni("add", "lan", bench.container)
    link = interface(ip_json, bench.container)
    assert link is not None
    header, *rows = table.split("\n\n")[0].splitlines()
    assert header.split() == ["INTERFACE", "NETNS", "MAC", "ADDRESS", "GATEWAY"]
    assert rows[-2].split() == ["eth0", bench.container, link["address"], "10.77.0.2/24", "10.77.0.1"]
    assert rows[-1].split() == ["eth0", bench.container, link["address"], "fd77::2/64", "fd77::1"]
    assert table.split("\n\n")[1].splitlines()[1].split() == ["0.0.0.0/0", "<none>", "main"]
    assert "lab" in table.split("\n\n")[2]
    assert bench.allocated == ["10.77.0.2", "fd77::2"]

    assert bench.cni("check", "lan", bench.container).split()[-2:] == ["as", "added"]
    assert bench.cni("del", "lan", bench.container).split()[-1] == "detached"
    assert interface(ip_json, bench.container) is None
    assert bench.allocated == []
    assert os.listdir(bench.home / "results") == []
    bench.cni("del", "lan", bench.container)


def test_json_is_the_result_in_the_network_s_version(bench: Bench, ip_json: IpJson) -> None:
    bench.bridged(version="0.4.0", dual=True)
    result = json.loads(bench.cni("add", "lan", bench.container, "-o", "json"))
    assert result["cniVersion"] == "0.4.0"
    assert [ip["version"] for ip in result["ips"]] == ["4", "6"]
    outcome = json.loads(bench.cni("del", "lan", bench.container, "-o", "json"))
    container_id = "cnitool-" + hashlib.sha512(bench.container.encode()).hexdigest()[:20]
    assert outcome == {"network": "lan", "containerId": container_id, "ifname": "eth0", "status": "detached"}


def test_yaml(bench: Bench) -> None:
    bench.configure("lo.conf", cniVersion="1.0.0", name="lo", type="loopback")
    text = bench.cni("add", "lo", bench.container, "--ifname=lo", "-o", "yaml")
    assert text.startswith("cniVersion: 1.0.0\ninterfaces:\n")


def test_a_name_of_ip_netns_is_its_path(bench: Bench, ip_json: IpJson) -> None:
    bench.bridged()
    bench.cni("add", "lan", os.path.basename(bench.container))
    assert interface(ip_json, bench.container) is not None
    bench.cni("del", "lan", bench.container)
    assert interface(ip_json, bench.container) is None


def test_check_finds_drift(bench: Bench) -> None:
    bench.bridged()
    bench.cni("add", "lan", bench.container)
    lost = ["nsenter", f"--net={bench.container}", "ip", "address", "delete", "10.77.0.2/24", "dev", "eth0"]
    subprocess.run(lost, check=True)
    assert "10.77.0.2" in bench.cni("check", "lan", bench.container, code=1)


def test_a_second_add_fails_and_harms_nothing(bench: Bench, ip_json: IpJson) -> None:
    bench.bridged()
    bench.cni("add", "lan", bench.container)
    before = interface(ip_json, bench.container)
    bench.cni("add", "lan", bench.container, code=1)
    assert interface(ip_json, bench.container) == before
    bench.cni("check", "lan", bench.container)


def test_a_failing_plugin_leaves_nothing(bench: Bench, ip_json: IpJson) -> None:
    bench.bridged({"type": "no-such-plugin"})
    error = bench.cni("add", "lan", bench.container, code=1)
    assert 'homeport: plugin "no-such-plugin": not built in, and no executable of this name in /opt/cni/bin' in error
    assert interface(ip_json, bench.container) is None
    assert not [link for link in ip_json(bench.host, "link", "show") if link["ifname"].startswith("veth")]
    assert bench.allocated == []
    assert os.listdir(bench.home) == ["net.d", "networks"] or not (bench.home / "results").exists()


def test_ours_and_debians_plugins_in_one_chain(bench: Bench, ip_json: IpJson) -> None:
    bench.bridged({"type": "sbr"}, version="1.0.0")
    theirs = ["--exec=bridge", "--exec=host-local", f"--bin-dir={DEBIAN_PLUGINS}"]
    result = json.loads(bench.cni("add", "lan", bench.container, *theirs, "-o", "json"))
    assert [ip["address"] for ip in result["ips"]] == ["10.77.0.2/24"]
    rules = ip_json(bench.container, "rule", "show")
    assert "10.77.0.2" in [rule["src"] for rule in rules], "our sbr saw the Go bridge's result"
    bench.cni("check", "lan", bench.container)
    bench.cni("del", "lan", bench.container)
    assert interface(ip_json, bench.container) is None, "ours took down what theirs had put up"
    assert bench.allocated == []


def test_installed_executables_do_what_calls_do(bench: Bench, ip_json: IpJson) -> None:
    bench.bridged({"type": "sbr"})
    bench("install", f"--bin-dir={bench.home}/bin")
    called = json.loads(bench.cni("add", "lan", bench.container, "-o", "json"))
    rules = ip_json(bench.container, "rule", "show")
    bench.cni("del", "lan", bench.container)
    for counter in (bench.home / "networks" / "lan").glob("last_reserved*"):
        counter.unlink()
    ours = ["--exec=bridge", "--exec=sbr", "--exec=host-local", f"--bin-dir={bench.home}/bin"]
    executed = json.loads(bench.cni("add", "lan", bench.container, *ours, "-o", "json"))
    assert [i["name"] for i in executed["interfaces"]] == [i["name"] for i in called["interfaces"]]
    assert (executed["ips"], executed["routes"]) == (called["ips"], called["routes"])
    assert ip_json(bench.container, "rule", "show") == rules
    bench.cni("check", "lan", bench.container, *ours)
    bench.cni("status", "lan", *ours)
    bench.cni("gc", "lan", "--none", *ours)
    assert interface(ip_json, bench.container) is None
    assert bench.allocated == []


def test_del_knows_what_the_attachment_was_made_with(bench: Bench) -> None:
    log = bench.home / "log"
    plugin = bench.home / "bin" / "noter"
    plugin.parent.mkdir()
    plugin.write_text(f'#!/bin/sh\necho "$CNI_COMMAND $CNI_ARGS $(cat)" >> {log}\necho "{{}}"\n')
    plugin.chmod(0o755)
    bench.configure("n.conf", cniVersion="1.0.0", name="n", type="noter", capabilities={"ips": True})
    args = ["--arg=A=1", "--arg=B=2", '--capability-args={"ips":["10.0.0.9/24"]}', f"--bin-dir={plugin.parent}"]
    bench.cni("add", "n", bench.container, *args)
    bench.cni("del", "n", bench.container, f"--bin-dir={plugin.parent}")
    added, deleted = log.read_text().splitlines()
    assert added.startswith("ADD A=1;B=2 ")
    assert deleted.startswith("DEL A=1;B=2 ")
    assert '"runtimeConfig":{"ips":["10.0.0.9/24"]}' in deleted


@pytest.mark.parametrize(
    ("choice", "stays"), [("--live", True), ("--none", False), ("--valid=c1/eth0", True), ("--valid=other/eth0", False)]
)
def test_gc_keeps_what_it_is_told_to(bench: Bench, ip_json: IpJson, choice: str, stays: bool) -> None:
    bench.bridged()
    bench.cni("add", "lan", bench.container, "--container-id=c1")
    bench.cni("gc", "lan", choice)
    assert (interface(ip_json, bench.container) is not None) is stays
    assert bool(bench.allocated) is stays


def test_gc_collects_what_a_vanished_namespace_held(bench: Bench, netns: MakeNetns) -> None:
    bench.bridged()
    gone = netns("gone")
    bench.cni("add", "lan", bench.container)
    bench.cni("add", "lan", gone)
    subprocess.run(["ip", "netns", "delete", os.path.basename(gone)], check=True)
    bench.cni("gc", "lan", "--live")
    assert bench.allocated == ["10.77.0.2"]


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_add_is_undone(
    bench: Bench, ip_json: IpJson, wait_until: Callable[..., None], sent: signal.Signals, code: int
) -> None:
    started = bench.home / "started"
    plugin = bench.home / "bin" / "slow"
    plugin.parent.mkdir()
    plugin.write_text(f'#!/bin/sh\n[ "$CNI_COMMAND" = ADD ] || exit 0\necho $$ > {started}\nexec sleep 600\n')
    plugin.chmod(0o755)
    bench.bridged({"type": "slow"})
    command = ["nsenter", f"--net={bench.host}", "--", *HOMEPORT, "cni", "add", "lan", bench.container]
    places = [f"--conf-dir={bench.home}/net.d", f"--cache-dir={bench.home}", f"--bin-dir={plugin.parent}"]
    with subprocess.Popen([*command, *places], stderr=subprocess.PIPE) as process:
        wait_until(lambda: started.exists() and started.read_text().strip(), 30.0)
        assert interface(ip_json, bench.container) is not None
        process.send_signal(sent)
        _, stderr = process.communicate(timeout=30)
    assert (process.returncode, stderr) == (code, b"")
    assert interface(ip_json, bench.container) is None
    assert bench.allocated == []


def test_networks_are_found_as_runtimes_find_them(bench: Bench) -> None:
    bench.configure("20-later.conf", cniVersion="1.0.0", name="same", type="loopback")
    bench.configure("10-first.conf", cniVersion="0.4.0", name="same", type="loopback")
    (bench.home / "net.d" / "05-broken.conflist").write_text("{")
    assert json.loads(bench.cni("version", "same", "-o", "json"))["cniVersion"] == "0.4.0"
    bench.configure("30-list.conflist", cniVersion="1.1.0", name="same", plugins=[{"type": "sbr"}])
    assert json.loads(bench.cni("version", "same", "-o", "json"))["cniVersion"] == "1.1.0", "lists come first"
    error = bench.cni("version", "nowhere", code=1)
    assert 'find network "nowhere": found no such name' in error
    assert "05-broken.conflist: decode network configuration: not JSON" in error


def test_a_configuration_directory_that_is_not_there(bench: Bench) -> None:
    assert f'find network "lan": no directory {bench.home}/net.d' in bench.cni("status", "lan", code=1)


def test_plugins_of_a_lists_directory(bench: Bench) -> None:
    bench.configure("lan.conflist", cniVersion="1.1.0", name="lan")
    assert 'network "lan": found no plugin' in bench.cni("version", "lan", code=1)
    bench.configure("lan/20-sbr.conf", type="sbr")
    bench.configure("lan/10-bridge.conf", type="bridge")
    bench.configure("lan/ignored.json", type="static")
    plugins = json.loads(bench.cni("version", "lan", "-o", "json"))["plugins"]
    assert [plugin["type"] for plugin in plugins] == ["bridge", "sbr"]
    assert {plugin["source"] for plugin in plugins} == {"built in"}


def test_a_path_is_a_network_too(bench: Bench) -> None:
    path = bench.configure("lo.conf", cniVersion="1.1.0", name="lo", type="loopback")
    assert bench.cni("status", str(path)).split() == ["NETWORK", "STATUS", "lo", "ready"]
    assert "no such file" in bench.cni("status", str(path) + "x", code=1)


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["add", "lan", "box", "--arg=nonsense"], '--arg "nonsense": expected KEY=VALUE'),
        (["add", "lan", "box", "--arg=A=1;B=2"], 'expected KEY=VALUE without ";"'),
        (["add", "lan", "box", "--capability-args=[]"], "--capability-args: found []"),
        (["add", "lan"], "Missing argument"),
        (["add", "lan", "box", "--timeout=0"], "--timeout"),
        (["gc", "lan"], "--valid CONTAINER_ID/IFNAME, --live, or --none"),
        (["gc", "lan", "--none", "--live"], "--valid CONTAINER_ID/IFNAME, --live, or --none"),
        (["gc", "lan", "--valid=c1"], '--valid "c1": expected CONTAINER_ID/IFNAME'),
        (["fly", "lan"], "No such command"),
    ],
)
def test_usage_errors_exit_2(bench: Bench, args: list[str], text: str) -> None:
    bench.configure("lan.conf", cniVersion="1.1.0", name="lan", type="loopback")
    verb, *rest = args
    assert text in bench.cni(verb, *rest, code=2)


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["--ifname=a/b"], 'CNI_IFNAME: found "a/b"'),
        (["--container-id=../x"], 'CNI_CONTAINERID: found "../x"'),
        (["--ifname=\udcff"], "CNI_IFNAME: found '\\udcff', expected UTF-8"),
        (["--arg=A=\udcff"], "CNI_ARGS: found 'A=\\udcff', expected UTF-8"),
    ],
)
def test_names_that_cannot_be_are_refused(bench: Bench, args: list[str], text: str) -> None:
    bench.bridged()
    assert text in bench.cni("add", "lan", bench.container, *args, code=1)
    assert not (bench.home / "results").exists()


def test_a_namespace_that_is_not_there(bench: Bench) -> None:
    bench.bridged()
    assert "/run/netns/no-such" in bench.cni("add", "lan", "no-such", code=1)
    bench.cni("del", "lan", "no-such")
    assert bench.allocated == []


def test_completion_knows_networks_and_namespaces(bench: Bench) -> None:
    bench.bridged()

    def complete(words: str) -> list[str]:
        env = {
            "_HOMEPORT_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split(" ")) - 1),
            "NETCONFPATH": str(bench.home / "net.d"),
        }
        # Completion answers to the program's own name, so the console script is what is asked.
        script = str(Path(sys.executable).parent / "homeport")
        done = subprocess.run([script], capture_output=True, text=True, check=True, env={**os.environ, **env})
        return done.stdout.split()

    assert complete("homeport cni add l") == ["lan"]
    assert os.path.basename(bench.container) in complete("homeport cni add lan hp-")


def test_install_is_idempotent_and_careful(bench: Bench) -> None:
    folder = bench.home / "bin"

    def install(*args: str, code: int = 0) -> str:
        return bench("install", f"--bin-dir={folder}", *args, code=code)

    assert {row.split()[-1] for row in install().splitlines()[1:]} == {"created"}
    assert {p.name for p in folder.iterdir()} >= {"bridge", "ipvlan", "macvlan", "sbr", "whereabouts"}
    assert all(p.stat().st_mode & 0o777 == 0o755 for p in folder.iterdir())
    before = {p.name: p.stat().st_ino for p in folder.iterdir()}
    assert {entry["action"] for entry in json.loads(install("-o", "json"))} == {"unchanged"}
    assert {p.name: p.stat().st_ino for p in folder.iterdir()} == before

    (folder / "sbr").write_text("#!/bin/sh\n# somebody else's\n")
    (folder / "macvlan").unlink()
    assert f"found files that are not Homeport's: {folder}/sbr" in install(code=1)
    assert not (folder / "macvlan").exists(), "a refusal changes nothing"
    install("--plugin=macvlan")
    assert (folder / "macvlan").exists()
    assert [e["action"] for e in json.loads(install("--plugin=sbr", "--force", "-o", "json"))] == ["replaced"]
    (folder / "bridge").chmod(0o644)
    assert [e["action"] for e in json.loads(install("--plugin=bridge", "-o", "json"))] == ["updated"]


def test_install_does_not_write_through_a_link(bench: Bench) -> None:
    target = bench.home / "precious"
    target.write_text("kept")
    (bench.home / "bin").mkdir()
    (bench.home / "bin" / "sbr").symlink_to(target)
    bench("install", f"--bin-dir={bench.home}/bin", "--plugin=sbr", code=1)
    bench("install", f"--bin-dir={bench.home}/bin", "--plugin=sbr", "--force")
    assert target.read_text() == "kept"
    assert not (bench.home / "bin" / "sbr").is_symlink()


def test_install_says_what_is_wrong(bench: Bench) -> None:
    assert '"nope" is not a plugin of Homeport' in bench("install", "--plugin=nope", code=2)
    (bench.home / "file").write_text("")
    assert "Not a directory" in bench("install", f"--bin-dir={bench.home}/file/bin", code=1)
