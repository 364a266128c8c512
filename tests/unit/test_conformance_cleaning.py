"""A conformance run on an API server in memory, where nothing starts pods: what is told, and what is left of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import pytest
from tests.stand_ins import StandingClock
from tests.stand_ins_objects import Call, MemoryObjects

from homeport.conformance.cleaning import PREFIX
from homeport.conformance.matrix import Row, chosen
from homeport.conformance.process import Run, Subject, Watcher
from homeport.conformance.reports import Outcome, Report, RowFailed, Verdict, summary
from homeport.conformance.sites import Site
from homeport.conformance.worlds import Settings
from homeport.ipam.allocations import Allocation, Phase, Retention
from homeport.ipam.identities import Replica, Slot, Workload
from homeport.kube import resources
from homeport.kube.resources import CUSTOM_RESOURCES, DEPLOYMENTS, NAMESPACES, NODES, PODS, STATEFUL_SETS
from homeport.model.addresses import IPAddress
from homeport.model.errors import NoSuchObject
from homeport.stores.kubernetes.resources import IPALLOCATIONS
from homeport.stores.kubernetes.store import KubernetesStore

ON_ETH1 = Subject(master="eth1", ranges=("10.9.0.0/24",))


class Patience(threading.Event):
    """Time passes for whoever waits for it."""

    def __init__(self, clock: StandingClock) -> None:
        super().__init__()
        self._clock = clock

    def wait(self, timeout: float | None = None) -> bool:
        self._clock.sleep(timeout or 0.0)
        return self.is_set()


class Bench:
    """A cluster with Homeport's resources, unless told otherwise."""

    def __init__(self, *, installed: bool = True) -> None:
        self.objects = MemoryObjects()
        self.clock = StandingClock()
        self.store = KubernetesStore(self.objects, now=self.clock.now, monotonic=self.clock.monotonic)
        self.stop, self.abandon = Patience(self.clock), Patience(self.clock)
        self.told: list[str] = []
        self.settings = Settings(timeout_seconds=10.0)
        if installed:
            self.objects.create(CUSTOM_RESOURCES, {"metadata": {"name": "ipallocations.homeport.dev"}})

    def run(self, *rows: Row, keep: bool = False) -> Report:
        return self.runner().run(ON_ETH1, rows, keep=keep)

    def runner(self) -> Run:
        watcher = Watcher(doing=self.told.append, done=self._done)
        return Run(
            self.objects,
            self.store,
            self.settings,
            watcher,
            clock=self.clock,
            stop=self.stop,
            abandon=self.abandon,
        )

    def _done(self, outcome: Outcome) -> None:
        self.told.append(f"{outcome.verdict.value} {outcome.row}")

    def namespaces(self) -> list[str]:
        return [found.name for found in self.objects.list(NAMESPACES)]

    def retain(self, namespace: str, number: int = 1, *, when_deleted: str = "Retain") -> Allocation:
        """For a replica of that namespace, which has gone."""
        slot = Slot(Replica(Workload(namespace, "StatefulSet", "web"), 0), "lan", "net1")
        return self.store.create(
            Allocation(
                scope="",
                address=ip(number),
                slot=slot,
                phase=Phase.RETAINED,
                since=self.clock.now(),
                retention=Retention(when_deleted="Retain" if when_deleted == "Retain" else "Release"),
            ),
            cause="DEL",
        )

    def addresses(self) -> list[str]:
        return [str(a.address) for a in self.store.all()]


def ip(number: int) -> IPAddress:
    return ip_address(f"10.9.0.{number}")


def row(run: Callable[[Site], None], name: str = "E2") -> Row:
    return Row(name=name, event="something", outcome="same", run=run)


def fine(site: Site) -> None:
    site.network(3)
    site.workload("web", 0, *site.networks)


def wrong(site: Site) -> None:
    fine(site)
    raise RowFailed("web-0: found 10.9.0.2, expected 10.9.0.1")


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_run_makes_one_namespace_and_removes_it(bench: Bench) -> None:
    made: list[str] = []
    bench.objects.on_done = lambda call: made.append(call.name) if call.verb == "create" else None
    report = bench.run(row(fine), row(wrong, "E3"), *chosen(["E5"]))
    assert [outcome.verdict for outcome in report.outcomes] == [Verdict.PASSED, Verdict.FAILED, Verdict.NOT_RUN]
    assert bench.told[-1].startswith("clean-up: ")
    verdicts = tuple(verdict.value for verdict in Verdict)
    assert [line for line in bench.told if line.startswith(verdicts)] == ["passed E2", "failed E3", "not run E5"]
    assert made == [report.namespace, "e2-1", "web", "e3-1", "web"]
    assert report.namespace.startswith(PREFIX)
    assert report.left == ()
    assert bench.namespaces() == []
    for resource in (STATEFUL_SETS, DEPLOYMENTS, resources.DEFINITIONS, PODS):
        assert list(bench.objects.list(resource)) == []


