"""StatefulSets that are restarted, scaled and moved while daemons, controller and API server are killed at random.

In the end every replica has the address it had first, nothing is left of what is gone, and nothing is there twice. The
seed is printed by a failure, and HOMEPORT_TEST_SEED takes it again; HOMEPORT_TEST_SECONDS makes it longer.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import pytest
from testcluster.sandboxes import Sandbox
from tests.identity.cluster.observing import look
from tests.identity.shapes import Addresses, Shape, flat

if TYPE_CHECKING:
    from tests.identity.cluster.crews import Crew
    from tests.identity.cluster.sites import Site

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]
RUN_SECONDS = float(os.environ.get("HOMEPORT_TEST_SECONDS", "45"))
SETTLE_SECONDS = 120.0
WORKLOADS = ("web", "db")
REPLICAS = 4


class Chaos:
    """Does one thing after another, by chance alone; each leaves the cluster able to come to rest."""

    def __init__(self, site: Site, crew: Crew, chance: random.Random) -> None:
        self._site, self._crew, self._chance = site, crew, chance
        self.done: list[str] = []

    def step(self) -> None:
        """With the API server there before and after it."""
        acts: dict[Callable[[], str], int] = {
            self._delete_pods: 4,
            self._force_delete: 2,
            self._scale: 4,
            self._move: 2,
            self._restart_sandbox: 2,
            self._kill_daemon: 4,
            self._kill_controller: 3,
            self._kill_api_server: 1,
        }
        (act,) = self._chance.choices(list(acts), list(acts.values()))
        self.done.append(act())

    def _some_pods(self) -> list[str]:
        pods = sorted(self._site.pods())
        return self._chance.sample(pods, self._chance.randint(1, len(pods))) if pods else []

    def _delete_pods(self) -> str:
        pods = self._some_pods()
        self._site.delete_pods(*pods)
        return f"deleted {pods}"

    def _force_delete(self) -> str:
        pods = self._some_pods()
        self._site.force_delete(*pods)
        return f"deleted by force {pods}"

    def _scale(self) -> str:
        name, replicas = self._chance.choice(WORKLOADS), self._chance.randint(0, REPLICAS)
        self._site.scale(name, replicas)
        return f"scaled {name} to {replicas}"

    def _move(self) -> str:
        node = self._chance.choice(list(self._site.nodes))
        with self._site.cordoned(node):
            pods = [name for name, host in self._site.hosts().items() if host == node]
            self._site.delete_pods(*pods)
            self._site.wait(
                lambda: all(self._is_bound(pod) for pod in pods), "they are bound elsewhere, or scaled away"
            )
        return f"moved {pods} from {node}"

    def _is_bound(self, pod: str) -> bool:
        there = self._site.pods().get(pod)
        return there is None or bool(there["spec"].get("nodeName"))

    def _restart_sandbox(self) -> str:
        hosts = self._site.hosts()
        if not hosts:
            return "found no sandbox"
        pod = self._chance.choice(sorted(hosts))
        kubelet = self._site.nodes[hosts[pod]].kubelet
        if kubelet.sandbox(self._site.namespace, pod):
            kubelet.restart_sandbox(self._site.namespace, pod)
        return f"restarted the sandbox of {pod}"

    def _kill_daemon(self) -> str:
        node = self._site.nodes[self._chance.choice(list(self._site.nodes))]
        node.kill_daemon()
        node.launch_daemon()
        return f"killed the daemon of {node.name}"

    def _kill_controller(self) -> str:
        assert self._crew.controller
        self._crew.controller.kill()
        self._crew.controller.start()
        return "killed the controller"

    def _kill_api_server(self) -> str:
        self._crew.plane.stop_apiserver()
        self._crew.plane.start_apiserver()
        self._crew.plane.restart_controllers()
        return "killed the API server"


@pytest.mark.parametrize("shape", [Shape(2, True)], indirect=True, ids=str)
def test_same_addresses_after_everything(site: Site, crew: Crew) -> None:
    seed = os.environ.get("HOMEPORT_TEST_SEED") or str(random.SystemRandom().randrange(1 << 32))
    chaos = Chaos(site, crew, random.Random(seed))
    site.networks()
    for name in WORKLOADS:
        site.workload(name, REPLICAS)
    site.wait(lambda: len(site.hosts()) == len(WORKLOADS) * REPLICAS, "all run")
    first = site.kernel()
    try:
        until = time.monotonic() + RUN_SECONDS
        while time.monotonic() < until:
            chaos.step()
            require_nothing_twice(site, first)
        for name in WORKLOADS:
            site.scale(name, REPLICAS)
        site.await_seen(first, seconds=SETTLE_SECONDS)
        site.await_phases(dict.fromkeys(flat(first), "Bound"))
        site.require_no_leak()
        for name in WORKLOADS:
            site.delete_workload(name)
        site.wait(lambda: not site.pods(), "no pods are left", SETTLE_SECONDS)
        site.await_phases({}, "all is free in the end")
    except BaseException as e:
        e.add_note(f"HOMEPORT_TEST_SEED={seed}; {len(chaos.done)} things were done, the last of them:")
        e.add_note("\n".join(chaos.done[-30:]))
        raise


def require_nothing_twice(site: Site, first: Mapping[str, Addresses]) -> None:
    """No address is in two namespaces at once, and whoever has one has its own."""
    there: dict[str, Sandbox] = {}
    for sandbox in [s for node in site.nodes.values() for s in node.runtime.sandboxes()]:
        if sandbox.namespace != site.namespace:
            continue
        for ifname, addresses in look(sandbox).items():
            assert set(addresses) <= set(first[sandbox.name][ifname]), f"{sandbox.name} has {addresses}"
            for address in addresses:
                other = there.setdefault(address, sandbox)
                # What was there before this one was looked at, and is after it, was there all the time.
                assert other is sandbox or address not in flat({"": look(other)}), f"{address} in {other} and {sandbox}"
