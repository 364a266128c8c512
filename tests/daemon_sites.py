"""A directory with a foreign plugin, on which real daemons are started."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from pathlib import Path
from typing import Any

from tests.daemons import DaemonProcess, call_of, send

from homeport.daemon.calls import Call

# A foreign plugin that takes as long as the test wants: it waits for a file, and notes that it was called.
PLUGIN = """#!/bin/sh
cat > /dev/null
echo "$CNI_COMMAND $CNI_CONTAINERID" >> {base}/calls
[ "$CNI_COMMAND" = DEL ] && [ -e {base}/refuse ] && {{ echo '{{"code": 5, "msg": "not now"}}'; exit 1; }}
while [ -e {base}/hold ]; do sleep 0.02; done
[ "$CNI_COMMAND" = ADD ] && echo '{{"cniVersion": "1.0.0"}}'
exit 0
"""


class Site:
    """A directory with a foreign plugin `slow`, and daemons that share its state."""

    def __init__(self, base: Path) -> None:
        self.base = base
        plugin = base / "bin" / "slow"
        plugin.parent.mkdir()
        plugin.write_text(PLUGIN.format(base=base))
        plugin.chmod(0o755)
        self.daemons: list[DaemonProcess] = []
        self.netns = f"hp-daemon-{os.getpid()}-{secrets.token_hex(4)}"
        subprocess.run(["ip", "netns", "add", self.netns], check=True)

    def close(self) -> None:
        (self.base / "hold").unlink(missing_ok=True)
        for daemon in self.daemons:
            daemon.end()
        subprocess.run(["ip", "netns", "delete", self.netns], check=True)

    def attach(self, daemon: DaemonProcess, *containers: str) -> None:
        """So that a DEL has something to do; `calls` begins anew."""
        for container in containers or ("c1",):
            assert send(daemon.socket, self.call("ADD", container)).exit_code == 0
        (self.base / "calls").unlink()

    def daemon(self, **config: Any) -> DaemonProcess:
        made = DaemonProcess(self.base, **config)
        self.daemons.append(made)
        return made

    def call(self, command: str, container: str = "c1") -> Call:
        """For the meta-plugin, with `slow` as its only delegate."""
        conf = {
            "cniVersion": "1.0.0",
            "name": "n",
            "type": "homeport",
            "binDir": str(self.base / "bin"),
            "delegates": [{"cniVersion": "1.0.0", "name": "slow", "type": "slow"}],
        }
        return call_of(command, container, stdin=json.dumps(conf).encode(), NETNS=f"/run/netns/{self.netns}")

    def hold(self) -> None:
        (self.base / "hold").touch()

    def release(self) -> None:
        (self.base / "hold").unlink()

    def refuse(self, *, now: bool) -> None:
        """Whether the plugin's DEL fails."""
        if now:
            (self.base / "refuse").touch()
        else:
            (self.base / "refuse").unlink()

    def calls(self) -> list[str]:
        path = self.base / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def journalled(self) -> list[str]:
        return sorted(os.listdir(self.base / "state" / "journal"))
