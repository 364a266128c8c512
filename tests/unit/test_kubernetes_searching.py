"""Which addresses are tried: from hints, from lists, from what this process learned, and spread over many nodes."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network

import msgspec
import pytest
from tests.stand_ins_objects import Call, MemoryObjects, MemoryServer

from homeport.ipam.allocations import Allocation, Phase
from homeport.ipam.identities import PodOwner, Slot
from homeport.ipam.ranges import Span
from homeport.model.addresses import IPAddress
from homeport.model.errors import TryAgainLater
from homeport.ports import AlreadyExists
from homeport.stores.kubernetes import names
from homeport.stores.kubernetes.candidates import WINDOW_MAX, Window
from homeport.stores.kubernetes.hints import RangeReport, Totals, decode_range, range_body, range_patch
from homeport.stores.kubernetes.resources import IPALLOCATIONS, IPRANGES
from homeport.stores.kubernetes.runs import Runs
from homeport.stores.kubernetes.store import KubernetesStore

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
POOL = Span(ip_address("10.9.0.0"), ip_address("10.9.3.255"))
WaitUntil = Callable[..., None]


def at(offset: int) -> IPAddress:
    return POOL.first + offset


def offsets(found: tuple[IPAddress, ...]) -> list[int]:
    return [int(a) - int(POOL.first) for a in found]


def report(taken: Runs, *, up_to: int | None = None, first: IPAddress = POOL.first) -> RangeReport:
    return RangeReport(
        scope="",
        first=first,
        last=POOL.last,
        subnet=ip_network("10.9.0.0/22"),
        totals=Totals(usable=1024),
        taken=taken,
        up_to=up_to,
        updated=NOW,
    )


class Time:
    """No two readings are the same."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.readers = set[int]()

    def __call__(self) -> float:
        self.readers.add(threading.get_ident())
        self.seconds += 1e-6
        return self.seconds


class Node:
    """A store that reads its hints when a test says so."""

    def __init__(self, server: MemoryServer | None = None, seed: int = 0) -> None:
        self.objects = MemoryObjects(server, threaded=False)
        self.time = Time()
        self.store = KubernetesStore(self.objects, monotonic=self.time, rng=random.Random(seed))
        self.store.start()

    def free(self, count: int = 3, span: Span = POOL, near: IPAddress | None = None) -> list[int]:
        return offsets(self.store.lowest_free("", span, [], count=count, near=near))

    def lists(self) -> int:
        calls, self.objects.calls = self.objects.calls, []
        return sum(c.verb == "names" for c in calls)

    def hint(self, told: RangeReport) -> None:
        """The controller writes it, and the node hears of it."""
        name = names.range_name("", told.first, told.last)
        if self.objects.get(IPRANGES, name) is None:
            self.objects.create(IPRANGES, range_body(told))
        else:
            self.objects.patch(IPRANGES, name, range_patch(told))
        self.objects.deliver()
        self.objects.calls.clear()

    def claim(self, offset: int, name: str = "p") -> Allocation:
        owner = PodOwner("shop", name, "u")
        of = Allocation(scope="", address=at(offset), slot=Slot(owner, "lan", "net1"), phase=Phase.RETAINED, since=NOW)
        return self.store.create(of, cause="allocated")


# --- hints ---


def test_a_hint_spares_every_list() -> None:
    node = Node()
    node.hint(report(Runs([0, 1, 3])))
    assert node.free() == [2, 4, 5]
    assert node.lists() == 0


def test_a_hint_of_a_wider_range_will_do() -> None:
    node = Node()
    node.hint(report(Runs([0, 1, 6])))
    assert node.free(span=Span(at(5), at(9))) == [5, 7, 8]
    assert node.lists() == 0


def test_a_newer_hint_replaces_what_was_known() -> None:
    node = Node()
    node.hint(report(Runs([0, 1])))
    assert node.free() == [2, 3, 4]
    node.hint(report(Runs([2])))
    assert node.free() == [0, 1, 3]


def test_what_a_hint_cannot_know_yet_is_remembered() -> None:
    node = Node()
    node.hint(report(Runs([0])))
    node.claim(1)
    node.time.seconds += 29
    node.hint(report(Runs([0, 9])))
    assert node.free() == [2, 3, 4]
    node.time.seconds += 2
    node.hint(report(Runs([0])))
    assert node.free() == [1, 2, 3], "half a minute later it would know"


def test_a_hint_that_was_cut_is_used_as_far_as_it_goes() -> None:
    node = Node()
    node.hint(report(Runs([0, 1]), up_to=4))
    assert node.free() == [2, 3]
    node.claim(2)
    node.claim(3)
    assert node.free() == [0, 1, 4]
    assert node.lists() == 1, "beyond it only a list can tell"


def test_a_hint_that_cannot_be_decoded_is_no_hint() -> None:
    node = Node()
    node.hint(report(Runs([0])))
    node.objects.patch(IPRANGES, names.range_name("", POOL.first, POOL.last), {"status": {"taken": "7-"}})
    node.objects.deliver()
    assert node.free() == [0, 1, 2]
    assert node.lists() == 1


