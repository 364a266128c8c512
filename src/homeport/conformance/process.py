"""A whole run: read facts, make a namespace, run the rows, clean up, tell. I/O: `ports.Objects`."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

import msgspec

from homeport.conformance import manifests, observing, templates
from homeport.conformance.cleaning import PREFIX, Cleaner, abandoned, require_abandoned
from homeport.conformance.matrix import Row
from homeport.conformance.reports import Interrupted, NotRun, Outcome, Report, RowFailed, Verdict
from homeport.conformance.sites import Site
from homeport.conformance.templates import Template
from homeport.conformance.worlds import Records, Settings, World, records_of
from homeport.kube import decoding
from homeport.kube.resources import DEFINITIONS, NAMESPACES, PODS
from homeport.model.addresses import IPAddress
from homeport.model.errors import CniError, DecodeFailure, InvalidNetConf, NoSuchObject
from homeport.multinet.devices import RESOURCE_ANNOTATION
from homeport.ports import AllocationStore, Clock, ObjectChanged, ObjectExists, Objects

_CLEAN_SECONDS = 60.0  # at least, for each step of a clean-up: whoever is in a hurry does not want less of it
_ROOM = 64  # addresses of each range: enough for rows to have others than the rows before them


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """What is tested: the network of a definition, or one made on `master`. `ranges` go before the definition's own."""

    network: str = ""  # namespace/name
    master: str = ""
    kind: str = "macvlan"
    ranges: tuple[str, ...] = ()


class Watcher(msgspec.Struct, frozen=True, kw_only=True):
    """Who is told: of what is waited for, and of each row as it comes out."""

    doing: Callable[[str], None]
    done: Callable[[Outcome], None]


