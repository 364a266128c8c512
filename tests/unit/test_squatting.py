"""Strangers at addresses that replicas keep (docs/identity.md E25)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.stand_ins_holding import A1, A2, MAC, WEB, Machine, holder_of

from homeport.daemon.squatting import PROBE_SECONDS, SETTLED_SECONDS
from homeport.ipam.allocations import Allocation, Phase
from homeport.model.addresses import IPAddress
from homeport.model.errors import KernelRefused
from homeport.model.names import PodRef
from homeport.stores.kubernetes.resources import IPALLOCATIONS


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path)
    yield made
    made.close()


def retain(machine: Machine, ordinal: int = 0, address: IPAddress = A1) -> Allocation:
    mine = machine.attach(machine.world.start(WEB, ordinal), f"c{ordinal}", address)
    machine.store.replace(msgspec.structs.replace(mine, phase=Phase.RETAINED, holder=None), cause="DEL")
    machine.store.deliver()
    machine.look()
    found = machine.stored(address)
    assert found is not None
    assert found.phase is Phase.RETAINED
    return found


def test_an_address_that_a_stranger_uses_is_quarantined_until_they_are_silent(machine: Machine) -> None:
    retain(machine)
    machine.probe.answering[A1] = MAC
    machine.probe_for(SETTLED_SECONDS)
    assert (machine.probe.asked, machine.told()) == ([], []), "its own interface may be on its way out"
    machine.probe_for(1)
    found = machine.stored()
    assert found is not None
    assert found.phase is Phase.QUARANTINED
    (event,) = machine.events
    assert (event.reason, event.kind, event.api_version) == ("AddressQuarantined", "StatefulSet", "apps/v1")
    assert (event.pod, event.pod_uid, event.warning) == (PodRef("ns", "web"), "w-uid", True)
    assert f"10.0.0.1 of ns/web-0 on net is quarantined, its replica waits: {MAC} answers for it" in event.message
    stored = machine.operator.get(IPALLOCATIONS, "10.0.0.1")
    assert stored is not None
    assert str(MAC) in msgspec.json.decode(stored.body)["status"]["cause"]
    machine.probe_for(2 * PROBE_SECONDS)
    assert len(machine.events) == 1
    machine.probe.answering.clear()
    machine.probe_for(PROBE_SECONDS + 1)
    found = machine.stored()
    assert found is not None
    assert found.phase is Phase.RETAINED
    assert machine.repairs == ["quarantined", "returned"]


def test_its_own_next_holder_is_no_stranger(machine: Machine) -> None:
    """It has taken the address elsewhere, and the watch has not told yet."""
    before = retain(machine)
    machine.probe.answering[A1] = MAC
    pod = machine.world.start(WEB, 0, node="n2")
    bound = machine.elsewhere.replace(
        msgspec.structs.replace(before, phase=Phase.BOUND, holder=holder_of(pod, "c9", "n2")), cause="returned"
    )
    machine.squatters.step()
    machine.clock.advance(seconds=SETTLED_SECONDS)
    machine.squatters.step()  # without what the watch would tell
    assert machine.probe.asked == [(A1, "eth1")]
    assert (machine.stored(), machine.told()) == (bound, [])


def test_it_is_one_probe_at_a_time_and_each_in_its_turn(machine: Machine) -> None:
    retain(machine, 0, A1)
    retain(machine, 1, A2)
    machine.probe_for(SETTLED_SECONDS + 1)
    assert len(machine.probe.asked) == 1
    machine.probe_for(20)
    assert sorted(machine.probe.asked) == [(A1, "eth1"), (A2, "eth1")]
    machine.probe_for(16)
    assert len(machine.probe.asked) == 4


def test_where_nobody_can_ask_nothing_changes(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    before = retain(machine)
    machine.links.clear()
    machine.probe.answering[A1] = MAC
    machine.probe_for(PROBE_SECONDS + SETTLED_SECONDS + 1)
    assert machine.probe.asked == []
    machine.links["net"] = "eth1"

    def deaf(*_: object, **__: object) -> None:
        raise KernelRefused("probe: the link is down")

    monkeypatch.setattr(machine.probe, "answers", deaf)
    machine.probe_for(PROBE_SECONDS + 1)
    assert machine.stored() == before


def test_only_what_nobody_holds_is_probed(machine: Machine) -> None:
    machine.attach(machine.world.start(WEB, 0), "c1")
    machine.probe_for(PROBE_SECONDS + SETTLED_SECONDS)
    assert machine.probe.asked == []