def test_a_hint_that_is_gone_is_not_asked_for_again() -> None:
    node = Node()
    node.hint(report(Runs([0])))
    assert node.free() == [1, 2, 3]
    node.objects.delete(IPRANGES, names.range_name("", POOL.first, POOL.last))
    node.objects.deliver()
    assert node.free() == [1, 2, 3]
    assert node.lists() == 0


def test_a_stale_hint_is_corrected_by_what_claims_meet() -> None:
    node = Node()
    other = Node(node.objects.server)
    node.hint(report(Runs()))
    other.claim(0)
    with pytest.raises(AlreadyExists):
        node.claim(0)
    assert 0 not in node.free()
    assert node.lists() == 0


# --- lists ---


def test_a_range_without_a_hint_is_listed_once() -> None:
    node = Node()
    Node(node.objects.server).claim(1)
    assert node.free() == [0, 2, 3]
    made = node.claim(0)
    assert node.free() == [2, 3, 4]
    node.store.delete(made, cause="DEL")
    assert node.free() == [0, 2, 3]
    assert node.lists() == 1


def test_nothing_is_free_only_by_a_list_of_now() -> None:
    node = Node()
    other = Node(node.objects.server)
    two = Span(at(0), at(1))
    node.hint(report(Runs([0, 1])))
    assert node.free(span=two) == [0, 1], "the hint was wrong"
    assert node.lists() == 1
    node.claim(0)
    theirs = other.claim(1)
    assert node.free(span=two) == [1], "not known yet"
    with pytest.raises(AlreadyExists):
        node.claim(1)
    node.lists()
    assert node.free(span=two) == []
    assert node.free(span=two) == []
    assert node.lists() == 2, "each answer has a list of its own"
    other.store.delete(theirs, cause="DEL")
    assert node.free(span=two) == [1]


def test_a_list_that_fails_is_not_an_empty_range() -> None:
    node = Node()
    node.hint(report(Runs([0])))
    node.objects.fail("names")
    with pytest.raises(TryAgainLater):
        node.free(span=Span(at(0), at(0)))


def test_an_address_whose_label_was_taken_away_is_still_taken() -> None:
    """Lists go by labels, names by themselves; else a search would offer what every claim is refused."""
    node = Node()
    other = Node(node.objects.server)
    one = Span(at(0), at(0))
    other.claim(0)
    node.objects.patch(IPALLOCATIONS, str(at(0)), {"metadata": {"labels": {names.SCOPE: None}}})
    assert node.free(span=one) == [0]
    with pytest.raises(AlreadyExists):
        node.claim(0)
    assert node.free(span=one) == []
    node.objects.delete(IPALLOCATIONS, str(at(0)))
    assert node.free(span=one) == [0]


def test_a_claim_that_is_not_in_the_api_servers_cache_yet_is_asked_for_by_name() -> None:
    """Names come from a cache; what is known beside it, and missing there, is neither believed nor forgotten."""
    node = Node()
    two = Span(at(0), at(1))
    node.hint(report(Runs([0, 1])))
    theirs = Node(node.objects.server).claim(0)
    with pytest.raises(AlreadyExists):
        node.claim(0)
    node.claim(1)
    node.objects.names = lambda *_, **__: []  # type: ignore[method-assign]  # a cache that knows of neither
    node.objects.calls.clear()
    assert node.free(span=two) == []
    assert [c.verb for c in node.objects.calls] == ["get", "get"]
    Node(node.objects.server).store.delete(theirs, cause="DEL")
    assert node.free(span=two) == [0]


def test_an_own_claim_that_the_cache_lacks_is_no_collision() -> None:
    """Nobody else was in the way, so there is nobody to spread the candidates for."""
    node = Node()
    for offset in (0, 3):
        node.claim(offset)
    node.objects.names = lambda *_, **__: []  # type: ignore[method-assign]  # a cache that knows of neither
    assert node.free(count=8) == [1, 2, 4, 5, 6, 7, 8, 9]


def test_what_this_process_gave_back_is_free_whatever_the_cache_says() -> None:
    node = Node()
    one = Span(at(0), at(0))
    made = node.claim(0)
    old = node.objects.names(IPALLOCATIONS)
    node.store.delete(made, cause="DEL")
    node.objects.names = lambda *_, **__: old  # type: ignore[method-assign]  # a cache that still has it
    assert node.free(span=one) == [0]
    node.time.seconds += 6
    node.hint(report(Runs([0])))
    assert node.free(span=one) == [], "it was taken again since"