def test_a_row_that_breaks_off_in_an_unforeseen_way_leaves_nothing_either(bench: Bench) -> None:
    def broken(site: Site) -> None:
        fine(site)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        bench.run(row(broken))
    assert bench.namespaces() == []


def test_what_policy_retains_is_released_and_nothing_of_others(bench: Bench) -> None:
    theirs = bench.retain("shop", 200)

    def retaining(site: Site) -> None:
        bench.retain(site.world.namespace, 1)

    report = bench.run(row(retaining))
    assert report.outcomes[0].verdict is Verdict.PASSED
    assert bench.addresses() == [str(theirs.address)]
    assert report.left == ()


def test_what_others_have_broken_is_left_alone(bench: Bench) -> None:
    broken = {"metadata": {"name": "10.9.0.77"}, "spec": {"address": "10.9.0.777"}}
    bench.objects.create(IPALLOCATIONS, broken)
    assert bench.run(row(fine)).is_green
    assert [stored.name for stored in bench.objects.list(IPALLOCATIONS)] == ["10.9.0.77"]


def test_an_address_that_nobody_freed_fails_its_row(bench: Bench) -> None:
    """Of a workload that is gone and was not to keep it. The run's own clean-up releases it in the end."""

    def leaking(site: Site) -> None:
        bench.retain(site.world.namespace, 1, when_deleted="Release")

    report = bench.run(row(leaking))
    assert report.outcomes[0].verdict is Verdict.FAILED
    assert report.outcomes[0].reason == "10.9.0.1 (Retained, web-0) is left of pods that are gone"
    assert report.left == ()
    assert bench.addresses() == []


def test_pods_that_do_not_go_are_named(bench: Bench) -> None:
    """As on a node that is gone: nothing is forced, and the namespace stays for whoever looks after it."""

    def stuck(call: Call) -> Any:
        return "before" if call.verb == "delete" and call.resource in (PODS, NAMESPACES) else "done"

    def starting(site: Site) -> None:
        body = {"metadata": {"name": "web-0"}, "status": {"phase": "Running"}}
        site.world.objects.create(PODS, body, namespace=site.world.namespace)
        bench.objects.fate = stuck

    report = bench.run(row(starting))
    assert report.outcomes[0].verdict is Verdict.FAILED
    assert not report.is_green
    assert any("pods" in line for line in report.left)
    assert any(report.namespace in line for line in report.left)
    assert bench.namespaces() == [report.namespace]


def test_the_first_signal_ends_the_rows_and_the_second_the_cleanup(bench: Bench) -> None:
    def waiting(site: Site) -> None:
        bench.stop.set()
        site.world.wait(lambda _views: False, "nothing")

    report = bench.run(row(waiting), row(fine, "E3"))
    assert report.interrupted
    assert report.outcomes == ()
    assert report.left == ()
    assert bench.namespaces() == []
    bench.abandon.set()
    bench.objects.fate = lambda call: "before" if call.verb == "delete" and call.resource == NAMESPACES else "done"
    report = bench.run(row(fine))
    assert report.left == (f"namespace {report.namespace} and what is in it: the clean-up was broken off",)
    assert summary(report).endswith(f"homeport conformance --clean {report.namespace}")


def test_an_api_server_that_is_away_for_a_moment_is_asked_again(bench: Bench) -> None:
    def patient(site: Site) -> None:
        bench.objects.fail("list", resource=PODS, times=3)
        site.world.wait(lambda _views: True, "pods are listed")
        bench.objects.fail("list", resource=PODS, times=1000)
        site.world.wait(lambda _views: True, "pods are listed again")

    report = bench.run(row(patient))
    assert report.outcomes[0].verdict is Verdict.FAILED
    assert report.outcomes[0].reason.startswith("still not so after 10 s: pods are listed again (")


