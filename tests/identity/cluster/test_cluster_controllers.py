"""E22 of the conformance matrix (docs/identity.md): the controller killed at every write, and two of them at once."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import count, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from testcluster.homeport_controller import GROUP, HomeportController
from tests.identity.cluster.crews import HOMEPORT
from tests.identity.cluster.observing import Json
from tests.identity.cluster.sites import as_map
from tests.identity.shapes import Addresses, Shape, flat

if TYPE_CHECKING:
    from tests.identity.cluster.crews import Crew
    from tests.identity.cluster.sites import Site

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]
DYING = (sys.executable, str(Path(__file__).with_name("dying_controller.py")))
WRITES = "create ipallocations", "delete ipallocations", "patch ipallocations", "ipranges", "ipledgers"
RBAC = "/apis/rbac.authorization.k8s.io/v1/namespaces"


@pytest.fixture
def wish(tmp_path: Path) -> Path:
    return tmp_path / "death"


@pytest.fixture
def mortal(crew: Crew, wish: Path, tmp_path: Path) -> Iterator[HomeportController]:
    """One that is started again whenever it dies, instead of the crew's own."""
    assert crew.controller
    crew.controller.kill()  # it may have been started a moment ago
    made = crew.make_controller(
        "controller-mortal", tmp_path, program=DYING, environ={"HOMEPORT_TEST_DEATH": str(wish)}, leaseSeconds=2
    )
    made.start()
    yield made
    try:
        made.stop()
    finally:
        crew.controller.start()


class Round:
    """All that a controller does: it releases what was scaled down, reserves for a map, withdraws, counts, remembers.

    The network is to say `"whenScaled": "Release"`.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._one = site.numbered(1)
        self._begun, self._counted = 0, ""
        self._kept: dict[str, Addresses] = {f"kept-{n}": site.shape.numbered(10 + n) for n in range(2)}

    def begin(self) -> None:
        self._begun += 1
        before = self._range()
        self._counted = before["metadata"]["resourceVersion"] if before is not None else ""
        self._keep(2)
        self._site.scale("web", 1)
        self._site.await_phases({**self._bound(self._one), **dict.fromkeys(flat(self._kept), "Reserved")})
        assert self._site.kernel() == self._one

    def end(self) -> None:
        self._keep(0)
        self._site.scale("web", 3)
        self._site.await_seen(self._site.numbered())
        self._site.await_phases(self._bound(self._site.numbered()))

    def is_done(self) -> bool:
        return self._is_remembered() and self._is_counted()

    def _is_counted(self) -> bool:
        """Whether the range's object, written in this round, tells of one replica and two reservations."""
        found = self._range()
        if found is None or found["metadata"]["resourceVersion"] == self._counted:
            return False
        return bool(found["status"]["bound"] == 1 and found["status"]["reserved"] == 2)

    def _range(self) -> Json | None:
        first = self._site.shape.address("one", 4, 0)
        ranges = self._site.api.get(f"{HOMEPORT}/ipranges")["items"]
        return next((found for found in ranges if found["spec"]["first"] == first), None)

    def _is_remembered(self) -> bool:
        """Whether the ledger tells of this round's release, and not only of those before it."""
        entries = self._site.ledger(self._site.shape.address("one", 4, 2))
        return sum(entry["after"] is None for entry in entries) >= self._begun

    def _keep(self, replicas: int) -> None:
        numbers = [10, 11][:replicas]
        annotations = as_map(self._site.shape.map_of(*numbers)) if numbers else None
        self._site.workload("kept", 0, annotations=annotations)

    def _bound(self, seen: dict[str, Addresses]) -> dict[str, str]:
        return dict.fromkeys(flat(seen), "Bound")


@pytest.mark.parametrize(
    ("shape", "when"), [(Shape(1, False), "before"), (Shape(1, False), "after")], indirect=["shape"], ids=str
)
def test_e22_killed_at_every_write(site: Site, mortal: HomeportController, wish: Path, when: str) -> None:
    site.networks(sticky={"whenScaled": "Release"})
    site.workload()
    site.await_seen(site.numbered())
    work = Round(site)
    for number in count(1):
        wish.write_text(f"{when} {number}")
        work.begin()
        mortal.wait(lambda: not wish.exists() or work.is_done(), 30, "it died, or did all of its work")
        survived = wish.exists()
        wish.unlink(missing_ok=True)
        work.end()
        if survived:
            break
    for resource in (
        "ipranges",
        "ipledgers",
    ):  # their place among the writes is by chance
        wish.write_text(f"{when} 1 {resource}")
        work.begin()
        mortal.wait(lambda: not wish.exists(), 30, f"it died at {resource}")
        work.end()
    writes = wish.with_suffix(".writes").read_text()
    assert all(what in writes for what in WRITES), f"the walk went through all it writes: {writes}"
    site.require_no_leak()


def test_e22_two_controllers_at_once(site: Site, crew: Crew, tmp_path: Path) -> None:
    """Installed twice by accident, in two namespaces, so that neither lease keeps the other from leading."""
    rule = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "patch"]}
    subject = {"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": GROUP}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "second"}
    crew.admin.create(f"{RBAC}/{site.namespace}/roles", {"metadata": {"name": "second"}, "rules": [rule]})
    crew.admin.create(
        f"{RBAC}/{site.namespace}/rolebindings",
        {"metadata": {"name": "second"}, "subjects": [subject], "roleRef": reference},
    )
    site.networks(sticky={"whenScaled": "Release"})
    site.workload()
    site.await_seen(site.numbered())
    second = crew.make_controller("controller-second", tmp_path, namespace=site.namespace)
    second.start()
    try:
        second.wait(lambda: "leads from now on" in second.log(), 20, "it leads")
        work = Round(site)
        for _ in range(5):
            work.begin()
            work.end()
        assert second.is_running
    finally:
        second.kill()
    site.await_ledger(site.shape.address("one", 4, 2), lambda entries: is_unbroken(entries, releases=5))
    site.require_no_leak()


def is_unbroken(entries: list[dict[str, object]], *, releases: int) -> bool:
    """Whether each change goes on from where the one before it ended, and none is told twice."""
    sides = [(json.dumps(e["before"], sort_keys=True), json.dumps(e["after"], sort_keys=True)) for e in entries]
    chained = all(after == before for (_, after), (before, _) in pairwise(sides))
    return chained and sum(e["after"] is None for e in entries) == releases
