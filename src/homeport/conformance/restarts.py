"""Rows of the matrix (docs/identity.md) in which pods go and come back."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from homeport.conformance import observing
from homeport.conformance.observing import Seen
from homeport.conformance.reports import NotRun, RowFailed
from homeport.conformance.sites import AT_ONCE, Network, Site
from homeport.kube.resources import PODS
from homeport.ports import ObjectChanged

WEB = "web"
ROUNDS = 20  # of the matrix
POOL = 6  # addresses of a pool that is not to be narrow
ON_DELETE: Mapping[str, Any] = {"updateStrategy": {"type": "OnDelete"}}
CONTROLLER = {"app.kubernetes.io/name": "homeport-controller"}


def started(site: Site, size: int = POOL, replicas: int = 3) -> tuple[Network, Seen]:
    """A network, and a StatefulSet `web` on it, each replica with the address of its own number."""
    network = site.network(size)
    site.workload(WEB, replicas, network)
    expected = site.numbered(WEB, replicas)
    site.world.await_seen(expected, WEB)
    return network, expected


def running(site: Site, size: int = POOL, replicas: int = 3, **sticky: object) -> tuple[Network, Seen]:
    """The same, with whichever addresses: what they are at first is E1's matter."""
    network = site.network(size, sticky or None)
    site.workload(WEB, replicas, network)
    return network, site.world.await_up(WEB, replicas)


def e1_first_start(site: Site) -> None:
    """One after the other, and in parallel."""
    for policy in ("OrderedReady", "Parallel"):
        site.anew()
        network, name = site.network(POOL), policy.lower()
        site.workload(name, 3, network, podManagementPolicy=policy)
        site.world.await_seen(site.numbered(name), name)
    site.world.require_no_leak()


def e2_all_deleted_at_once(site: Site) -> None:
    """Where interfaces have MACs of their own, these move with the addresses (R9)."""
    world = site.world
    _, before = running(site)
    macs, uids = _macs(site), world.uids()
    site.delete_pods(*before)
    world.await_seen(before, WEB, but=uids)
    after = _macs(site)
    if world.template.has_own_mac and after != macs:
        changed = [
            f"{pod}: found {after.get(pod)}, expected {own}" for pod, own in macs.items() if after.get(pod) != own
        ]
        raise RowFailed(f"the addresses are the same, the MACs are not: {'; '.join(changed)}")
    world.require_no_leak()


def e3_all_deleted_by_force(site: Site) -> None:
    """The pods' objects are gone before their nodes have done anything."""
    _, before = running(site)
    uids = site.world.uids()
    site.delete_pods(*before, manner=AT_ONCE)
    site.world.await_seen(before, WEB, but=uids)
    site.world.require_no_leak()


def e4_moves_to_another_node(site: Site) -> None:
    """By its pod template: no node is changed for it."""
    world = site.world
    nodes = world.nodes()
    if len(nodes) < 2:
        raise NotRun(f"nodes where its pods may run: found {len(nodes)}, expected 2 at least")
    site.remark = "whether neighbours reach it at once cannot be seen from here"
    network = site.network(POOL)
    site.workload(WEB, 3, network, nodes=nodes, **ON_DELETE)
    before = world.await_up(WEB, 3)
    moving = f"{WEB}-1"
    node, uids = _node_of(site, moving), world.uids(moving)
    site.workload(WEB, 3, network, nodes=[other for other in nodes if other != node], **ON_DELETE)
    site.delete_pods(moving)
    world.await_seen(before, WEB, but=uids)
    if _node_of(site, moving) == node:
        raise RowFailed(f"{moving} is on {node} again, expected another node")
    world.require_no_leak()


def e7_rolling_update(site: Site) -> None:
    """By another annotation of the pod template."""
    network, before = running(site)
    uids = site.world.uids()
    site.workload(WEB, 3, network, pod_annotations={"homeport.dev/conformance-version": "2"})
    site.world.await_seen(before, WEB, but=uids)
    site.world.require_no_leak()


