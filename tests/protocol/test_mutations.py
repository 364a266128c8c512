"""Each rule of the protocol is needed, and the tests see it: without it some history breaks docs/identity.md."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.protocol import mutations, scripts
from tests.protocol.laws import Broken
from tests.protocol.running import in_every_way
from tests.protocol.scripts import Script
from tests.protocol.simulation import DUAL, SINGLE

Mutate = Callable[[pytest.MonkeyPatch], None]

CASES: tuple[tuple[Mutate, Script, int, int, str], ...] = (
    (mutations.claim_without_a_record, scripts.replica_with_a_strangers_address, 0, 1, "R2"),
    (mutations.delete_any_version, scripts.late_release, 0, 1, "R12"),
    (mutations.overwrite_any_version, scripts.release_races_a_return, 1, 0, "R12"),
    (mutations.trust_the_hint, scripts.two_claim_at_once, 1, 0, "R12"),
    (mutations.free_on_an_error, scripts.orphan, 0, 1, "R12"),
    (mutations.take_back_a_release_that_was_sent, scripts.outage_between_two_sandboxes, 0, 1, "R1"),
    (mutations.bind_locally_without_a_probe, scripts.passed_on_while_cut_off, 0, 1, "R1"),
    (mutations.take_ones_own_rows_for_all, scripts.one_of_two_releases_is_delivered, 0, 2, "R2"),
)


@pytest.mark.parametrize(("mutate", "script", "order", "fate", "rule"), CASES, ids=[c[0].__name__ for c in CASES])
def test_a_protocol_without_one_rule_is_found_out(
    mutate: Mutate, script: Script, order: int, fate: int, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutate(monkeypatch)
    ipam = DUAL if rule == "R2" else SINGLE
    with pytest.raises(Broken, match=f"^{rule}: "):
        in_every_way(script, order=order, fate=fate, ipam=ipam)
