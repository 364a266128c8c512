"""Where the commands about addresses look: a cluster, a file of allocations, or a lab.

A command opens one source, asks it, and closes it. What a source cannot tell (a file knows no pods) is None there.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from homeport.model.errors import CniError, InvalidEnvironment, NoSuchObject

if TYPE_CHECKING:
    from homeport.ipam.allocations import Allocation
    from homeport.ipam.pools import Pool
    from homeport.model.names import PodRef
    from homeport.multinet.ipam_claims import IpamClaim
    from homeport.ports import AllocationStore, Cluster, NetworkDefinition, Objects

_USUAL_KUBECONFIG = ".kube/config"
_UTC_NOW = partial(datetime.now, UTC)


def _complete_lab(incomplete: str) -> list[str]:
    from homeport.lab import places

    directory = places.of_lab("lab").directory.parent
    return [p.name for p in sorted(directory.glob(f"{incomplete}*")) if p.is_dir()]


StorePath = Annotated[
    Path | None, typer.Option("--store", metavar="PATH", help="Look in this file of allocations, not in a cluster.")
]
LabName = Annotated[
    str | None, typer.Option("--lab", metavar="NAME", autocompletion=_complete_lab, help="Look in this lab.")
]
Kubeconfig = Annotated[
    Path | None,
    typer.Option(metavar="PATH", help="Of the cluster [default: KUBECONFIG, then the pod's own, then ~/.kube/config]."),
]
Scope = Annotated[
    str | None, typer.Option(metavar="NAME", help='The scope ("network_name") that the address is of [default: any].')
]


class Place(msgspec.Struct, frozen=True):
    """What was said about where to look: one of the three at most."""

    store: Path | None = None
    lab: str | None = None
    kubeconfig: Path | None = None


class Said(msgspec.Struct, frozen=True):
    """An event on a pod: when it was said last, and what."""

    at: datetime
    reason: str
    message: str


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """`name` is what messages call it; `now` is its clock, which in a lab may be ahead.

    `cluster`, `find` (a definition by namespace and name) and `definitions` (all) are None where nobody knows of pods
    and networks. `events` are what was said of a pod, oldest first. `find_claim` is None where there are no IPAMClaims.
    """

    name: str
    store: AllocationStore
    now: Callable[[], datetime] = _UTC_NOW
    cluster: Cluster | None = None
    find: Callable[[str, str], NetworkDefinition | None] | None = None
    definitions: Callable[[], Sequence[NetworkDefinition]] | None = None
    events: Callable[[PodRef], Sequence[Said]] = lambda _ref: ()
    find_claim: Callable[[str, str], IpamClaim | None] | None = None

    def pools(self) -> Sequence[tuple[NetworkDefinition, Pool]]:
        """Of all networks, as far as they are known and can be right."""
        from homeport.runtime import pooling

        return pooling.pools_of(self.definitions() if self.definitions is not None else ())


@contextmanager
def opened(place: Place) -> Iterator[Source]:
    """The source that was asked for; without a word, the cluster."""
    given = [value for value in (place.store, place.lab, place.kubeconfig) if value is not None]
    if len(given) > 1:
        raise typer.BadParameter(f"expected one of --store, --lab and --kubeconfig, found {len(given)}")
    if place.store is not None:
        yield _of_file(place.store)
    elif place.lab is not None:
        with _of_lab(place.lab) as source:
            yield source
    else:
        with _of_cluster(place.kubeconfig) as source:
            yield source


def _of_file(path: Path) -> Source:
    from homeport.stores.sqlite import SqliteStore

    if not path.exists():  # it would be made, empty: a misspelt path must not look like a network without pods
        raise NoSuchObject(f'open allocation store "{path}": no such file')
    return Source(name=str(path), store=SqliteStore(path))


@contextmanager
def _of_lab(name: str) -> Iterator[Source]:
    """The lab's files, read beside whatever command is at work on it."""
    from homeport.lab import places, sessions
    from homeport.lab.cluster import LabCluster
    from homeport.lab.objects import Network, NodeObject, PodObject, WorkloadObject
    from homeport.lab.storing import State
    from homeport.ports import NetworkDefinition
    from homeport.stores.sqlite import SqliteStore

    where = places.of_lab(name)
    if not sessions.exists(where) or not where.allocations.exists():
        raise NoSuchObject(f'find lab "{name}": there is none', "start one: homeport lab up -f FILE")
    state = State(where.state)
    try:
        cluster = LabCluster()
        cluster.refresh(state.all(WorkloadObject), state.all(PodObject), state.all(NodeObject))
        ahead = timedelta(seconds=float(state.setting("ahead") or 0))
        found = [NetworkDefinition(namespace=n.namespace, name=n.name, config=n.config) for n in state.all(Network)]
        yield Source(
            name=f'lab "{name}"',
            store=SqliteStore(where.allocations),
            now=lambda: _UTC_NOW() + ahead,
            cluster=cluster,
            find=_finder(found),
            definitions=lambda: found,
            events=lambda ref: [
                Said(e.at, e.reason, e.message) for e in state.events() if e.regarding == f"pod/{ref.name}"
            ],
        )
    finally:
        state.close()


