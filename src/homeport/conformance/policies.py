"""Rows of the matrix (docs/identity.md) about who keeps addresses and for how long, and about maps.

Where the cluster has allocations, their phases are looked at too. Where it has none, the same is seen by what others
get: a pool has room for another workload as soon as, and not before, its addresses are free.
"""

from __future__ import annotations

import json

from homeport.conformance import observing
from homeport.conformance.reports import NotRun, RowFailed
from homeport.conformance.restarts import POOL, WEB, require_apart, require_same, running
from homeport.conformance.sites import Site, as_map, mapped
from homeport.kube.resources import STATEFUL_SETS
from homeport.ports import Deletion

_MISSING = {"type": "homeport-conformance-missing"}  # a plugin that no node has
_OUTSIDE = {4: "192.0.2.1", 6: "2001:db8::1"}  # for documentation, and in nobody's range (RFC 5737, RFC 3849)
_NO_MAP = {"homeport.dev/addresses": None}


def e9_scaled_down_and_up_in_a_busy_pool(site: Site) -> None:
    """When it is to be 5 again, one address is left for two."""
    world = site.world
    network, before = running(site, size=8, replicas=5, whenScaled="Release")
    kept = {pod: before[pod] for pod in (f"{WEB}-{n}" for n in range(3))}
    site.scale(WEB, 3)
    world.await_seen(kept, WEB)
    site.workload("crowd", 4, network, kind="Deployment")
    world.await_up("crowd", 4)
    site.scale(WEB, 5)
    world.await_refused(WEB)
    world.await_up(WEB, 4)
    site.delete_workload("crowd")
    now = world.await_up(WEB, 5)
    require_same({pod: now.get(pod, {}) for pod in kept}, kept)
    world.await_gone("crowd")
    world.require_no_leak()


def e10_free_once_the_pods_are_gone(site: Site) -> None:
    """Another workload waits for exactly these addresses."""
    world = site.world
    network = site.network(3)
    for manner in (Deletion(propagation="Background"), Deletion(propagation="Foreground")):
        site.workload(WEB, 3, network)
        before = world.await_up(WEB, 3)
        site.workload("next", 3, network)
        world.await_refused("next")
        early = world.seen("next")
        if early:
            raise RowFailed(f"{', '.join(early)} run, expected them to wait for the pods of {WEB}")
        site.delete_workload(WEB, manner)
        got = world.await_up("next", 3)
        if observing.flat(got) != observing.flat(before):
            raise RowFailed(f"a pool of 3 gave others than its addresses: {observing.difference(got, before)}")
        world.await_gone(WEB)
        site.delete_workload("next")
        world.await_gone()


def e11_orphans_keep_and_are_adopted(site: Site) -> None:
    """Nobody else gets their addresses meanwhile."""
    world = site.world
    network, before = running(site, size=3)
    uids = world.uids()
    site.delete_workload(WEB, Deletion(propagation="Orphan"))
    world.wait(lambda _: not site.exists(WEB), f"{WEB} is gone, and its pods are not")
    site.workload("next", 1, network)
    world.await_refused("next")
    site.delete_workload("next")
    world.await_gone("next")
    world.await_seen(before, WEB)
    if world.uids() != uids:
        raise RowFailed("the orphaned pods are not the same any more")
    world.await_kept("Bound", observing.flat(before))
    site.workload(WEB, 3, network)
    world.wait(lambda views: all(view.owned for view in views), f"the pods are adopted by {WEB}")
    if world.uids() != uids:
        raise RowFailed("the adopted pods are not the same any more")
    site.delete_pods(*before)
    world.await_seen(before, WEB, but=uids)
    world.require_no_leak()


def e12_deleted_and_made_again(site: Site) -> None:
    """Meanwhile another workload starts."""
    world = site.world
    if world.is_blind:
        raise NotRun("what it retains could not be released: allocations are there, and were not looked at")
    network, before = running(site, size=5, whenDeleted="Retain")
    site.delete_workload(WEB)
    world.await_gone()
    world.await_kept("Retained", observing.flat(before))
    site.workload("other", 2, network)
    require_apart(world.await_up("other", 2), before)
    site.workload(WEB, 3, network)
    world.await_seen(before, WEB)
    world.require_no_leak()


def e13_retain_for_passes(site: Site) -> None:
    """Others get the addresses when the time has passed."""
    world = site.world
    network, before = running(site, size=3, retainFor="5s")
    let_go = {pod: addresses for pod, addresses in before.items() if pod != f"{WEB}-0"}
    site.scale(WEB, 1)
    site.workload("next", 2, network)
    got = world.await_up("next", 2)
    for address in observing.flat(let_go) & observing.flat(got):
        world.await_cause(address, "retained for")
    world.require_no_leak()


