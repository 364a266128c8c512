"""Doctor on a node: reads what is there, and says what is wrong. Changes nothing. I/O: the gatherers'.

What cannot be looked at keeps the checks that need it silent, and is told as such: nothing is concluded from it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from homeport.doctor import (
    checks_addresses,
    checks_daemon,
    checks_files,
    checks_kernel,
    gathering_daemon,
    gathering_files,
    gathering_kernel,
)
from homeport.doctor.checks_kernel import Wanted
from homeport.doctor.cluster_facts import Seen, Unseen
from homeport.doctor.facts import Attached, NodeFacts, Site
from homeport.doctor.findings import Diagnosis, Report, Unlooked, report
from homeport.doctor.gathering_cluster import ClusterGatherer, uses
from homeport.doctor.gathering_files import Tools
from homeport.doctor.looking import looked, when
from homeport.host.files import LocalFiles
from homeport.host.kernel import Kernel
from homeport.ipam.allocations import Allocation
from homeport.kube import configs
from homeport.ports import Place
from homeport.runtime.caching import ResultCache
from homeport.stores.claims import HeldClaim, read_claims
from homeport.stores.sqlite import read_allocations

_NO_CLUSTER = Unseen("there is no API server to ask")


def examine(site: Site, tools: Tools, *, environ: Mapping[str, str]) -> Report:
    """What there is to say of this node. Raises no `CniError`."""
    return diagnose(gather(site, tools, environ=environ))


def gather(site: Site, tools: Tools, *, environ: Mapping[str, str]) -> NodeFacts:
    """Attachments and claims, then the cluster's side, then the former again: see `NodeFacts`."""
    with ExitStack() as open_:
        host = Kernel(short_lived=True)
        open_.callback(host.close)
        unreadable: list[tuple[str, str]] = []
        attached = looked(lambda: _attached(host, site, unreadable))
        claims = looked(lambda: _claims(site))
        cluster = looked(lambda: _cluster(site, environ))
        if isinstance(cluster, ClusterGatherer):
            open_.callback(cluster.close)
        asked: Seen[ClusterGatherer] = _NO_CLUSTER if cluster is None else cluster
        known = () if isinstance(claims, Unseen) else claims
        networks = _asked(asked, lambda c: c.networks())
        wanted = networks if isinstance(networks, Unseen) else uses(networks)
        plugins = set() if isinstance(wanted, Unseen) else {use.plugin for use in wanted}
        facts = NodeFacts(
            now=datetime.now(UTC),
            site=site,
            files=gathering_files.gather(site, tools, plugins),
            daemon=looked(lambda: gathering_daemon.gather(site.socket)),
            kernel=looked(lambda: gathering_kernel.gather(host, plugins)),
            api=None if cluster is None else _asked(asked, lambda c: c.api()),
            uses=wanted,
            attached=attached,
            claims=claims,
            allocations=looked(lambda: _filed(site)) if site.store else _asked(asked, _of(site, known)),
            pods=_asked(asked, lambda c: c.pods(site.node)),
        )
        if isinstance(asked, ClusterGatherer):
            unreadable += asked.unreadable
        again = looked(lambda: _attached(host, site, [])), looked(lambda: _claims(site))
    return steady(msgspec.structs.replace(facts, unreadable=tuple(unreadable)), *again)


def steady(facts: NodeFacts, attached: Seen[tuple[Attached, ...]], claims: Seen[tuple[HeldClaim, ...]]) -> NodeFacts:
    """What is as it was when it was looked at first; what could not be seen once is not seen."""
    if isinstance(facts.attached, Unseen):
        attached = facts.attached
    elif not isinstance(attached, Unseen):
        before = {_but_age(one) for one in facts.attached}
        attached = tuple(one for one in attached if _but_age(one) in before)
    if isinstance(facts.claims, Unseen) or isinstance(claims, Unseen):
        unseen = facts.claims if isinstance(facts.claims, Unseen) else claims
        return msgspec.structs.replace(facts, attached=attached, claims=unseen)
    kept = tuple(claim for claim in claims if claim in facts.claims)
    passing = {claim.place for claim in (*facts.claims, *claims)} - {claim.place for claim in kept}
    return msgspec.structs.replace(facts, attached=attached, claims=kept, passing=frozenset(passing))


def _but_age(one: Attached) -> Attached:
    return msgspec.structs.replace(one, age_seconds=0.0)


