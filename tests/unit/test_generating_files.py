"""The runtime's directory, kept right: found, written, healed, and left or removed in the end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from homeport.cni.conflists import ConfList
from homeport.daemon import generating
from homeport.daemon.watching import ConfigManager
from homeport.host.files import LocalFiles
from homeport.runtime import networks

WaitUntil = Callable[..., None]
PRIMARY = {
    "cniVersion": "1.0.0",
    "name": "pods",
    "plugins": [{"type": "calico", "capabilities": {"ips": True}}],
}


class Node:
    """A node's directories and the managers on it."""

    def __init__(self, root: Path, wait_until: WaitUntil) -> None:
        self.directory = root / "net.d"
        self.directory.mkdir()
        self.target = self.directory / "00-multus.conf"
        self.ready = root / "ready"
        self.fatal: list[str] = []
        self._managers: list[ConfigManager] = []
        self._wait_until = wait_until

    def manager(self, *, first_seconds: float = 60, **raw: Any) -> ConfigManager:
        wanted = generating.parse({"multusConfigFile": "auto", "cniConfigDir": str(self.directory), **raw})
        assert wanted is not None
        return ConfigManager(wanted, self.fatal.append, first_seconds=first_seconds, poll_seconds=0.01)

    def start(self, *, first_seconds: float = 60, **raw: Any) -> ConfigManager:
        manager = self.manager(first_seconds=first_seconds, **raw)
        self._managers.append(manager)
        manager.start()
        return manager

    def write(self, name: str, conf: Any) -> Path:
        """As an installer does: the whole file at once."""
        path = self.directory / name
        unfinished = path.with_suffix(".unfinished")
        unfinished.write_text(conf if isinstance(conf, str) else json.dumps(conf))
        unfinished.rename(path)
        return path

    def written(self) -> dict[str, Any]:
        self._wait_until(self.target.exists)
        found: dict[str, Any] = json.loads(self.target.read_text())
        return found

    def stop_all(self) -> None:
        for manager in self._managers:
            manager.stop(remove=False)


@pytest.fixture
def node(tmp_path: Path, wait_until: WaitUntil) -> Iterator[Node]:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())  # nothing on a stdout that changes hands
    made = Node(tmp_path, wait_until)
    yield made
    made.stop_all()
    structlog.reset_defaults()


def test_written_for_the_first_file_in_order(node: Node) -> None:
    node.write("20-b.conf", {"cniVersion": "0.4.0", "name": "b", "type": "b"})
    first = node.write("10-a.conflist", PRIMARY)
    node.write("05-old.conf", {"cniVersion": "0.3.1", "name": "multus-cni-network", "type": "multus"})
    node.start()
    assert node.written()["clusterNetwork"] == str(first)
    assert node.target.stat().st_mode & 0o777 == 0o600
    assert sorted(os.listdir(node.directory)) == ["00-multus.conf", "05-old.conf", "10-a.conflist", "20-b.conf"]


def test_the_runtime_and_the_meta_plugin_can_load_what_was_written(node: Node) -> None:
    """Through the same reader that runs a network: first our file, then the one it leads to, with its directory."""
    node.write("10-a.conflist", {**PRIMARY, "plugins": [{"type": "bridge", "capabilities": {"ips": True}}]})
    chained = node.directory / "pods"
    chained.mkdir()
    (chained / "50-portmap.conf").write_text('{"type":"portmap","capabilities":{"portMappings":true}}')
    node.start()
    written = node.written()
    assert written["capabilities"] == {"ips": True, "portMappings": True}
    ours = networks.load(LocalFiles(), "multus-cni-network", str(node.directory))
    assert [plugin["type"] for plugin in ours.plugins] == ["homeport"]
    led_to: ConfList = networks.load_file(LocalFiles(), ours.plugins[0]["clusterNetwork"])
    assert [plugin["type"] for plugin in led_to.plugins] == ["bridge", "portmap"]


def test_a_named_primary(node: Node) -> None:
    node.write("10-a.conflist", PRIMARY)
    named = node.write("20-b.conf", {"cniVersion": "0.4.0", "name": "b", "type": "b"})
    node.start(multusMasterCNI="20-b.conf", overrideNetworkName=True)
    assert (node.written()["clusterNetwork"], node.written()["name"]) == (str(named), "b")


def test_a_primary_that_comes_late(node: Node, wait_until: WaitUntil) -> None:
    manager = node.start()
    wait_until(lambda: "there is none yet" in manager._told)
    node.write("10-a.conflist", PRIMARY)
    assert node.written()["name"] == "multus-cni-network"
    assert node.fatal == []


def test_a_directory_that_comes_late(node: Node) -> None:
    shutil.rmtree(node.directory)
    node.start()
    node.directory.mkdir()
    node.write("10-a.conflist", PRIMARY)
    assert node.written()


