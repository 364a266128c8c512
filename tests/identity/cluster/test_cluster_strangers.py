"""E24 and E25 of the conformance matrix (docs/identity.md): a pool without room to spare, and one that is shared with a
host which nobody asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.identity.cluster.strangers import ForeignHost
from tests.identity.shapes import flat

if TYPE_CHECKING:
    from tests.identity.cluster.crews import Crew
    from tests.identity.cluster.sites import Site

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]
REPLICAS = 100  # what two cores restart in a few seconds; the thousand are in the lab (test_matrix_scale.py)


def test_e24_as_many_replicas_as_addresses_all_restarted_at_once(site: Site) -> None:
    site.networks(size=REPLICAS)
    site.workload(replicas=REPLICAS)
    site.await_seen(site.numbered(REPLICAS), seconds=90)
    uids = site.uids()
    site.delete_pods(*site.numbered(REPLICAS))
    site.restarted(site.numbered(REPLICAS), uids, seconds=90)
    assert site.failures("web", "") == []
    site.require_no_leak()


def test_e25_a_foreign_host_answers_for_a_retained_address(site: Site, crew: Crew) -> None:
    """It was there before the replica left, so that the first look after that finds it."""
    site.networks()
    site.workload()
    site.await_seen(site.numbered())
    taken = site.shape.numbered(1)
    assert crew.segment
    with ForeignHost(crew.segment, flat({"web-1": taken})) as foreign:
        site.scale("web", 0)
        site.await_gone()
        site.await_phase("Quarantined", flat({"web-1": taken}))
        assert all(foreign.mac in site.records()[address].cause for address in flat({"web-1": taken}))
        told = site.await_event("AddressQuarantined", "web")
        assert foreign.mac in told["message"]
        assert told["type"] == "Warning"
        site.scale("web", 3)
        site.await_failures("web-1", foreign.mac, 2)
        site.await_seen({pod: found for pod, found in site.numbered().items() if pod != "web-1"})
    site.await_seen(site.numbered())
    site.require_no_leak()