def _attached(host: Kernel, site: Site, unreadable: list[tuple[str, str]]) -> tuple[Attached, ...]:
    found, broken = gathering_kernel.attached(host, ResultCache(site.cni_dir))
    unreadable += broken
    return found


def _claims(site: Site) -> tuple[HeldClaim, ...]:
    """A file that is not there has none: the daemon makes it when it starts."""
    return read_claims(Path(site.claims)) if os.path.exists(site.claims) else ()


def _filed(site: Site) -> Mapping[Place, Allocation]:
    """Of the file that stands for the cluster; none where the first ADD has not made it yet."""
    if not os.path.exists(site.store):
        return {}
    return {(one.scope, one.address): one for one in read_allocations(Path(site.store))}


def _of(site: Site, claims: tuple[HeldClaim, ...]) -> Callable[[ClusterGatherer], Mapping[Place, Allocation]]:
    return lambda cluster: cluster.allocations(site.node, claims)


def _cluster(site: Site, environ: Mapping[str, str]) -> ClusterGatherer | None:
    config = configs.load(site.kubeconfig or None, environ, LocalFiles())
    return None if config is None else ClusterGatherer(config)


def _asked(cluster: Seen[ClusterGatherer], ask: Callable[[ClusterGatherer], Any]) -> Any:
    return cluster if isinstance(cluster, Unseen) else looked(lambda: ask(cluster))


# --- what the facts come to; pure ------------------------------------------------------------------------------------


def diagnose(facts: NodeFacts) -> Report:
    """Pure."""
    return report(f"node {facts.site.node}", _diagnoses(facts), _unlooked(facts))


def _diagnoses(facts: NodeFacts) -> Iterator[Diagnosis]:
    site, files = facts.site, facts.files
    uses_ = () if isinstance(facts.uses, Unseen) else facts.uses
    yield from checks_daemon.configuration(site)
    yield from checks_files.runtime(site, files)
    yield from checks_files.beside(site, files)
    yield from checks_files.programs(site, files, uses_)
    yield from checks_files.journal(site, files)
    yield from when(checks_files.rooms, files.rooms)
    yield from checks_files.databases(files.databases)
    yield from checks_files.modes(site, files)
    yield from when(lambda found: checks_daemon.daemon(site, found), facts.daemon)
    if isinstance(facts.api, Unseen):
        yield checks_daemon.unreachable(site, facts.api.why)
    elif facts.api is not None:
        yield from checks_daemon.api(facts.api)
    wanted = Wanted(facts.pods)
    yield from when(lambda kernel: checks_kernel.kinds(kernel, uses_, wanted), facts.kernel)
    yield from when(lambda kernel: checks_kernel.masters(kernel, uses_, wanted), facts.kernel)
    yield from when(lambda kernel: checks_kernel.settings(kernel, uses_, wanted), facts.kernel)
    yield from when(checks_kernel.leftovers, facts.kernel)
    yield from when(checks_addresses.interfaces, facts.attached)
    yield from when(lambda a, p: checks_addresses.results(site, a, p), facts.attached, facts.pods)
    yield from when(
        lambda i, c, a: checks_addresses.guarded(site, i, c, a.values()),
        facts.attached,
        facts.claims,
        facts.allocations,
    )
    if site.store:
        yield from when(lambda a, k: checks_addresses.filed(site, a, k, facts.now), facts.allocations, facts.attached)
    else:
        yield from when(
            lambda c, a: checks_addresses.held(site, c, a, passing=facts.passing, now=facts.now),
            facts.claims,
            facts.allocations,
        )
    yield from checks_addresses.unreadable(facts.unreadable)


_PLACES = {
    "daemon": "the daemon's socket",
    "kernel": "the node's links",
    "uses": "network-attachment-definitions",
    "pods": "pods of this node",
    "claims": "claims of this node",
    "allocations": "ipallocations of this node",
    "attached": "results of ADD",
    "runtime_configs": "the runtime's networks",
    "programs": "the plugins' programs",
    "journal": "the journal",
    "rooms": "room for the daemon's state",
}


def _unlooked(facts: NodeFacts) -> Iterator[Unlooked]:
    """A node without an API server, on purpose, has no pods to look at: nothing is missed."""
    seen = {**msgspec.structs.asdict(facts.files), **msgspec.structs.asdict(facts)}
    for name, place in _PLACES.items():
        value = seen[name]
        if isinstance(value, Unseen) and value is not _NO_CLUSTER:
            yield Unlooked(place=place, why=value.why)