def test_a_broken_primary_is_waited_for_not_passed_over(node: Node, wait_until: WaitUntil) -> None:
    node.write("10-a.conflist", '{"cniVersion"')
    node.write("20-b.conf", {"cniVersion": "0.4.0", "name": "b", "type": "b"})
    manager = node.start()
    wait_until(lambda: "10-a.conflist: decode" in manager._told)
    assert not node.target.exists()
    first = node.write("10-a.conflist", PRIMARY)
    assert node.written()["clusterNetwork"] == str(first)


@pytest.mark.parametrize(
    ("files", "raw", "reason"),
    [
        ({}, {}, "there is none yet"),
        ({"10-a.conflist": "{"}, {}, "10-a.conflist: decode"),
        ({"10-a.conf": {"cniVersion": "0.3.1", "name": "a", "type": "a"}}, {"cniVersion": "1.0.0"}, "found 0.3.1"),
        ({"10-a.conf": {"name": "a", "type": "homeport"}}, {}, "there is none yet"),
        ({"10-a.conf": {"name": "a", "type": "multus"}}, {"multusMasterCNI": "10-a.conf"}, "leads back"),
        ({"10-a.conflist": PRIMARY}, {"multusMasterCNI": "other.conf"}, "no such file"),
        ({"10-a.conflist": PRIMARY}, {"readinessindicatorfile": "/none/ready"}, "not there yet"),
        ({}, {"multusConfigFile": "/none/our.conf"}, "no such file"),
    ],
)
def test_nothing_to_write_for_too_long_is_fatal(
    node: Node, wait_until: WaitUntil, files: dict[str, Any], raw: dict[str, Any], reason: str
) -> None:
    for name, conf in files.items():
        node.write(name, conf)
    node.start(first_seconds=0.05, **raw)
    wait_until(lambda: node.fatal)
    assert len(node.fatal) == 1
    assert node.fatal[0].startswith("no configuration for the runtime after 0.05 s: ")
    assert reason in node.fatal[0]
    assert not node.target.exists()


def test_a_change_of_the_primary_is_followed(node: Node, wait_until: WaitUntil) -> None:
    node.write("10-a.conflist", PRIMARY)
    node.start()
    assert node.written()["capabilities"] == {"ips": True}
    node.write("10-a.conflist", {**PRIMARY, "plugins": [{"type": "calico", "capabilities": {"bandwidth": True}}]})
    wait_until(lambda: node.written()["capabilities"] == {"bandwidth": True})
    node.write("05-other.conflist", PRIMARY)  # the primary stays the one it was
    node.write("10-a.conflist", {**PRIMARY, "cniVersion": "1.1.0"})
    wait_until(lambda: node.written()["cniVersion"] == "1.1.0")
    assert node.written()["clusterNetwork"].endswith("10-a.conflist")


def test_a_primary_that_vanishes_or_breaks_changes_nothing(node: Node, wait_until: WaitUntil) -> None:
    primary = node.write("10-a.conflist", PRIMARY)
    manager = node.start(first_seconds=0.2)
    before = node.written()
    primary.unlink()
    wait_until(lambda: "no such file" in manager._told)
    node.write("10-a.conflist", "{")
    wait_until(lambda: "decode" in manager._told)
    assert node.written() == before
    node.write("10-a.conflist", {**PRIMARY, "cniVersion": "1.1.0"})
    wait_until(lambda: node.written()["cniVersion"] == "1.1.0")
    assert node.fatal == []


def test_it_is_written_only_when_it_differs(node: Node) -> None:
    node.write("10-a.conflist", PRIMARY)
    rounds = [node.manager(), node.manager()]  # the second is another daemon, such as the one that takes over
    rounds[0]._look()
    before = node.target.stat()
    node.write("10-a.conflist", {**PRIMARY, "disableCheck": True})  # nothing that shows in the file
    for manager in rounds:
        manager._look()
    after = node.target.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("harm", ["deleted", "overwritten", "opened to all", "a link"])
def test_harm_is_healed(node: Node, wait_until: WaitUntil, tmp_path: Path, harm: str) -> None:
    node.write("10-a.conflist", PRIMARY)
    node.start()
    good = json.dumps(node.written())
    match harm:
        case "deleted":
            node.target.unlink()
        case "overwritten":
            node.target.write_text("{}")
        case "opened to all":
            node.target.chmod(0o644)
        case "a link":
            elsewhere = tmp_path / "elsewhere"
            elsewhere.write_text("mine")
            node.target.unlink()
            node.target.symlink_to(elsewhere)

    def healed() -> bool:
        if not node.target.exists() or node.target.is_symlink():
            return False
        return json.loads(node.target.read_text()) == json.loads(good) and node.target.stat().st_mode & 0o777 == 0o600

    wait_until(healed)
    if harm == "a link":
        assert (tmp_path / "elsewhere").read_text() == "mine"


def test_what_a_killed_daemon_left_is_cleared(node: Node) -> None:
    (node.directory / ".00-multus.conf.0123abcd").write_text("{")
    node.write("10-a.conflist", PRIMARY)
    node.start()
    node.written()
    assert sorted(os.listdir(node.directory)) == ["00-multus.conf", "10-a.conflist"]


# --- the readiness file ------------------------------------------------------------------------------------------


