"""E21 of the conformance matrix (docs/identity.md): SIGKILL at every step of ADD and of DEL."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.identity.conftest import Lab

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]
SIGKILLED = -9
STEPS = {
    "ADD": "create_namespace add_address add_rule replace save put",
    "DEL": "delete_links replace forget delete_namespace remove",
}


@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_e21_killed_at_every_step(lab: Lab, verb: str) -> None:
    lab.networks()
    lab.workload("web", 1)
    lab.up("--nodes", "1")
    died: list[str] = []
    for number in count(1):
        if verb == "ADD":
            lab("scale", "statefulset/web", "--replicas", "0")
        ran = lab("scale", "statefulset/web", "--replicas", str(int(verb == "ADD")), code=None, kill_at=number)
        if ran.code != SIGKILLED:
            break
        died.append(ran.stderr)
        lab("scale", "statefulset/web", "--replicas", "1")
        pods = lab.get("pods")
        after = f"after a kill before step {number}, {ran.stderr}"
        assert lab.kernel(pods) == lab.numbered(1), after
        assert set(lab.allocated("Bound")) == set(lab.allocated()) == lab.flat(lab.numbered(1)), after
        assert lab.namespaces() == {pod["container_id"] for pod in pods}, after
        assert lab.links_of_nodes(["node-1"]) == set(lab.masters), after
    assert ran.code == 0
    # The walk went through the kernel, the store and the cache, and not around them.
    named = {step.partition(".")[2] for step in died}
    assert set(STEPS[verb].split()) <= named
    assert verb == "DEL" or named & {"create_ipvlan", "create_macvlan"}