class Run:
    """One. `stop` ends the rows early, `abandon` the clean-up."""

    def __init__(
        self,
        objects: Objects,
        store: AllocationStore,
        settings: Settings,
        watcher: Watcher,
        *,
        clock: Clock,
        stop: threading.Event,
        abandon: threading.Event,
    ) -> None:
        self._objects = objects
        self._store = store
        self._settings = settings
        self._watcher = watcher
        self._clock = clock
        self._stop = stop
        self._abandon = abandon

    def run(self, subject: Subject, rows: Sequence[Row], *, keep: bool = False) -> Report:
        """With `keep`, the namespace stays, and what a failed row made.

        Raises `CniError` for what keeps any row from being run.
        """
        began = self._clock.monotonic()
        namespace = f"{PREFIX}{secrets.token_hex(3)}"
        records, note = records_of(self._objects, self._store)
        template = self._template(subject)
        if template.form == "host-local":
            records, note = None, ""  # Homeport's allocations are of others
        taken, notes = self._taken(records)
        notes += [note, *map(_of_another, abandoned(self._objects)), *([_kept(namespace)] if keep else [])]
        room = templates.room_of(template, taken, max(_ROOM, 2 * self._settings.replicas))
        world = World(
            self._objects,
            namespace,
            template,
            room,
            self._settings,
            records=records,
            is_blind=bool(note),
            clock=self._clock,
            stop=self._stop,
            tell=self._watcher.doing,
        )
        outcomes: list[Outcome] = []
        interrupted = False
        left: tuple[str, ...] = ()
        try:
            self._make(namespace)
            for row in rows:
                outcomes.append(self._outcome(world, row, keep=keep))
                self._watcher.done(outcomes[-1])
        except Interrupted:
            interrupted = True
        finally:
            if not keep:
                left = self.clean(namespace, records)
        return Report(
            network=template.name,
            namespace=namespace,
            records=records is not None,
            outcomes=tuple(outcomes),
            left=left,
            notes=tuple(filter(None, notes)),
            interrupted=interrupted,
            seconds=self._clock.monotonic() - began,
        )

    def clean_old(self, namespace: str) -> tuple[str, ...]:
        """The same of an earlier run, which is over or was killed. Raises `NoSuchObject` where there is none."""
        records, note = records_of(self._objects, self._store)
        require_abandoned(self._objects, namespace)
        return (*self.clean(namespace, records), *((note,) if note else ()))

    def clean(self, namespace: str, records: Records | None) -> tuple[str, ...]:
        """Removes what a run made; what is left of it, a line each."""
        cleaner = Cleaner(
            self._objects,
            namespace,
            records,
            clock=self._clock,
            wait=self._pause,
            seconds=max(_CLEAN_SECONDS, self._settings.timeout_seconds),
            tell=lambda what: self._watcher.doing(f"clean-up: {what}"),
        )
        try:
            return cleaner.remove()
        except Interrupted:
            return (f"namespace {namespace} and what is in it: the clean-up was broken off",)

    # --- before the rows ---

    def _template(self, subject: Subject) -> Template:
        if not subject.network:
            return templates.of_master(subject.master, subject.kind, subject.ranges)
        namespace, _, name = subject.network.rpartition("/")
        stored = self._objects.get(DEFINITIONS, name, namespace=namespace or "default")
        if stored is None:
            raise NoSuchObject(f'find network "{namespace or "default"}/{name}": there is none')
        found = decoding.decode_definition(stored.body)
        if not found.config:
            raise InvalidNetConf(f'network "{found}": found no "spec.config", expected the configuration there')
        resource = found.annotations.get(RESOURCE_ANNOTATION, "")
        return templates.of_config(found.config, str(found), subject.ranges, resource)

    def _taken(self, records: Records | None) -> tuple[frozenset[IPAddress], list[str]]:
        """What any pod says that it has, and what is allocated; and whose word could not be read, for people.

        Only a hint of where to look for room: that no address is handed out twice is the ipam plugin's matter.
        """
        taken, notes = set(records.every() if records is not None else ()), []
        for stored in self._objects.list(PODS):
            try:
                view = observing.view_of(stored, manifests.RUN)
            except DecodeFailure as e:
                notes.append(f"what a pod of namespace {stored.namespace} has was not left out: {e.msg}")
            else:
                taken |= observing.flat({view.name: view.addresses})
        return frozenset(taken), notes

    def _make(self, namespace: str) -> None:
        with suppress(ObjectExists):  # nobody else has the name: our own request, sent twice
            self._objects.create(NAMESPACES, manifests.namespace(namespace))

    # --- a row ---

    def _outcome(self, world: World, row: Row, *, keep: bool) -> Outcome:
        """An API server that refuses or stays away is the row's failure, and so is what it leaves behind."""
        began = self._clock.monotonic()
        told = Outcome(row=row.name, event=row.event, expected=row.outcome, verdict=Verdict.NOT_RUN)
        if row.run is None:
            return msgspec.structs.replace(told, reason=row.why_not)
        if row.disruptive and not self._settings.disruptive:
            return msgspec.structs.replace(told, reason="it touches what is not the run's own: --disruptive allows it")
        world.tell = lambda what: self._watcher.doing(f"{row.name}: {what}")
        world.begin()
        site = Site(world, row.name)
        verdict, reason, seen = self._attempt(row.run, site)
        if verdict is not Verdict.FAILED or not keep:
            try:
                site.clear()
            except (RowFailed, CniError) as e:
                if verdict is not Verdict.FAILED:
                    verdict, reason, seen = Verdict.FAILED, str(e), self._facts(world)
        return msgspec.structs.replace(
            told,
            verdict=verdict,
            reason=reason,
            remark=site.remark if verdict is not Verdict.NOT_RUN else "",
            seen=tuple(seen),
            seconds=self._clock.monotonic() - began,
        )

    def _attempt(self, run: Callable[[Site], None], site: Site) -> tuple[Verdict, str, Sequence[str]]:
        try:
            run(site)
        except NotRun as e:
            return Verdict.NOT_RUN, str(e), ()
        except (RowFailed, CniError) as e:
            return Verdict.FAILED, str(e), self._facts(site.world)
        except (ObjectChanged, ObjectExists) as e:
            return Verdict.FAILED, f"{e}: somebody else has changed or removed it", self._facts(site.world)
        return Verdict.PASSED, "", ()

    def _facts(self, world: World) -> Sequence[str]:
        try:
            return world.facts()
        except CniError as e:
            return (f"nothing: {e}",)

    def _pause(self, seconds: float) -> None:
        if self._abandon.wait(seconds):
            raise Interrupted


def _of_another(namespace: str) -> str:
    return f"namespace {namespace} is of another run; if that is over: homeport conformance --clean {namespace}"


def _kept(namespace: str) -> str:
    return f"namespace {namespace} and what is in it stays: homeport conformance --clean {namespace}"