def test_names_of_a_large_full_range_are_asked_for_now_and_then() -> None:
    """Each time takes a second here: no more than every fourth second, however many hints come between."""
    node = Node()
    one = Span(at(0), at(0))
    node.claim(0)

    def slowly(call: Call) -> None:
        if call.verb == "names":
            node.time.seconds += 1.0

    node.objects.on_call = slowly
    asked = 0
    for second in range(40):
        node.hint(report(Runs([0, 1 + second])))
        assert node.free(span=one) == []
        asked += node.lists()
        node.time.seconds += 1.0
    assert 8 <= asked <= 16


def test_an_undecodable_object_holds_the_address_of_its_name() -> None:
    node = Node()
    node.claim(0)
    node.objects.patch(IPALLOCATIONS, str(at(0)), {"spec": {"address": "rubbish"}})
    assert Node(node.objects.server).free() == [1, 2, 3]


def test_other_scopes_are_other_addresses() -> None:
    node = Node()
    node.claim(0)
    assert offsets(node.store.lowest_free("blue", POOL, [], count=2)) == [0, 1]


# --- many nodes, many threads ---


def test_a_calm_node_takes_the_lowest() -> None:
    node = Node()
    for expected in range(50):
        assert node.free(8)[0] == expected
        node.claim(expected, f"p{expected}")


def test_collisions_spread_the_candidates_and_calm_gathers_them() -> None:
    window = Window()
    for _ in range(20):
        window.collided()
    assert (window.size, window.collisions) == (WINDOW_MAX, 20)
    for _ in range(8 * 8):
        window.succeeded()
    assert (window.size, window.collisions) == (1, 0)


def test_nodes_that_see_the_same_hint_do_not_follow_each_other() -> None:
    """Twenty nodes, fifty claims each, none of which any other node hears of: a pool of 1024 with 1000 claims."""
    server = MemoryServer()
    nodes = [Node(server, seed) for seed in range(20)]
    nodes[0].hint(report(Runs()))
    for node in nodes:
        node.objects.deliver()
        node.objects.calls.clear()
    for round_ in range(50):
        for number, node in enumerate(nodes):
            node.time.seconds += 0.1
            claim_one(node, f"p{number}-{round_}")
    assert len(server.objects) == 1001
    creates = sum(c.verb == "create" for node in nodes for c in node.objects.calls)
    lists = sum(c.verb == "names" for node in nodes for c in node.objects.calls)
    assert creates < 3 * 1000
    assert lists < 200


def claim_one(node: Node, name: str) -> int:
    """As claiming does it: candidates in their order, and new ones when all were taken."""
    while True:
        candidates = node.free(8)
        assert candidates
        for offset in candidates:
            try:
                node.claim(offset, name)
            except AlreadyExists:
                continue
            return offset


def test_threads_of_a_node_are_given_different_addresses() -> None:
    node = Node()
    node.hint(report(Runs()))
    gate, given = threading.Barrier(4), list[list[int]]()

    def ask() -> None:
        gate.wait()
        given.append(node.free(8))
        gate.wait()  # nobody ends, and lets go, before all were given theirs

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(n for part in given for n in part) == list(range(32))


def test_threads_share_what_is_left() -> None:
    node = Node()
    node.hint(report(Runs(range(2, 1024))))
    other = threading.Thread(target=node.free, args=(8,))
    other.start()
    other.join()
    assert node.free(8) == [0, 1]
    node.time.seconds += 6
    assert node.free(8) == [0, 1]


def test_one_list_serves_all_threads_that_wait_for_it(wait_until: WaitUntil) -> None:
    """But none that was begun before they asked: so there are two."""
    node = Node()
    node.hint(report(Runs(range(1024))))
    for offset in (0, 1):
        node.claim(offset)
    node.lists()
    node.time.readers.clear()
    node.objects.on_call = lambda _: wait_until(lambda: len(node.time.readers) == 4)  # all have asked
    found: list[list[int]] = []
    threads = [threading.Thread(target=lambda: found.append(node.free(span=Span(at(0), at(1))))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[]] * 4
    assert node.lists() == 2


# --- where to begin ---


def test_a_search_begins_near_and_goes_round() -> None:
    node = Node()
    node.hint(report(Runs([512, 514])))
    assert node.free(near=at(512)) == [513, 515, 516]
    assert node.free(near=at(1023), count=3) == [1023, 0, 1]
    assert node.free(near=ip_address("10.8.0.1")) == [0, 1, 2]


def test_excluded_addresses_are_never_offered() -> None:
    node = Node()
    node.hint(report(Runs([1])))
    found = node.store.lowest_free("", POOL, [Span(at(0), at(0)), Span(at(2), at(9))], count=2)
    assert offsets(found) == [10, 11]


def test_a_report_of_a_range_is_read_back() -> None:
    told = msgspec.structs.replace(
        report(Runs([0, 1, 7])), networks=("shop/lan", "shop/wan"), totals=Totals(usable=1022, bound=3, free=1019)
    )
    made = MemoryObjects().create(IPRANGES, range_body(told))
    read = decode_range(made)
    assert str(read.taken) == "0-1,7"
    assert msgspec.structs.replace(read, taken=told.taken) == told
