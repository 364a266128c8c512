"""One side adds, the other deletes: a node can change plugins while its containers run."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest
from tests.differential.allowances import EVERYWHERE, allow
from tests.differential.cases import GATEWAYS, RANGES, SBR, Case, bridge, host_local, macvlan, static
from tests.differential.sides import Call, Executables, Side
from tests.differential.twins import differences

if TYPE_CHECKING:
    from pathlib import Path

    from tests.differential.twins import Twins

pytestmark = pytest.mark.root

CASES = (
    Case("bridge", [bridge(host_local(ranges=RANGES), isDefaultGateway=True, mtu=1400)]),
    Case("macvlan", [macvlan(host_local(ranges=RANGES))]),
    Case("sbr", [macvlan(static("10.1.2.3/24", gateways=GATEWAYS)), SBR], differs=["sbr-families"]),
    Case("loopback", [{"type": "loopback"}], differs=["loopback-versions"]),
)


def on_the_same_node(side: Side, bin_dir: Path) -> Side:
    """Another's plugins on this side's node."""
    other = copy.copy(side)
    other.bin_dir = bin_dir
    return other


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_theirs_add_and_ours_check_and_delete(executables: Twins, case: Case, our_bin: Path) -> None:
    call = Call(case.plugins)
    made = executables.add(call)
    other = on_the_same_node(executables.theirs, our_bin)
    assert other.check(call, made[0].value).code == 0
    gone = other.delete(call, made[0].value), executables.ours.delete(call, made[1].value)
    told = differences(*executables.settle(call, gone, allow((*EVERYWHERE, *case.differs))))
    assert not told, "\n".join(told)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_ours_add_and_theirs_check_and_delete(executables: Twins, case: Case, their_bin: Path) -> None:
    call = Call(case.plugins)
    made = executables.add(call)
    other = on_the_same_node(executables.ours, their_bin)
    assert bool(other.check(call, made[1].value).code) == case.has_sbr  # "false-alarms"
    gone = executables.theirs.delete(call, made[0].value), other.delete(call, made[1].value)
    told = differences(*executables.settle(call, gone, allow((*EVERYWHERE, *case.differs))))
    assert not told, "\n".join(told)


def test_one_directory_serves_both(executables: Twins, their_bin: Path) -> None:
    """Neither hands out what the other has, and both go on after the last address, whoever gave it."""
    side = executables.ours
    assert isinstance(side, Executables)
    theirs = on_the_same_node(side, their_bin)
    plugins = [macvlan(host_local(subnet="10.1.2.0/29"))]
    found = []
    for number, who in enumerate((side, theirs, side, theirs, side)):
        answer = who.add(Call(plugins, container=f"c{number}", ifname=f"net{number}"))
        found.append(answer.value["ips"][0]["address"])
    assert found == [f"10.1.2.{n}/29" for n in range(2, 7)]
    full = [who.add(Call(plugins, container="more", ifname="more")) for who in (side, theirs)]
    assert [answer.code for answer in full] == [100, 999]

    assert theirs.delete(Call(plugins, container="c0", ifname="net0")).code == 0
    assert side.delete(Call(plugins, container="c1", ifname="net1")).code == 0
    kept = sorted(path.name for path in (side.data / "networks").rglob("10.*"))
    assert kept == ["10.1.2.4", "10.1.2.5", "10.1.2.6"]
    assert theirs.add(Call(plugins, container="c5", ifname="net5")).value["ips"][0]["address"] == "10.1.2.2/29"
    assert side.add(Call(plugins, container="c6", ifname="net6")).value["ips"][0]["address"] == "10.1.2.3/29"


def test_two_interfaces_of_one_container(twins: Twins) -> None:
    """Both on one bridge and one range, each with a table of its own; the second DEL takes nothing of the first."""
    plugins = [bridge(host_local(subnet="10.1.2.0/24"), isGateway=True), SBR]
    calls = [Call(plugins, ifname=ifname) for ifname in ("eth0", "net1")]
    expected = allow((*EVERYWHERE, "sbr-families"))
    made = [twins.add(call) for call in calls]
    for call, answers in zip(calls, made, strict=True):
        told = differences(*twins.settle(call, answers, expected))
        assert not told, "\n".join(told)
    gone = twins.theirs.delete(calls[1], made[1][0].value), twins.ours.delete(calls[1], made[1][1].value)
    told = differences(*twins.settle(calls[1], gone, expected))
    assert not told, "\n".join(told)