def e14_ordinals_start_elsewhere(site: Site) -> None:
    """A map counts from the first ordinal."""
    world = site.world
    network = site.network(POOL)
    fixed = as_map(network, 3, 4, 5)
    site.workload(WEB, 3, network, annotations=fixed)
    world.await_seen(site.having(WEB, 3, 4, 5), WEB)
    site.workload(WEB, 3, network, annotations=fixed, ordinals={"start": 5})
    stored = world.objects.get(STATEFUL_SETS, WEB, namespace=world.namespace)
    if stored is None or "ordinals" not in json.loads(stored.body)["spec"]:
        raise NotRun("this Kubernetes has no spec.ordinals.start (before 1.26)")
    world.await_seen(site.having(WEB, 3, 4, 5, first=5), WEB)
    world.require_no_leak()


def e15_no_stranger_gets_a_mapped_address(site: Site) -> None:
    """The map stands once in the workload, and once in the network; replicas 0 to 2 have numbers 0, 2 and 4 of six."""
    world = site.world
    for where in ("workload", "network"):
        site.anew()
        network, name, crowd = site.network(6), f"{WEB}-{where}", f"crowd-{where}"
        own = site.having(name, 0, 2, 4)
        if where == "network":
            site.change(network, {"replicas": {f"{world.namespace}/{name}": network.texts(0, 2, 4)}})
        site.workload(name, 0, network, annotations=as_map(network, 0, 2, 4) if where == "workload" else None)
        world.await_kept("Reserved", observing.flat(own))
        site.workload(crowd, 4, network, kind="Deployment")
        require_apart(world.await_up(crowd, 3), own)
        world.await_refused(crowd)
        site.scale(name, 3)
        world.await_seen(own, name)
        require_apart(world.await_up(crowd, 3), own)
    world.require_no_leak()


def e16_wrong_maps_are_refused(site: Site) -> None:
    """A duplicate, an address outside of the range, and one too few. The refusal names the entry."""
    world = site.world
    site.remark = "at ADD; admission leaves the run's namespace out"
    for mistake in ("duplicate", "outside", "short"):
        site.anew()
        network, name = site.network(3), f"{WEB}-{mistake}"
        entries = network.texts(0, 1)
        wrong = {
            "duplicate": [*entries, entries[1]],
            "outside": [*entries, [_OUTSIDE[run[0].version] for run in network.window]],
            "short": entries,
        }[mistake]
        named = "ordinal 2" if mistake == "short" else wrong[2][0]
        site.workload(name, 3, network, annotations=mapped(network, wrong))
        world.await_refused(f"{name}-2", named)
        if mistake == "short":
            require_same(world.await_up(name, 2), site.numbered(name, 2))
    world.require_no_leak()


def e17_a_map_changes(site: Site) -> None:
    """First to an address that is free; then to one that is a stranger's."""
    world = site.world
    network = site.network(POOL)
    site.workload(WEB, 3, network, annotations=as_map(network, 0, 1, 2))
    before = site.having(WEB, 0, 1, 2)
    world.await_seen(before, WEB)
    uids = world.uids()
    site.workload(WEB, 3, network, annotations=as_map(network, 0, 1, 4))
    after, last = site.having(WEB, 0, 1, 4), f"{WEB}-2"
    world.await_kept("Reserved", observing.flat({last: after[last]}))
    world.await_seen(before, WEB)
    if world.uids() != uids:
        raise RowFailed("pods were restarted by an annotation of their workload, expected them to run on")
    old = world.uids(last)
    site.delete_pods(last)
    world.await_seen(after, WEB, but=old)
    world.require_no_leak()
    world.await_kept("Retained", ())
    site.workload("stranger", 1, network)
    taken = [str(address) for address in observing.flat(world.await_up("stranger", 1))]
    site.workload(WEB, 3, network, annotations=mapped(network, [*network.texts(0, 1), taken]))
    site.delete_pods(last)
    world.await_refused(last, "stranger-0")
    world.await_kept("Retained", observing.flat({last: after[last]}))
    site.workload(WEB, 3, network, annotations=_NO_MAP)
    world.await_seen(after, WEB)
    world.require_no_leak()


def e23_one_of_the_interfaces_fails(site: Site) -> None:
    """The second interface's chain ends in a plugin that is not there; then it is mended."""
    world = site.world
    good, bad = site.network(POOL), site.network(POOL, None, _MISSING)
    site.workload(WEB, 3, good, bad)
    expected = site.numbered(WEB)
    for pod in expected:
        world.await_refused(pod, _MISSING["type"])
    world.await_kept("Bound", ())
    site.change(bad, None)
    world.await_seen(expected, WEB)
    world.require_no_leak()
