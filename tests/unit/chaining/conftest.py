"""A machine whose plugins are players of ours; the interface asked for is looked up in this process's namespace."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.unit.chaining.players import OWN, RECORDER, Calls, OurPlugin

from homeport.cni.invocations import Attachment
from homeport.host.kernel import Kernel
from homeport.ports import Plugin, Shells
from homeport.runtime.caching import ResultCache
from homeport.runtime.delegating import PluginDelegates
from homeport.runtime.executing import Executor
from homeport.wiring import build_shells


@pytest.fixture
def calls(tmp_path: Path) -> Calls:
    return Calls(tmp_path / "record")


@pytest.fixture
def ours() -> OurPlugin:
    return OurPlugin()


@pytest.fixture
def stderr() -> list[bytes]:
    return []


@pytest.fixture(scope="module")
def machine() -> Iterator[Shells]:
    shells = build_shells()
    yield shells
    assert isinstance(shells.host, Kernel)
    shells.host.close()


@pytest.fixture
def shells(machine: Shells, tmp_path: Path, ours: OurPlugin, stderr: list[bytes]) -> Shells:
    for name in ("one", "two", "three"):
        plugin = tmp_path / "bin" / name
        plugin.parent.mkdir(exist_ok=True)
        plugin.write_text(f"#!/usr/bin/python3 -IS\n{RECORDER}")
        plugin.chmod(0o755)
    found: dict[str, Plugin] = {"ours": ours}
    environ = {**os.environ, "RECORD": str(tmp_path / "record"), "CNI_IFNAME": "leaked"}
    delegates = PluginDelegates(
        find=found.get,
        shells=lambda: built,
        open_executor=Executor,
        environ=environ,
        timeout_seconds=20,
        on_stderr=stderr.append,
    )
    built = msgspec.structs.replace(machine, delegates=delegates)
    return built


@pytest.fixture
def cache(tmp_path: Path) -> ResultCache:
    return ResultCache(tmp_path / "cache")


@pytest.fixture
def attachment(tmp_path: Path) -> Attachment:
    return Attachment(
        container_id="c1", ifname="eth9", netns_path=OWN, args={"A": "1", "B": "2"}, path=(str(tmp_path / "bin"),)
    )