def test_without_homeports_resources_nothing_is_said_of_phases() -> None:
    bench = Bench(installed=False)
    report = bench.run(row(lambda site: site.world.await_kept("Bound", [ip(1)])))
    assert (report.records, report.notes, report.is_green) == (False, (), True)


def test_a_pod_whose_addresses_cannot_be_read_is_told_of(bench: Bench) -> None:
    """Others' annotations may be anything; what they have is only a hint."""
    for name, status in (("odd", "{"), ("good", '[{"interface": "net1", "ips": ["10.9.0.254"]}]')):
        annotations = {"k8s.v1.cni.cncf.io/network-status": status}
        bench.objects.create(PODS, {"metadata": {"name": name, "annotations": annotations}}, namespace="shop")
    windows: list[Any] = []

    def looking(site: Site) -> None:
        windows.append(site.world.take(64))

    report = bench.run(row(looking))
    assert report.outcomes[0].verdict is Verdict.PASSED
    assert windows[0][0][-1] == ip(253)
    (note,) = report.notes
    assert note.startswith("what a pod of namespace shop has was not left out: decode pod odd")


def test_what_somebody_else_removes_fails_the_row(bench: Bench) -> None:
    def robbed(site: Site) -> None:
        fine(site)
        bench.objects.delete(STATEFUL_SETS, "web", namespace=site.world.namespace)
        site.scale("web", 1)

    (outcome,) = bench.run(row(robbed)).outcomes
    assert outcome.verdict is Verdict.FAILED
    assert outcome.reason == "web: somebody else has changed or removed it"


def test_only_what_a_run_made_is_cleaned(bench: Bench) -> None:
    bench.objects.create(NAMESPACES, {"metadata": {"name": "homeport-conformance-mine"}})
    with pytest.raises(NoSuchObject, match='"homeport-conformance-mine": found no conformance run'):
        bench.runner().clean_old("homeport-conformance-mine")
    report = bench.run(row(fine), keep=True)
    assert report.notes[0].endswith(f"homeport conformance --clean {report.namespace}")
    assert report.namespace in bench.namespaces()
    assert bench.run(row(fine)).notes == (
        f"namespace {report.namespace} is of another run; if that is over: homeport conformance --clean"
        f" {report.namespace}",
    )
    assert bench.runner().clean_old(report.namespace) == ()
    assert bench.namespaces() == ["homeport-conformance-mine"]


def test_a_failed_row_is_kept_and_a_passed_one_is_not(bench: Bench) -> None:
    bench.run(row(fine), row(wrong, "E3"), keep=True)
    assert [found.name for found in bench.objects.list(resources.DEFINITIONS)] == ["e3-1"]


@pytest.mark.parametrize(("free", "ran"), [(9, False), (12, True), (14, True)])
def test_pools_of_one_row_have_no_address_in_common(bench: Bench, free: int, ran: bool) -> None:
    """Whatever rows before it took."""
    windows: list[frozenset[IPAddress]] = []

    def two(site: Site) -> None:
        windows[:] = [frozenset(site.world.take(6)[0]) for _ in range(2)]

    def one(site: Site) -> None:
        site.world.take(5)

    subject = Subject(master="eth1", ranges=(f"10.9.0.1-10.9.0.{free}/24",))
    report = bench.runner().run(subject, [row(one), row(two), row(two)])
    assert [outcome.verdict is Verdict.PASSED for outcome in report.outcomes] == [True, ran, ran]
    if ran:
        assert not windows[0] & windows[1]
    else:
        assert report.outcomes[1].reason == "12 addresses in a row are needed, and 9 are free in macvlan-on-eth1"


def test_nodes_where_pods_cannot_go_are_left_out(bench: Bench) -> None:
    taint = {"key": "k", "effect": "NoSchedule"}
    specs: dict[str, Any] = {
        "a": {},
        "b": {"unschedulable": True},
        "c": {"taints": [taint]},
        "d": {"taints": [{**taint, "effect": "PreferNoSchedule"}]},
    }
    for name, spec in specs.items():
        bench.objects.create(NODES, {"metadata": {"name": name}, "spec": spec})
    found: list[str] = []
    bench.run(row(lambda site: found.extend(site.world.nodes())))
    assert found == ["a", "d"]
    bench.settings = Settings(timeout_seconds=10.0, nodes=("d", "b"))
    (moved,) = bench.run(*chosen(["E4"])).outcomes
    assert moved.reason == "nodes where its pods may run: found 1, expected 2 at least"
