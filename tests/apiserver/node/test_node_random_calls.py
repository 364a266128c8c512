"""Hundreds of calls at once while shims and the daemon are killed at random: in the end nothing is left."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from testcluster.homeport_node import HomeportNode, addresses
from testcluster.sandboxes import Sandbox
from tests.apiserver.node.workloads import NETWORKS, OURS, Cluster, allocations

from homeport.model.errors import CniError

if TYPE_CHECKING:
    from tests.apiserver.node.conftest import MakeNode

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]
SEED = 20_26_11
CALLS = 500
PODS = 12
AT_ONCE = 12
KILLED = ("killed by SIGKILL", "found its end after 0 bytes", "no daemon")
"""What a call says whose shim or daemon was killed; nothing else may go wrong."""


class Killer:
    """Kills the node's daemon, which is started again at once as systemd does, and shims, until it is stopped."""

    def __init__(self, node: HomeportNode, rng: random.Random) -> None:
        self.daemons = self.shims = 0
        self._node = node
        self._rng = rng
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=work) for work in (self._kill_daemons, self._kill_shims)]

    def __enter__(self) -> Killer:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _kill_daemons(self) -> None:
        while not self._stop.wait(self._rng.uniform(0.5, 3.0)):
            self._node.kill_daemon()
            self._node.launch_daemon()
            self.daemons += 1

    def _kill_shims(self) -> None:
        while not self._stop.wait(self._rng.uniform(0.02, 0.2)):
            running = list(shims(self._node))
            if running:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._rng.choice(running), signal.SIGKILL)
                    self.shims += 1


def shims(node: HomeportNode) -> Iterator[int]:
    """Processes that run this node's shim now."""
    program = str(node.disk.bin_dir / "homeport")
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if entry.isdigit() and os.readlink(f"/proc/{entry}/exe") == program:
                yield int(entry)


def of_pod(node: HomeportNode, pod: dict[str, Any]) -> list[Sandbox]:
    """The pod's sandboxes that still have to be removed."""
    return [sandbox for sandbox in node.runtime.sandboxes() if sandbox.pod_uid == pod["metadata"]["uid"]]


def pods(cluster: Cluster, node: HomeportNode) -> list[dict[str, Any]]:
    """Pods of this node that no kubelet looks after."""
    made = []
    for n in range(PODS):
        metadata = {"name": f"p{n}", "annotations": {NETWORKS: "front,side@side"}}
        spec = {"nodeName": node.name, "containers": [{"name": "main", "image": "none"}]}
        made.append(cluster.create_pod({"metadata": metadata, "spec": spec}))
    return made


def test_calls_in_random_order_with_random_kills(cluster: Cluster, make_node: MakeNode) -> None:
    node = make_node("node-a", start=False, environ={"HOMEPORT_CONNECT_SECONDS": "2"})
    node.start_daemon()
    ipam = {"type": "whereabouts", "range": "10.93.96.0/20", "range_start": "10.93.97.12"}
    cluster.network("front", {"type": "macvlan", "master": "eth1", "ipam": ipam}, {"type": "sbr"})
    ipam = {**ipam, "range": "10.94.0.0/24", "range_start": "10.94.0.9"}
    cluster.network("side", {"type": "macvlan", "master": "eth1", "ipam": ipam})
    rng = random.Random(SEED)
    left = iter(range(CALLS))
    lock = threading.Lock()
    made = pods(cluster, node)
    failures: list[str] = []

    def live(pod: dict[str, Any], own: random.Random) -> Sandbox | None:
        """One pod's containers, one at a time as with a kubelet: none is added before the last one's DEL succeeded."""
        held: Sandbox | None = None
        while True:
            with lock:
                if next(left, None) is None:
                    return held
            try:
                if held is None:
                    for sandbox in of_pod(node, pod):
                        node.runtime.stop_sandbox(sandbox)
                    held = node.runtime.run_sandbox(pod)
                elif own.random() < 0.3:
                    node.runtime.check(held)
                else:
                    old, held = held, None
                    node.runtime.stop_sandbox(old)
            except CniError as error:
                failures.append(str(error))

    began = time.monotonic()
    with Killer(node, random.Random(SEED + 1)) as killer, ThreadPoolExecutor(AT_ONCE) as workers:
        living = [workers.submit(live, pod, random.Random(rng.random())) for pod in made]
    held = [sandbox for done in living if (sandbox := done.result())]
    print(f"{CALLS} calls in {time.monotonic() - began:.1f} s; killed: {killer.daemons} daemons, {killer.shims} shims")
    print(f"{len(failures)} calls failed:", *sorted(set(failures))[:40], sep="\n")
    unexpected = [text for text in failures if not any(reason in text for reason in KILLED)]
    assert unexpected == []
    assert killer.daemons > 2
    assert killer.shims > 20
    node.wait(node.is_ready, 20, "the daemon answers")

    there = allocations(cluster.api)
    for sandbox in held:
        node.runtime.check(sandbox)
        found = addresses(sandbox.netns)
        holders = {there[found[ifname][0].partition("/")[0]]["holder"]["containerID"] for ifname in ("net1", "side")}
        assert holders == {sandbox.container_id}

    for sandbox in node.runtime.sandboxes():
        node.runtime.stop_sandbox(sandbox)
    for pod in made:
        cluster.forget_pod(pod["metadata"]["name"])
    node.await_nothing_left(60)
    assert cluster.api.get(f"{OURS}/ipallocations")["items"] == []
    node.stop_daemon()
