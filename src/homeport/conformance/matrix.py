"""The rows of the conformance matrix (docs/identity.md), and which of them the API alone can bring about. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from homeport.conformance import policies, restarts
from homeport.conformance.sites import Site
from homeport.model.errors import InvalidNetConf


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """`run` brings the event about and raises `RowFailed` or `NotRun`; without it `why_not` says what it would take.

    `disruptive` ones touch what the run did not make.
    """

    name: str
    event: str
    outcome: str
    run: Callable[[Site], None] | None = None
    why_not: str = ""
    disruptive: bool = False


def _row(name: str, event: str, outcome: str, run: Callable[[Site], None] | str, *, disruptive: bool = False) -> Row:
    if isinstance(run, str):
        return Row(name=name, event=event, outcome=outcome, why_not=run)
    return Row(name=name, event=event, outcome=outcome, run=run, disruptive=disruptive)


ROWS: tuple[Row, ...] = (
    _row(
        "E1",
        "first start, in any order, in parallel",
        "replica n has address n of the range",
        restarts.e1_first_start,
    ),
    _row("E2", "all pods deleted at once", "same", restarts.e2_all_deleted_at_once),
    _row(
        "E3",
        "all pods deleted by force, the new ADD before the old DEL",
        "same; the old DEL is harmless",
        restarts.e3_all_deleted_by_force,
    ),
    _row(
        "E4",
        "a replica moves to another node",
        "same; announced, and neighbours reach it at once",
        restarts.e4_moves_to_another_node,
    ),
    _row(
        "E5",
        "a node dies, its replica starts elsewhere",
        "same, once the probe is silent",
        "a node would have to lose its power",
    ),
    _row(
        "E6",
        "as E5, but the old node only lost contact and still answers",
        "code 11 until it does not; never two that answer",
        "a node would have to lose contact with the API server",
    ),
    _row("E7", "rolling update", "same", restarts.e7_rolling_update),
    _row(
        "E8",
        "scaled to 0, another workload of 2 starts, scaled to 3",
        "same",
        restarts.e8_scaled_to_nothing_while_others_start,
    ),
    _row(
        "E9",
        "scaled 5, 3, 5 with `whenScaled: Release` in a busy pool",
        "0 to 2 same, 3 and 4 may differ, nothing leaks",
        policies.e9_scaled_down_and_up_in_a_busy_pool,
    ),
    _row(
        "E10",
        "the workload is deleted, in the background or the foreground",
        "an address is free once its pod is proven gone, not before",
        policies.e10_free_once_the_pods_are_gone,
    ),
    _row(
        "E11",
        "deleted with orphans; made again under its name",
        "running pods keep theirs; adopted",
        policies.e11_orphans_keep_and_are_adopted,
    ),
    _row(
        "E12",
        "deleted and made again with `whenDeleted: Retain`",
        "same",
        policies.e12_deleted_and_made_again,
    ),
    _row("E13", "`retainFor` passes", "free; the ledger says why", policies.e13_retain_for_passes),
    _row(
        "E14",
        "`ordinals.start` goes from 0 to 5",
        "maps count from the start; lower ordinals are scaled down",
        policies.e14_ordinals_start_elsewhere,
    ),
    _row(
        "E15",
        "a map; a stranger wants the pool while the workload is at 0",
        "no mapped address is handed to the stranger",
        policies.e15_no_stranger_gets_a_mapped_address,
    ),
    _row(
        "E16",
        "a map with a duplicate, an address outside the range, or too short",
        "refused at admission and at ADD, with the entry named",
        policies.e16_wrong_maps_are_refused,
    ),
    _row(
        "E17",
        "the map changes while replicas run",
        "new address from the next start, the old freed after; failure leaves the old",
        policies.e17_a_map_changes,
    ),
    _row(
        "E18",
        "strangers exhaust the pool while a replica restarts",
        "same",
        restarts.e18_strangers_wait_for_what_becomes_free,
    ),
    _row(
        "E19",
        "two workloads share a pool, restart in parallel, 20 rounds",
        "same",
        restarts.e19_two_workloads_restart_in_parallel,
    ),
    _row(
        "E20",
        "API server down: DEL, then a new sandbox of the same pod",
        "DEL succeeds; ADD from the node's own record",
        "the API server would have to be stopped",
    ),
    _row(
        "E21",
        "killed with SIGKILL at every step of ADD and DEL",
        "a retry gives the same; no leak after one pass",
        "the daemon of a node would have to be killed at each of its steps",
    ),
    _row(
        "E22",
        "the controller killed at every step of a pass, or two at once",
        "nothing freed wrongly",
        restarts.e22_the_controller_is_killed,
        disruptive=True,
    ),
    _row(
        "E23",
        "one of two interfaces fails",
        "neither stays; a retry gives both the same",
        policies.e23_one_of_the_interfaces_fails,
    ),
    _row(
        "E24",
        "1000 replicas, a pool of 1000, all restarted at once",
        "same, no failure",
        restarts.e24_as_many_replicas_as_addresses,
    ),
    _row(
        "E25",
        "a foreign host answers for a retained address",
        "quarantined; the replica waits until it stops",
        "a host outside of the cluster would have to take the address",
    ),
    _row(
        "E26",
        "the store is restored from an older backup",
        "the holders found on nodes win; conflicts are reported",
        "the API server's data would have to be set back",
    ),
)


def chosen(names: Sequence[str]) -> tuple[Row, ...]:
    """The rows of these names, in the matrix' order; all without a name. Raises `InvalidNetConf` for another name."""
    wanted = {name.strip().upper() for name in names if name.strip()}
    unknown = sorted(wanted - {row.name for row in ROWS})
    if unknown:
        raise InvalidNetConf(f'row "{unknown[0]}": found no such row, expected some of E1 to {ROWS[-1].name}')
    return tuple(row for row in ROWS if not wanted or row.name in wanted)