def e8_scaled_to_nothing_while_others_start(site: Site) -> None:
    """Those get other addresses."""
    world = site.world
    network, before = running(site)
    site.scale(WEB, 0)
    world.await_gone(WEB)
    site.workload("other", 2, network)
    require_apart(world.await_up("other", 2), before)
    site.scale(WEB, 3)
    world.await_seen(before, WEB)
    world.require_no_leak()


def e18_strangers_wait_for_what_becomes_free(site: Site) -> None:
    """The pool is full of strangers, and more of them want in."""
    world = site.world
    network, before = running(site, size=6)
    site.workload("crowd", 5, network, kind="Deployment")
    world.await_up("crowd", 3)
    world.await_refused("crowd")
    for _ in range(2):
        uids = world.uids(*before)
        site.delete_pods(*before)
        world.await_seen(before, WEB, but=uids)
    require_apart(world.await_up("crowd", 3), before)
    world.require_no_leak()


def e19_two_workloads_restart_in_parallel(site: Site) -> None:
    """Every round, all pods of both are deleted at once."""
    world = site.world
    site.remark = "" if world.settings.rounds == ROUNDS else f"{world.settings.rounds} of them"
    network, web = running(site)
    site.workload("db", 3, network)
    db = world.await_up("db", 3)
    for _ in range(world.settings.rounds):
        uids = world.uids()
        site.delete_pods(*web, *db)
        world.await_seen(web, WEB, but=uids)
        world.await_seen(db, "db", but=uids)
    world.require_no_leak()


def e22_the_controller_is_killed(site: Site) -> None:
    """Its pods are deleted while it has something to free; others of its Deployment take over."""
    world = site.world
    site.remark = "killed once, by deleting its pods"
    found = world.objects.list(PODS, labels=CONTROLLER)
    if not found:
        ((key, value),) = CONTROLLER.items()
        raise NotRun(f"found no pod of the controller, expected some labelled {key}={value}")
    network, before = running(site, size=3, whenScaled="Release")
    kept = {pod: addresses for pod, addresses in before.items() if pod == f"{WEB}-0"}
    site.scale(WEB, 1)
    for pod in found:
        with suppress(ObjectChanged):
            world.objects.delete(PODS, pod.name, namespace=pod.namespace, uid=pod.uid, manner=AT_ONCE)
    world.await_seen(kept, WEB)
    site.workload("next", 2, network)  # there is room as soon as somebody has freed what was scaled down
    require_apart(world.await_up("next", 2), kept)
    world.await_seen(kept, WEB)
    world.require_no_leak()


def e24_as_many_replicas_as_addresses(site: Site) -> None:
    """All restarted at once, and no ADD of them failed."""
    world = site.world
    replicas = world.settings.replicas
    site.remark = f"{replicas} replicas"
    _, before = running(site, size=replicas, replicas=replicas)
    uids = world.uids()
    site.delete_pods(*before)
    world.await_seen(before, WEB, but=uids)
    failures = world.refusals(uids | world.uids())
    if failures:
        pod, message = next(iter(failures.items()))
        raise RowFailed(f"ADDs of {len(failures)} pods failed, that of {pod} with: {message}")
    world.require_no_leak()


def require_same(found: Seen, expected: Seen) -> None:
    """Every pod has what it should."""
    wrong = observing.difference(found, expected)
    if wrong:
        raise RowFailed(wrong)


def require_apart(strangers: Seen, own: Seen) -> None:
    """None of them has what is another's."""
    theirs = observing.flat(own)
    for pod, addresses in strangers.items():
        both = observing.flat({pod: addresses}) & theirs
        if both:
            raise RowFailed(f"{pod} has {', '.join(map(str, both))}, which {_owner(own, both)} is to keep")


def _owner(own: Seen, addresses: frozenset[object]) -> str:
    return ", ".join(pod for pod, has in own.items() if observing.flat({pod: has}) & addresses)


def _macs(site: Site) -> Mapping[str, Mapping[str, str]]:
    return {view.name: view.macs for view in site.world.views()}


def _node_of(site: Site, pod: str) -> str:
    return next((view.node for view in site.world.views() if view.name == pod), "")
