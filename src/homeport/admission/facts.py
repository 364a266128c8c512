"""What the cluster has, as far as it concerns an object under review. I/O: `ports.Objects`, two watches.

The watches may be a moment behind, and their lists may not have come yet. So a network that they lack is asked for by
name, and what an error would rest on is asked for anew (`confirmed`): nobody is refused for what was true before.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable

import structlog

from homeport.admission import subjects
from homeport.admission.deciding import Context, selected
from homeport.admission.relating import Traits, is_plain, traits_of
from homeport.admission.subjects import Subject
from homeport.ipam.ranges import Span
from homeport.kube.resources import DEFINITIONS, STATEFUL_SETS
from homeport.model.errors import CniError, DecodeFailure, TryAgainLater
from homeport.ports import ApiObject, Objects, Resource, Watching
from homeport.stores.kubernetes import names
from homeport.stores.kubernetes.hints import RangeReport, decode_range
from homeport.stores.kubernetes.resources import IPRANGES

log = structlog.get_logger("homeport.admission")

_MOST_RELATED = 24  # networks that merely have to do with the ones that count
_MOST_WORKLOADS = 100  # the ones that ask for most
_MOST_ASKED = 8  # networks asked for by name, for one review
_MOST_CONFIRMED = 32
_CONFIRM_SECONDS = 1.0  # the API server waits for the review

_Key = tuple[str, str]


class Facts:
    """From `start` to `stop`; safe for any number of threads. `objects` should be impatient: a review waits for it."""

    def __init__(self, objects: Objects, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._objects, self._monotonic = objects, monotonic
        self._lock = threading.Lock()
        self._networks: dict[_Key, Subject] = {}
        self._traits: dict[_Key, Traits] = {}
        self._workloads: dict[_Key, Subject] = {}  # StatefulSets that select networks
        self._selecting: dict[_Key, set[_Key]] = {}  # which of them, by network
        self._watches: list[Watching] = []

    def start(self) -> None:
        """Does not wait for anything."""
        self._watches = [
            self._objects.watch(DEFINITIONS, on_change=self._network, on_gone=self._network_gone),
            self._objects.watch(STATEFUL_SETS, on_change=self._workload, on_gone=self._workload_gone),
        ]

    def stop(self) -> None:
        for watch in self._watches:
            watch.stop()

    def is_complete(self) -> bool:
        """Whether everything has been told once. Until then less is found, and nothing wrongly."""
        return bool(self._watches) and all(watch.wait_listed(0) for watch in self._watches)

    # --- what concerns an object ---

    def context_of(self, new: Subject, old: Subject | None) -> Context:
        """The networks that a workload selects, or that have to do with a network; and the StatefulSets on them."""
        under_review = [new] if old is None else [new, old]
        wanted = selected(under_review)
        found, missing = self._look_up(wanted)
        definitions = [s for s in under_review if s.resource == DEFINITIONS]
        main = {*wanted, *(s.key for s in definitions)}
        traits = [traits_of(s) for s in (*found.values(), *definitions)]
        with self._lock:
            related = self._related(traits, main, on_one_link=bool(definitions))
            asking = self._asking({*main, *related})
            beside = [self._networks[key] for key in related]
            room = min((t.room for t in (*traits, *(self._traits[key] for key in related))), default=0)
        if not definitions and sum(s.replicas for s in (*asking, *under_review, new)) <= room:
            asking = [s for s in asking if not is_plain(s)]
        asking = sorted(asking, key=lambda s: (-s.replicas, s.key))[:_MOST_WORKLOADS]
        # In the order in which it is worth being confirmed.
        return Context(subjects=(*found.values(), *asking, *beside), missing=missing)

    def confirmed(self, context: Context) -> Context:
        """The same as the API server has it now. Raises what it raises, and `TryAgainLater` when it takes too long."""
        fresh: list[Subject] = []
        began = self._monotonic()
        for number, subject in enumerate(context.subjects):
            if self._monotonic() - began > _CONFIRM_SECONDS:
                raise TryAgainLater(f"ask for {len(context.subjects)} objects anew: {_CONFIRM_SECONDS:g} s have passed")
            if number >= _MOST_CONFIRMED:
                fresh.append(subject)
            elif (now := self._live(subject.resource, *subject.key)) is not None:
                fresh.append(now)
        return Context(subjects=tuple(fresh), missing=context.missing)

    def find(self, resource: Resource, namespace: str, name: str) -> ApiObject | None:
        """The object as it is now; None when the API server says that it is not there.

        Raises `CniError` when nobody can tell.
        """
        return self._objects.get(resource, name, namespace=namespace)

    def taken_in(self, scope: str, span: Span) -> RangeReport | None:
        """Which addresses of a range are allocated, as the controller last counted; None when it has not."""
        stored = self._objects.get(IPRANGES, names.range_name(scope, span.first, span.last))
        return None if stored is None else decode_range(stored)

    def _live(self, resource: Resource, namespace: str, name: str) -> Subject | None:
        """None also for a workload that is being deleted: it asks for nothing more."""
        stored = self.find(resource, namespace, name)
        subject = subjects.read(resource, stored.body) if stored is not None else None
        ends = subject is not None and subject.deleting and resource != DEFINITIONS
        return None if ends else subject

    def _look_up(self, wanted: Iterable[_Key]) -> tuple[dict[_Key, Subject], frozenset[_Key]]:
        """The networks of those names, and which of them are proven not to be there."""
        found: dict[_Key, Subject] = {}
        missing: set[_Key] = set()
        asked = 0
        for key in wanted:
            known = self._networks.get(key)
            if known is None and asked < _MOST_ASKED:
                asked += 1
                try:
                    known = self._live(DEFINITIONS, *key)
                except CniError as e:
                    log.warning("cannot look up a network", network="/".join(key), reason=str(e))
                    asked = _MOST_ASKED  # the review must not wait as often again
                else:
                    if known is None:
                        missing.add(key)
            if known is not None:
                found[key] = known
        return found, frozenset(missing)

    def _related(self, traits: Collection[Traits], besides: Collection[_Key], *, on_one_link: bool) -> list[_Key]:
        """Those with overlapping ranges; `on_one_link` also those on the same link of the nodes, behind them."""
        near, far = [], []
        for key, theirs in self._traits.items():
            if key in besides:
                continue
            if any(theirs.overlaps(ours) for ours in traits):
                near.append(key)
            elif on_one_link and any(theirs.shares(ours) for ours in traits):
                far.append(key)
        return (near + far)[:_MOST_RELATED]

    def _asking(self, networks: Iterable[_Key]) -> list[Subject]:
        keys = {workload for network in networks for workload in self._selecting.get(network, ())}
        return [self._workloads[key] for key in keys]

    # --- what the watches tell ---

    def _network(self, stored: ApiObject) -> None:
        subject = _read(DEFINITIONS, stored, self._networks.get((stored.namespace, stored.name)))
        if subject is None:
            self._network_gone(stored)
            return
        traits = traits_of(subject)
        with self._lock:
            self._networks[subject.key], self._traits[subject.key] = subject, traits

    def _network_gone(self, stored: ApiObject) -> None:
        with self._lock:
            self._networks.pop((stored.namespace, stored.name), None)
            self._traits.pop((stored.namespace, stored.name), None)

    def _workload(self, stored: ApiObject) -> None:
        key = stored.namespace, stored.name
        subject = _read(STATEFUL_SETS, stored, self._workloads.get(key))
        wanted = selected([subject]) if subject is not None and not subject.deleting else {}
        with self._lock:
            self._forget_workload(key)
            if subject is not None and wanted:
                self._workloads[key] = subject
                for network in wanted:
                    self._selecting.setdefault(network, set()).add(key)

    def _workload_gone(self, stored: ApiObject) -> None:
        with self._lock:
            self._forget_workload((stored.namespace, stored.name))

    def _forget_workload(self, key: _Key) -> None:
        known = self._workloads.pop(key, None)
        for network in selected([known]) if known is not None else ():
            asking = self._selecting[network]
            asking.discard(key)
            if not asking:
                del self._selecting[network]


def _read(resource: Resource, stored: ApiObject, known: Subject | None) -> Subject | None:
    """None for what is no object of its kind: nothing is concluded from it."""
    try:
        return subjects.read(resource, stored.body, known=known)
    except DecodeFailure as e:
        log.warning("cannot read an object", resource=resource.plural, namespace=stored.namespace, reason=str(e))
        return None
