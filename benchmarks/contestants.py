"""Who is measured: each attaches a pod to macvlan + host-local + sbr, and detaches it, in a way of its own.

Same kernel work, same files, each its own directory of addresses. `Executables` is one driver for ours and for the Go
plugins: it does what a runtime does, a process a plugin, with the result handed on.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from benchmarks.stage import IFNAME, UPLINK, Pod

from homeport.cni import conflists
from homeport.cni.invocations import Attachment
from homeport.runtime import chaining
from homeport.runtime.caching import ResultCache
from homeport.wiring import build_shells

CNI_VERSION = "1.0.0"
NETWORK = "bench"


class Contestant(Protocol):
    """Both verbs leave nothing behind together: ADD, then DEL, as often as one likes."""

    name: str

    def add(self, pod: Pod) -> None: ...
    def delete(self, pod: Pod) -> None: ...


def network(data_dir: Path) -> dict[str, Any]:
    """The configuration list; `data_dir` is host-local's."""
    ranges = [[{"subnet": "10.99.0.0/16", "rangeStart": "10.99.1.0", "gateway": "10.99.0.1"}]]
    ipam = {"type": "host-local", "dataDir": str(data_dir), "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}]}
    macvlan = {"type": "macvlan", "master": UPLINK, "mode": "bridge", "ipam": ipam}
    return {"cniVersion": CNI_VERSION, "name": NETWORK, "plugins": [macvlan, {"type": "sbr"}]}


class InProcess:
    """Homeport as a library: a chain in one process, as the lab runs it, libcni's result cache included."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self._list = conflists.parse(json.dumps(network(folder / "addresses")).encode())
        self._shells = build_shells()
        self._cache = ResultCache(folder / "cache")

    def add(self, pod: Pod) -> None:
        chaining.add(self._list, self._attachment(pod), self._shells, cache=self._cache)

    def delete(self, pod: Pod) -> None:
        chaining.delete(self._list, self._attachment(pod), self._shells, cache=self._cache)

    @staticmethod
    def _attachment(pod: Pod) -> Attachment:
        return Attachment(container_id=pod.container_id, ifname=IFNAME, netns_path=pod.netns_path)


class Executables:
    """Plugins of one directory, executed; ADD in order, DEL in reverse with the last result, as libcni does.

    `processes` are started for an ADD, those of an IPAM plugin included.
    """

    def __init__(self, name: str, folder: Path, bin_dir: Path, *, processes: int) -> None:
        self.name = name
        self.processes = processes
        self._bin_dir = bin_dir
        whole = network(folder / "addresses")
        self._plugins = [{**p, "name": whole["name"], "cniVersion": whole["cniVersion"]} for p in whole["plugins"]]
        self._results: dict[Pod, Any] = {}

    def add(self, pod: Pod) -> None:
        result: Any = None
        for conf in self._plugins:
            result = json.loads(execute(*self.call("ADD", conf, result, pod)))
        self._results[pod] = result

    def delete(self, pod: Pod) -> None:
        result = self._results.pop(pod)
        for conf in reversed(self._plugins):
            execute(*self.call("DEL", conf, result, pod))

    def call(
        self, verb: str, conf: dict[str, Any], result: Any, pod: Pod
    ) -> tuple[Sequence[str], dict[str, str], bytes]:
        """(argv, environment, standard input) of one execution."""
        environment = {
            "PATH": os.environ["PATH"],
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": pod.container_id,
            "CNI_NETNS": pod.netns_path,
            "CNI_IFNAME": IFNAME,
            "CNI_PATH": str(self._bin_dir),
        }
        stdin = json.dumps(conf if result is None else {**conf, "prevResult": result}).encode()
        return [str(self._bin_dir / conf["type"])], environment, stdin

    def call_first(self, verb: str, result: Any, pod: Pod) -> tuple[Sequence[str], dict[str, str], bytes]:
        """The same, of the interface plugin."""
        return self.call(verb, self._plugins[0], result, pod)

    def ask_version(self) -> None:
        """One whole process that reads no configuration and does no work."""
        execute([str(self._bin_dir / "macvlan")], {"CNI_COMMAND": "VERSION"}, b'{"cniVersion": "1.0.0"}')


def execute(argv: Sequence[str], environment: dict[str, str], stdin: bytes) -> bytes:
    """Standard output; what a plugin refuses ends the run."""
    done = subprocess.run(argv, env=environment, input=stdin, capture_output=True, check=False)
    if done.returncode != 0:
        said = (done.stdout + done.stderr).decode(errors="replace").strip()
        raise SystemExit(f"benchmarks: {' '.join(argv)} {environment['CNI_COMMAND']}: {said}")
    return done.stdout
