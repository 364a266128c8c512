"""The reference plugins and ours, each on a node of its own, given the same configuration.

Types for annotations: `if TYPE_CHECKING: from tests.differential.conftest import Twins`.
"""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.differential.sides import THEIR_PLUGINS, Executables, InProcess, Side
from tests.differential.twins import Twins


@pytest.fixture(scope="session")
def their_bin() -> Path:
    """The reference plugins, which `make test` installs."""
    if not (THEIR_PLUGINS / "bridge").exists():
        pytest.fail(f"no reference plugins in {THEIR_PLUGINS}: install the Debian package containernetworking-plugins")
    return THEIR_PLUGINS


@pytest.fixture(scope="session")
def our_bin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our executables, as `homeport install` writes them."""
    directory = tmp_path_factory.mktemp("bin")
    subprocess.run([sys.executable, "-m", "homeport", "install", "--bin-dir", str(directory)], check=True)
    return directory


@pytest.fixture
def make_side(tmp_path: Path) -> Iterator[Callable[[str, Path, bool], Side]]:
    """Nodes with a pod and an uplink each, removed after the test."""
    sides: list[Side] = []

    def make(kind: str, bin_dir: Path, in_process: bool = False) -> Side:
        data = tmp_path / kind
        data.mkdir()
        factory = InProcess if in_process else Executables
        sides.append(factory(f"hpd-{kind}-{secrets.token_hex(4)}", bin_dir, data))
        return sides[-1]

    yield make
    for side in sides:
        side.remove()


@pytest.fixture
def twins(make_side: Callable[[str, Path, bool], Side], their_bin: Path, our_bin: Path) -> Twins:
    """Theirs, and ours called in-process."""
    return Twins(make_side("t", their_bin, False), make_side("o", our_bin, True))


@pytest.fixture
def executables(make_side: Callable[[str, Path, bool], Side], their_bin: Path, our_bin: Path) -> Twins:
    """Theirs, and ours as executables."""
    return Twins(make_side("t", their_bin, False), make_side("o", our_bin, False))


@pytest.fixture(scope="session")
def has_ipvlan() -> None:
    """Skips where the kernel has none."""
    _require("ip link add v0 type veth; ip link add i0 link v0 type ipvlan", "ipvlan")


@pytest.fixture(scope="session")
def has_bridge_vlans() -> None:
    """Skips where bridges do not keep VLANs apart."""
    _require("ip link add b0 type bridge vlan_filtering 1", "bridge VLAN filtering")


def _require(probe: str, what: str) -> None:
    if subprocess.run(["unshare", "--net", "sh", "-ec", probe], capture_output=True, check=False).returncode:
        pytest.skip(f"kernel lacks {what}")
