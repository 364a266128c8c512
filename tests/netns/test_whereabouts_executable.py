"""The whereabouts plugin as the executable a foreign plugin runs: environment and stdin in, JSON and a code out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from homeport.cni.versions import SUPPORTED_VERSIONS

if TYPE_CHECKING:
    from tests.netns.conftest import MakeNetns

pytestmark = pytest.mark.root

Call = Callable[..., tuple[int, Any]]


@pytest.fixture(scope="module")
def bin_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("bin")
    subprocess.run([sys.executable, "-m", "homeport", "install", "--bin-dir", str(directory)], check=True)
    return directory


@pytest.fixture
def call(bin_dir: Path, tmp_path: Path, netns: MakeNetns) -> Call:
    """`call(verb, ipam, version=..., container=..., ifname=..., netns=..., args=..., **keys)`: (exit code, output)."""
    pod = netns("pod")

    def run(
        verb: str,
        ipam: Mapping[str, Any],
        *,
        version: str = "1.1.0",
        container: str = "c1",
        ifname: str = "net1",
        netns: str | None = pod,
        args: str = "",
        **keys: Any,
    ) -> tuple[int, Any]:
        whole = {"type": "whereabouts", "store": str(tmp_path / "allocations.db"), **ipam}
        conf = {"cniVersion": version, "name": "multustest", "type": "ipvlan", "ipam": whole, **keys}
        environment = {
            "PATH": os.environ["PATH"],
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": container,
            "CNI_IFNAME": ifname,
            "CNI_NETNS": netns or "",
            "CNI_PATH": str(bin_dir),
            "CNI_ARGS": args,
        }
        done = subprocess.run(
            [bin_dir / "whereabouts"],
            input=json.dumps(conf),
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, json.loads(done.stdout) if done.stdout else None

    return run


GUIDE = {
    "range": "10.93.96.0/20",
    "range_start": "10.93.97.12",
    "range_end": "10.93.97.13",
    "log_level": "error",
}


@pytest.mark.parametrize("version", SUPPORTED_VERSIONS)
def test_the_guides_section_in_every_version(call: Call, version: str) -> None:
    code, result = call("ADD", GUIDE, version=version)
    assert code == 0
    ip = result["ip4"]["ip"] if "ip4" in result else result["ips"][0]["address"]
    assert (ip, result["cniVersion"]) == ("10.93.97.12/20", version)
    assert call("ADD", GUIDE, version=version) == (0, result)
    if version >= "0.4.0":
        assert call("CHECK", GUIDE, version=version, prevResult=result) == (0, None)
    for netns in (None, "/run/netns/gone"):
        assert call("DEL", GUIDE, version=version, netns=netns) == (0, None)
    if version >= "0.4.0":
        code, error = call("CHECK", GUIDE, version=version, prevResult=result)
        assert (code, error["code"]) == (1, 102)


def test_the_pool_runs_out_and_del_makes_room(call: Call) -> None:
    found = [call("ADD", GUIDE, container=f"c{n}") for n in range(3)]
    assert [code for code, _ in found] == [0, 0, 1]
    assert found[2][1] == {
        "cniVersion": "1.1.0",
        "code": 100,
        "msg": "allocate from 10.93.96.0/20 (10.93.97.12-10.93.97.13): all 2 addresses are taken",
    }
    assert call("DEL", GUIDE, container="c0") == (0, None)
    assert call("ADD", GUIDE, container="c2")[1]["ips"] == [{"address": "10.93.97.12/20"}]


def test_gc_and_status(call: Call) -> None:
    for container in ("c1", "c2"):
        call("ADD", GUIDE, container=container)
    valid = {"cni.dev/valid-attachments": [{"containerID": "c2", "ifname": "net1"}]}
    assert call("GC", GUIDE, **valid) == (0, None)
    assert call("ADD", GUIDE, container="c3")[1]["ips"] == [{"address": "10.93.97.12/20"}]
    code, error = call("GC", GUIDE)
    assert (code, error["code"]) == (1, 7)
    assert call("STATUS", GUIDE) == (0, None)
    code, error = call("STATUS", {**GUIDE, "store": "/proc/nowhere/allocations.db"})
    assert (code, error["code"]) == (1, 50)


@pytest.mark.parametrize(
    ("ipam", "code", "text"),
    [
        ({"range": "10.0.0.0/24", "exclude": ["10.0.0.300"]}, 7, 'key "ipam.exclude[0]": found "10.0.0.300"'),
        ({"range": "10.0.0.0/24", "range_end": "10.0.1.9"}, 7, 'key "ipam.range_end": found "10.0.1.9"'),
        ({"range": "10.0.0.0/24", "sticky": {"replicas": {"ns/web": ["10.9.9.9"]}}}, 7, "found 10.9.9.9, expected"),
        ({"range": "10.0.0.0/24", "store": "here.db"}, 7, 'key "ipam.store": found "here.db"'),
        ({"range": "10.0.0.0/24", "store": "/dev/null/allocations.db"}, 5, "Not a directory"),
        ({"range": "10.0.0.0/24", "store": "/dev/null"}, 5, "/dev/null"),
    ],
)
def test_a_mistake_is_an_error_of_its_own_code(call: Call, ipam: Mapping[str, Any], code: int, text: str) -> None:
    status, error = call("ADD", ipam)
    assert (status, error["code"]) == (1, code)
    assert text in error["msg"]


def test_a_del_on_an_unreachable_store_is_not_a_success(call: Call) -> None:
    status, error = call("DEL", {**GUIDE, "store": "/proc/nowhere/allocations.db"})
    assert (status, error["code"]) == (1, 5)
