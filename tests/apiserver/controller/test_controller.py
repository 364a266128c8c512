"""The controller on a real API server: E10, E15, retention, nodes and pods that end, the lease (docs/identity.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.apiserver.controller.hands import Hand, leader

if TYPE_CHECKING:
    from collections.abc import Callable

    from testcluster.api import Api
    from tests.apiserver.controller.conftest import MakeController

    WaitUntil = Callable[..., None]


def test_e15_a_map_is_reserved_before_there_are_pods_counted_and_withdrawn(
    hand: Hand, make_controller: MakeController, wait_until: WaitUntil
) -> None:
    make_controller()
    hand.define()
    hand.statefulset("web", 0, [hand.address(5), hand.address(6)])
    wait_until(lambda: hand.phases() == {5: "Reserved", 6: "Reserved"}, 20.0)
    wait_until(lambda: (hand.totals() or {}).get("reserved") == 2, 10.0)
    totals = hand.totals()
    assert totals is not None
    assert (totals["usable"], totals["free"], totals["taken"]) == (254, 252, "4-5")
    hand.statefulset("web", 0, [hand.address(5)])
    wait_until(lambda: hand.phases() == {5: "Reserved"}, 10.0)
    wait_until(lambda: len(hand.events("AddressReserved")) == 2, 10.0)
    wait_until(lambda: len(hand.events("ReservationWithdrawn")) == 1, 10.0)


def test_e10_addresses_are_free_after_the_last_pod_is_proven_gone_and_not_before(
    hand: Hand, make_controller: MakeController, wait_until: WaitUntil
) -> None:
    make_controller()
    hand.define()
    hand.statefulset("web", 2)
    wait_until(lambda: hand.pod("web-0") and hand.pod("web-1"), 20.0)
    held = [hand.add("web", n, 1 + n) for n in range(2)]
    for n in range(2):  # what a kubelet's pods have: they end when it says so
        hand.hold_pod(f"web-{n}")
    hand.delete_statefulset("web")
    wait_until(lambda: all((hand.pod(f"web-{n}") or {})["metadata"].get("deletionTimestamp") for n in range(2)), 20.0)
    hand.delete(held[0])
    wait_until(lambda: hand.phases() == {1: "Retained", 2: "Bound"}, 10.0)
    wait_until(lambda: hand.count("retained") == 1, 10.0)
    assert hand.phases() == {1: "Retained", 2: "Bound"}  # its pod is still there
    hand.let_pod_go("web-0")
    wait_until(lambda: hand.phases() == {2: "Bound"}, 10.0)
    hand.delete(held[1])
    hand.let_pod_go("web-1")
    wait_until(lambda: hand.phases() == {}, 10.0)
    wait_until(lambda: len(hand.events("AddressReleased")) == 2, 10.0)


def test_r11_scaled_down_is_retained_or_released_as_the_network_says(
    hand: Hand, make_controller: MakeController, wait_until: WaitUntil
) -> None:
    make_controller()
    hand.define(whenScaled="Release")
    hand.statefulset("web", 2)
    wait_until(lambda: hand.pod("web-0") and hand.pod("web-1"), 20.0)
    held = [hand.add("web", n, 1 + n) for n in range(2)]
    wait_until(lambda: hand.retention(1)["whenScaled"] == "Release", 10.0)  # noted while there is a workload to ask
    hand.scale("web", 1)
    wait_until(lambda: hand.pod("web-1") is None, 20.0)
    hand.delete(hand.read(held[1]))
    wait_until(lambda: hand.phases() == {1: "Bound"}, 10.0)
    hand.delete(hand.read(held[0]))
    hand.remove_pod("web-0")
    wait_until(lambda: hand.count("retained") == 1, 10.0)
    assert hand.phases() == {1: "Retained"}  # wanted still


def test_r8_the_end_of_a_node_ends_its_holders_whose_pods_are_gone(
    hand: Hand, make_controller: MakeController, wait_until: WaitUntil
) -> None:
    make_controller()
    hand.define()
    dead, shut = hand.node("dead"), hand.node("shut")
    hand.statefulset("web", 1)
    wait_until(lambda: hand.pod("web-0"), 20.0)
    hand.add("web", 0, 1, node=dead)
    strangers = {last: hand.bare_pod(f"s{last}") for last in (2, 3, 4)}
    for last, node in ((2, dead), (3, shut), (4, dead)):
        hand.bind(strangers[last], last, uid=strangers[last].uid, node=node)
    for name in ("web-0", "s2", "s3"):
        hand.remove_pod(name)
    wait_until(lambda: hand.count("bound") == 4, 10.0)
    hand.taint_out_of_service(shut)
    wait_until(lambda: hand.phases() == {1: "Bound", 2: "Bound", 4: "Bound"}, 10.0)
    hand.remove_node(dead)
    wait_until(lambda: hand.phases() == {1: "Retained", 4: "Bound"}, 10.0)  # s4 has a pod, wherever it runs
    hand.remove_node(shut)


def test_r14_an_evicted_pod_lets_go_once_its_end_is_seen(
    hand: Hand, make_controller: MakeController, wait_until: WaitUntil
) -> None:
    make_controller()
    hand.define()
    node = hand.node("full")
    stranger = hand.bare_pod("s")
    hand.bind(stranger, 2, uid=stranger.uid, node=node)
    hand.fail_pod("s")
    wait_until(lambda: hand.count("bound") == 1, 10.0)
    assert hand.phases() == {2: "Bound"}  # its network namespace may still be there
    hand.remove_node(node)
    wait_until(lambda: hand.phases() == {}, 10.0)


def test_e22_the_leader_is_killed_and_another_goes_on_with_the_ledger_whole(
    hand: Hand, admin: Api, make_controller: MakeController, wait_until: WaitUntil
) -> None:
    first = make_controller("controller-a")
    wait_until(lambda: leader(admin) == "controller-a", 20.0)
    make_controller("controller-b")
    hand.define()
    hand.statefulset("web", 0, [hand.address(5)])
    wait_until(lambda: hand.phases() == {5: "Reserved"}, 20.0)
    wait_until(lambda: hand.causes(5) == ["reserved by a map"], 10.0)
    first.kill()
    stranger = hand.bare_pod("s")
    hand.delete(hand.bind(stranger, 7, uid=stranger.uid))  # while nobody watches
    wait_until(lambda: leader(admin) == "controller-b", 15.0)
    hand.statefulset("web", 0, [])
    wait_until(lambda: hand.phases() == {}, 15.0)
    wait_until(
        lambda: hand.causes(5) == ["reserved by a map", f"no map gives it to {hand.namespace}/web-0 any more"], 10.0
    )
    assert hand.causes(7) == ["allocated", "DEL"]


def test_e22_two_that_lead_at_once_do_no_harm(
    hand: Hand, admin: Api, make_controller: MakeController, wait_until: WaitUntil
) -> None:
    """A stopped leader wakes up in the middle of its work and does not know that another leads by then."""
    first = make_controller("controller-a")
    hand.define(whenScaled="Release")
    hand.statefulset("web", 3)
    wait_until(lambda: all(hand.pod(f"web-{n}") for n in range(3)), 20.0)
    held = [hand.add("web", n, 1 + n) for n in range(3)]
    wait_until(lambda: hand.retention(3)["whenScaled"] == "Release", 10.0)
    hand.scale("web", 1)
    wait_until(lambda: hand.pod("web-1") is None and hand.pod("web-2") is None, 20.0)
    first.pause()
    for allocation in held[1:]:
        hand.delete(hand.read(allocation))
    make_controller("controller-b")
    wait_until(lambda: leader(admin) == "controller-b", 20.0)
    first.resume()
    wait_until(lambda: hand.phases() == {1: "Bound"}, 15.0)
    wait_until(lambda: [len(hand.causes(n)) for n in (2, 3)] == [4, 4], 15.0)
    assert leader(admin) == "controller-b"
    first.stop()