@contextmanager
def _of_cluster(kubeconfig: Path | None) -> Iterator[Source]:
    from homeport import wiring
    from homeport.kube import decoding
    from homeport.kube.resources import DEFINITIONS

    with wiring.open_cluster_store(usual_kubeconfig(kubeconfig)) as opened:
        if opened is None:
            raise InvalidEnvironment(
                "find the cluster: found no kubeconfig, and this is no pod",
                "give --kubeconfig, or --store with a file of allocations, or --lab with a lab's name",
            )
        objects = opened.kubernetes.objects
        yield Source(
            name=opened.place,
            store=opened.store,
            cluster=opened.kubernetes,
            find=opened.kubernetes.definition,
            definitions=lambda: [decoding.decode_definition(found.body) for found in objects.list(DEFINITIONS)],
            events=lambda ref: _events_of(objects, ref),
            find_claim=opened.kubernetes.ipam_claim,
        )


class _Involved(msgspec.Struct):
    kind: str = ""
    name: str = ""


class _Event(msgspec.Struct, rename="camel"):
    """core/v1 Event, or events.k8s.io's own in the same form, which has `eventTime` alone."""

    involved_object: _Involved = msgspec.field(default_factory=_Involved)
    reason: str = ""
    message: str = ""
    last_timestamp: datetime | None = None
    event_time: datetime | None = None


def _events_of(objects: Objects, ref: PodRef) -> Sequence[Said]:
    from homeport.kube.resources import EVENTS

    found = []
    for one in objects.list(EVENTS, namespace=ref.namespace):
        event = msgspec.json.decode(one.body, type=_Event)
        at = event.last_timestamp or event.event_time
        if at is not None and (event.involved_object.kind, event.involved_object.name) == ("Pod", ref.name):
            found.append(Said(at, event.reason, event.message))
    return sorted(found, key=lambda said: said.at)


def usual_kubeconfig(given: Path | None) -> str | None:
    """As kubectl looks for it; of several in KUBECONFIG the first that is there."""
    if given is not None:
        return str(given)
    listed = [path for path in os.environ.get("KUBECONFIG", "").split(os.pathsep) if path]
    if listed:
        return next((path for path in listed if os.path.exists(path)), listed[0])
    usual = Path.home() / _USUAL_KUBECONFIG
    return str(usual) if "KUBERNETES_SERVICE_HOST" not in os.environ and usual.exists() else None


def _finder(found: Iterable[NetworkDefinition]) -> Callable[[str, str], NetworkDefinition | None]:
    by_name = {(d.namespace, d.name): d for d in found}
    return lambda namespace, name: by_name.get((namespace, name))


def user() -> str:
    """Who runs this command, for the ledger; through sudo, who asked for it."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # a UID without a name
        return f"uid {os.getuid()}"


# --- completion: from files alone, since a cluster may take its time; silent when there is nothing ------------------


def complete_address(ctx: typer.Context, incomplete: str) -> list[str]:
    """Addresses that are allocated."""
    return [text for a in _known(ctx) if (text := str(a.address)).startswith(incomplete)]


def complete_pod(ctx: typer.Context, incomplete: str) -> list[str]:
    """Pods that have addresses."""
    names = {str(a.slot.owner).partition("/")[2] for a in _known(ctx)}
    return sorted(name for name in names if name and name.startswith(incomplete))


def complete_network(ctx: typer.Context, incomplete: str) -> list[str]:
    """Networks that have addresses allocated."""
    return sorted({a.slot.network for a in _known(ctx) if a.slot.network.startswith(incomplete)})


def _known(ctx: typer.Context) -> tuple[Allocation, ...]:
    path, lab = ctx.params.get("store"), ctx.params.get("lab")
    if path is None and lab is None:
        return ()
    try:
        with opened(Place(store=Path(path) if path else None, lab=lab)) as source:
            return tuple(source.store.all())
    except CniError:
        return ()