def test_nothing_is_written_before_the_primary_is_ready(node: Node, wait_until: WaitUntil) -> None:
    node.write("10-a.conflist", PRIMARY)
    node.target.write_text("of an earlier daemon")
    manager = node.start(readinessindicatorfile=str(node.ready))
    wait_until(lambda: not node.target.exists())
    wait_until(lambda: "not there yet" in manager._told)
    node.ready.touch()
    assert node.written()["name"] == "multus-cni-network"


def test_a_readiness_file_that_vanishes_is_fatal(node: Node, wait_until: WaitUntil) -> None:
    node.write("10-a.conflist", PRIMARY)
    node.ready.touch()
    node.start(readinessindicatorfile=str(node.ready))
    node.written()
    node.ready.unlink()
    wait_until(lambda: node.fatal)
    assert node.fatal == [f"the primary plugin's readiness file {node.ready} has vanished: removed {node.target}"]
    assert not node.target.exists()


def test_a_readiness_file_that_cannot_be_seen_has_not_vanished(
    node: Node, tmp_path: Path, wait_until: WaitUntil
) -> None:
    node.write("10-a.conflist", PRIMARY)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/ready").touch()
    node.ready.symlink_to("run")
    manager = node.start(readinessindicatorfile=str(node.ready / "ready"))
    node.written()
    loop = tmp_path / "loop"
    loop.symlink_to(node.ready)
    loop.replace(node.ready)  # a link to itself from now on
    wait_until(lambda: "Too many levels" in manager._told)
    assert node.fatal == []
    assert node.target.exists()


# --- a file that is given ----------------------------------------------------------------------------------------


def test_a_given_file_is_copied_under_its_own_name(node: Node, tmp_path: Path, wait_until: WaitUntil) -> None:
    given = tmp_path / "05-our.conf"
    text = '{ "cniVersion": "1.0.0", "name": "n", "type": "homeport" }\n'
    given.write_text(text)
    node.start(multusConfigFile=str(given))
    copy = node.directory / "05-our.conf"
    wait_until(copy.exists)
    assert copy.read_text() == text
    assert copy.stat().st_mode & 0o777 == 0o600
    given.write_text(text.replace("1.0.0", "1.1.0"))
    wait_until(lambda: "1.1.0" in copy.read_text())
    assert os.listdir(node.directory) == ["05-our.conf"]


def test_a_given_file_that_is_there_already_is_left_alone(node: Node, wait_until: WaitUntil) -> None:
    given = node.write("05-our.conf", {"cniVersion": "1.0.0", "name": "n", "type": "homeport"})
    given.chmod(0o640)
    before = given.stat()
    manager = node.start(multusConfigFile=str(given))
    wait_until(lambda: manager._contents is not None)
    assert (given.stat().st_ino, given.stat().st_mode) == (before.st_ino, before.st_mode)


def test_a_given_file_that_is_no_configuration(node: Node, tmp_path: Path, wait_until: WaitUntil) -> None:
    (tmp_path / "x.conf").write_text("{}")
    node.start(first_seconds=0.05, multusConfigFile=str(tmp_path / "x.conf"))
    wait_until(lambda: node.fatal)
    assert os.listdir(node.directory) == []


# --- the end -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("remove", [True, False])
def test_stopping(node: Node, remove: bool) -> None:
    node.write("10-a.conflist", PRIMARY)
    manager = node.start()
    node.written()
    manager.stop(remove=remove)
    manager.stop(remove=remove)
    assert node.target.exists() is not remove


def test_what_another_daemon_has_written_since_stays(node: Node) -> None:
    node.write("10-a.conflist", PRIMARY)
    manager = node.start()
    node.written()
    manager.stop(remove=False)
    node.target.write_text("the successor's")
    manager.stop(remove=True)
    assert node.target.read_text() == "the successor's"


def test_a_manager_that_never_wrote_removes_nothing(node: Node) -> None:
    node.target.write_text("of an earlier daemon")
    manager = node.start()
    manager.stop(remove=True)
    assert node.target.exists()


def test_a_handover_leaves_the_file_in_place_throughout(node: Node, wait_until: WaitUntil) -> None:
    """The old daemon stops as it would on a node that takes the file away; its successor puts it back."""
    node.write("10-a.conflist", PRIMARY)
    old = node.start()
    node.written()
    node.start()
    old.stop(remove=True)
    assert node.written()["name"] == "multus-cni-network"


@pytest.mark.root
def test_a_directory_that_takes_no_file(node: Node, tmp_path: Path, wait_until: WaitUntil) -> None:
    node.write("10-a.conflist", PRIMARY)
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k,nr_inodes=2", "tmpfs", str(place)], check=True)
    try:
        (place / "filler").write_bytes(b"x" * 4096)
        manager = node.start(cniConfigDir=str(place), multusAutoconfigDir=str(node.directory))
        wait_until(lambda: "No space left on device" in manager._told)
        assert os.listdir(place) == ["filler"]
        (place / "filler").unlink()
        wait_until((place / "00-multus.conf").exists)
        manager.stop(remove=False)
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
