"""Containers on a bridge of the test's node.

Types for annotations: `if TYPE_CHECKING: from tests.netns.bridge.conftest import Attach, Attaching`.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from homeport.cni import netconfs
from homeport.cni.invocations import Attachment
from homeport.host.kernel import Kernel
from homeport.model.results import Result
from homeport.plugins import bridge
from homeport.ports import Shells
from homeport.wiring import build_shells

if TYPE_CHECKING:
    from tests.netns.conftest import MakeNetns, Node

# An IPAM plugin as a stranger would write it, which notes every call.
IPAM = """#!/bin/sh
cat > /dev/null
echo "$CNI_COMMAND" >> {log}
[ "$CNI_COMMAND" != ADD ] || echo '{{"cniVersion":"1.0.0","ips":[{{"address":"10.1.2.3/24"}}]}}'
"""


class Attaching:
    """One container of one network on the test's node, and the verbs on it."""

    def __init__(self, shells: Shells, netns: str, path: Path, keys: Mapping[str, Any], container: str = "c1") -> None:
        self.shells, self.netns = shells, netns
        self.conf = netconfs.parse({"cniVersion": "1.1.0", "name": "net", "type": "bridge", **keys})
        self.attachment = Attachment(container_id=container, ifname="eth0", netns_path=netns, path=(str(path),))

    def add(self) -> Result:
        return bridge.add(self.conf, self.attachment, self.shells)

    def check(self, made: Result) -> None:
        bridge.check(netconfs.with_prev_result(self.conf, made), self.attachment, self.shells)

    def gc(self, *valid: Attaching) -> None:
        kept = [{"containerID": it.attachment.container_id, "ifname": it.attachment.ifname} for it in valid]
        conf = netconfs.parse({**self.conf.raw, "cni.dev/valid-attachments": kept})
        bridge.gc(conf, Attachment(container_id="", ifname="", path=self.attachment.path), self.shells)

    def status(self) -> None:
        bridge.status(self.conf, Attachment(container_id="", ifname="", path=self.attachment.path), self.shells)

    def delete(self, netns: str | None = "same") -> None:
        path = self.netns if netns == "same" else netns
        bridge.delete(self.conf, msgspec.structs.replace(self.attachment, netns_path=path), self.shells)


class Attach:
    """Makes containers on the node: `attach(conf keys)` is a fresh namespace each time."""

    def __init__(self, shells: Shells, make_netns: MakeNetns, path: Path) -> None:
        self.shells, self.make_netns, self.path = shells, make_netns, path
        self.count = 0

    def __call__(self, **keys: Any) -> Attaching:
        self.count += 1
        return Attaching(self.shells, self.make_netns("pod"), self.path, keys, f"c{self.count}")


@pytest.fixture
def attach(node: Node, netns: MakeNetns, tmp_path: Path) -> Iterator[Attach]:
    shells = build_shells(netns=node.netns, store=str(tmp_path / "store.db"))
    yield Attach(shells, netns, tmp_path)
    assert isinstance(shells.host, Kernel)
    shells.host.close()


@pytest.fixture
def ipam_calls(tmp_path: Path) -> Callable[[], list[str]]:
    """Puts the IPAM plugin `noting` into CNI_PATH; the function tells what it was called for."""
    log, script = tmp_path / "calls", tmp_path / "noting"
    script.write_text(IPAM.format(log=log))
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return lambda: log.read_text().split() if log.exists() else []
