"""One IPAM ADD, with so and so many addresses of the range taken: whereabouts' configuration on SQLite."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import msgspec
from benchmarks.measuring import Samples, timed
from benchmarks.stage import IFNAME, Pod

from homeport.cni import netconfs
from homeport.cni.invocations import Attachment
from homeport.ipam.allocations import Allocation
from homeport.ipam.identities import ContainerOwner
from homeport.plugins import registry
from homeport.ports import AllocationStore
from homeport.wiring import build_shells

RANGE = "10.64.0.0/15"
WHO = "ours, SQLite"
CONF = {"cniVersion": "1.0.0", "name": "pool", "type": "macvlan", "ipam": {"type": "whereabouts", "range": RANGE}}


def measure(folder: Path, pod: Pod, levels: Sequence[int], rounds: int) -> Samples:
    """`levels` ascend. Addresses are taken from the bottom of the range, so that the lowest free one is the last."""
    plugin = registry.find("whereabouts")
    assert plugin is not None
    path = str(folder / "allocations.db")
    shells = build_shells(store=path)
    store = shells.open_allocations(path)
    conf = netconfs.parse(json.dumps(CONF).encode())
    pattern_pod = _attachment(pod, "pattern")
    plugin.add(conf, pattern_pod, shells)
    (pattern,) = store.all()
    plugin.delete(conf, pattern_pod, shells)

    samples: Samples = {}
    taken = 0
    for level in levels:
        _take(store, pattern, taken, level)
        taken = level
        for number in range(rounds + 1):
            one = _attachment(pod, f"measured-{number}")
            for verb, act in (("ADD", plugin.add), ("DEL", plugin.delete)):
                took = timed(partial(act, conf, one, shells))
                if number:
                    samples.setdefault(f"IPAM {verb}, {level} taken", {}).setdefault(WHO, []).append(took)
    return samples


def _attachment(pod: Pod, container_id: str) -> Attachment:
    return Attachment(container_id=container_id, ifname=IFNAME, netns_path=pod.netns_path)


def _take(store: AllocationStore, pattern: Allocation, first: int, end: int) -> None:
    """Allocations like the plugin's own, number `first` up to but not including `end`, written by the store."""
    for number in range(first, end):
        assert pattern.holder is not None
        container_id = f"filler-{number}"
        store.create(
            msgspec.structs.replace(
                pattern,
                address=pattern.address + number,
                slot=msgspec.structs.replace(pattern.slot, owner=ContainerOwner(container_id)),
                holder=msgspec.structs.replace(pattern.holder, container_id=container_id),
                version=0,
            ),
            cause="benchmark",
        )
