"""An API server's objects in memory, as `ports.Objects`, held to tests/contract/test_objects.py like the real client.

`MemoryServer` is what all clients share; a `MemoryObjects` is one client, with its own faults, counts and watches:

    server = MemoryServer()
    node1, node2 = MemoryObjects(server), MemoryObjects(server)
    node1.fail("create", "after")        # the next create is done, but its reply is lost
    node2.reachable = False              # cut off: calls raise `Unreachable`, watches stand still
    node1.on_call = lambda call: ...     # before each call, without any lock: to block, or to raise as a crash does
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal, TypeVar

import msgspec
from tests.stand_ins_patches import Refused, merged, patched
from tests.stand_ins_server import Change, Key, api_version, at_version, matches, select
from tests.stand_ins_server import MemoryServer as MemoryServer

from homeport.model.errors import IOFailure, TryAgainLater, Unreachable
from homeport.model.names import is_subdomain
from homeport.ports import USUAL_DELETION, ApiObject, Deletion, ObjectChanged, ObjectExists, PatchRefused, Resource

T = TypeVar("T")
Fate = Literal["done", "unreached", "before", "after", "later"]
"""What becomes of a call. "unreached" and "before": it is never done, and says so or not (`Unreachable`, or
`TryAgainLater`); "after": done, its outcome lost in a `TryAgainLater`; "later": lost likewise, and done by `land`.
"""


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a client. `body` is that of a create or patch, or a JSON patch's operations."""

    verb: Literal["get", "create", "patch", "patch_json", "delete", "list", "names"]
    resource: Resource
    namespace: str = ""
    name: str = ""
    body: Any = None
    version: str = ""


class MemoryObjects:
    """One client. With `threaded` False nothing is told by watches until the test calls `deliver`."""

    def __init__(self, server: MemoryServer | None = None, *, threaded: bool = True) -> None:
        self.server = server or MemoryServer()
        self.reachable = True
        self.allowed = True  # by its role
        self.calls: list[Call] = []
        self.on_call: Callable[[Call], None] = lambda _call: None
        self.on_done: Callable[[Call], None] = lambda _call: None
        self.fate: Callable[[Call], Fate] = self._planned
        self.watches: list[MemoryWatch] = []
        self.threaded = threaded
        self._plans: list[tuple[str, Resource | None, str, Fate]] = []
        self._late: list[Callable[[], object]] = []

    def fail(
        self, verb: str, fate: Fate = "before", *, resource: Resource | None = None, name: str = "", times: int = 1
    ) -> None:
        """What becomes of the next `times` calls of that verb ("" is any), resource and name."""
        self._plans += [(verb, resource, name, fate)] * times

    def land(self, count: int | None = None) -> int:
        """Does what was to be done later, in its order, all or `count` of it; returns how much that was."""
        landing = self._late[:count]
        del self._late[: len(landing)]
        for action in landing:
            with suppress(ObjectExists, ObjectChanged, PatchRefused, IOFailure):
                action()
        return len(landing)

    def deliver(self) -> None:
        """Tells every watch of this client what happened since."""
        for watch in tuple(self.watches):
            while watch.step():
                pass

    def close(self) -> None:
        """Ends the watches."""
        for watch in self.watches:
            watch.stop()

    # ports.Objects

    def get(self, resource: Resource, name: str, *, namespace: str = "") -> ApiObject | None:
        call = Call(verb="get", resource=resource, namespace=namespace, name=name)
        return self._do(call, lambda: self.server.objects.get((resource, namespace, name)))

    def create(self, resource: Resource, body: Mapping[str, Any], *, namespace: str = "") -> ApiObject:
        name = body["metadata"]["name"]
        call = Call(verb="create", resource=resource, namespace=namespace, name=name, body=body)

        def create() -> ApiObject:
            if not is_subdomain(name):
                raise IOFailure(f"create {resource.plural} {name!r}: found no name of an object")
            if (resource, namespace, name) in self.server.objects:
                raise ObjectExists(name)
            kinds = {"apiVersion": api_version(resource), "kind": resource.kind}
            created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            return self.server.put(
                (resource, namespace, name), {**body, **kinds}, uid=secrets.token_hex(8), created=created
            )

        return self._do(call, create)

    def patch(
        self, resource: Resource, name: str, body: Mapping[str, Any], *, namespace: str = "", version: str = ""
    ) -> ApiObject:
        call = Call(verb="patch", resource=resource, namespace=namespace, name=name, body=body, version=version)

        def patch() -> ApiObject:
            known = self._known(resource, namespace, name)
            metadata = body.get("metadata", {})
            if known is None or (version or metadata.get("resourceVersion", known.version)) != known.version:
                raise ObjectChanged(name)
            if metadata.get("uid", known.uid) != known.uid:
                raise ObjectChanged(name)
            return self._overwrite((resource, namespace, name), known, merged(msgspec.json.decode(known.body), body))

        return self._do(call, patch)

    def patch_json(
        self, resource: Resource, name: str, operations: Sequence[Mapping[str, Any]], *, namespace: str = ""
    ) -> ApiObject:
        call = Call(verb="patch_json", resource=resource, namespace=namespace, name=name, body=operations)

        def patch() -> ApiObject:
            known = self._known(resource, namespace, name)
            if known is None:
                raise PatchRefused(name)
            try:
                body = patched(msgspec.json.decode(known.body), operations)
            except Refused as e:
                raise PatchRefused(str(e)) from e
            return self._overwrite((resource, namespace, name), known, body)

        return self._do(call, patch)

    def delete(
        self,
        resource: Resource,
        name: str,
        *,
        namespace: str = "",
        version: str = "",
        uid: str = "",
        manner: Deletion = USUAL_DELETION,
    ) -> None:
        """In any manner at once, and alone: there is nobody here who would remove what belongs to it."""
        call = Call(verb="delete", resource=resource, namespace=namespace, name=name, version=version)

        def delete() -> None:
            known = self._known(resource, namespace, name)
            if known is None or version not in ("", known.version) or uid not in ("", known.uid):
                raise ObjectChanged(name)
            self.server.remove((resource, namespace, name))

        self._do(call, delete)

    def list(
        self, resource: Resource, *, namespace: str = "", labels: Mapping[str, str] | None = None
    ) -> Sequence[ApiObject]:
        call = Call(verb="list", resource=resource, namespace=namespace, body=labels)
        return self._do(call, lambda: select(self.server, resource, namespace, labels or {}))

    def names(
        self, resource: Resource, *, namespace: str = "", labels: Mapping[str, str] | None = None
    ) -> Sequence[str]:
        call = Call(verb="names", resource=resource, namespace=namespace, body=labels)
        return self._do(call, lambda: [o.name for o in select(self.server, resource, namespace, labels or {})])

    def watch(
        self,
        resource: Resource,
        *,
        namespace: str = "",
        labels: Mapping[str, str] | None = None,
        on_change: Callable[[ApiObject], None],
        on_gone: Callable[[ApiObject], None],
        on_listed: Callable[[str], None] = lambda _version: None,
        since: str = "",
    ) -> MemoryWatch:
        watch = MemoryWatch(self, resource, namespace, labels or {}, on_change, on_gone, on_listed, since)
        self.watches.append(watch)
        if self.threaded:
            watch.start()
        return watch

    # inside

    def _known(self, resource: Resource, namespace: str, name: str) -> ApiObject | None:
        return self.server.objects.get((resource, namespace, name))

    def _overwrite(self, key: Key, known: ApiObject, body: Mapping[str, Any]) -> ApiObject:
        created = msgspec.json.decode(known.body)["metadata"]["creationTimestamp"]
        return self.server.put(key, body, uid=known.uid, created=created)

    def _planned(self, call: Call) -> Fate:
        for n, (verb, resource, name, fate) in enumerate(self._plans):
            if verb in ("", call.verb) and resource in (None, call.resource) and name in ("", call.name):
                del self._plans[n]
                return fate
        return "done"

    def _do(self, call: Call, action: Callable[[], T]) -> T:
        self.calls.append(call)
        self.on_call(call)
        lost = TryAgainLater(f"{call.verb} {call.resource.plural} {call.name}: no answer in time")
        fate = self.fate(call) if self.reachable else "unreached"
        if fate == "unreached":
            raise Unreachable(f"{call.verb} {call.resource.plural} {call.name}: connection refused")
        if fate == "before":
            raise lost
        if fate == "later":
            self._late.append(lambda: self._perform(call, action))
            raise lost
        try:
            outcome = self._perform(call, action)
        except (ObjectExists, ObjectChanged, PatchRefused, IOFailure):
            self.on_done(call)
            if fate == "after":
                raise lost from None
            raise
        self.on_done(call)
        if fate == "after":
            raise lost
        return outcome

    def _perform(self, call: Call, action: Callable[[], T]) -> T:
        with self.server.changed:
            if not self.allowed:
                raise IOFailure(f"{call.verb} {call.resource.plural} {call.name}: forbidden")
            if call.resource in self.server.lacking:
                raise IOFailure(f"{call.verb} {call.resource.plural}: the API server has no such resource")
            return action()


class MemoryWatch:
    """A watch of one client, told step by step from the server's history."""

    def __init__(
        self,
        client: MemoryObjects,
        resource: Resource,
        namespace: str,
        labels: Mapping[str, str],
        on_change: Callable[[ApiObject], None],
        on_gone: Callable[[ApiObject], None],
        on_listed: Callable[[str], None],
        since: str,
    ) -> None:
        self._client, self._server = client, client.server
        self._resource, self._namespace, self._labels = resource, namespace, labels
        self._on_change, self._on_gone, self._on_listed = on_change, on_gone, on_listed
        self._since = int(since or "0")  # of the first list, 0 for the newest
        self._seen = self._since  # the version told up to
        self._told: dict[Key, ApiObject] = {}
        self._told_to = ""
        self._was_away = False
        self._listed = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"memory-watch-{resource.plural}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def is_current(self) -> bool:
        return self._listed.is_set() and self._client.reachable

    def was_away(self) -> bool:
        return self._was_away

    def version(self) -> str:
        return self._told_to

    def wait_listed(self, seconds: float) -> bool:
        """Without a thread nobody else will tell it: whoever waits is told all there is."""
        while seconds and not self._thread.is_alive() and self.step():
            pass
        return self._listed.wait(seconds if self._thread.is_alive() else 0)

    def stop(self) -> None:
        self._stopping.set()
        with self._server.changed:
            self._server.changed.notify_all()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(5.0)

    def step(self) -> bool:
        """Tells of the next change, or of a whole new list; False when there was nothing to tell."""
        with self._stepping() as tell:
            self._was_away |= self._listed.is_set() and not self._client.reachable
            if self._stopping.is_set() or not self._client.reachable or self._resource in self._server.lacking:
                return False
            if not self._server.oldest <= self._seen <= self._server.version or not self._listed.is_set():
                self._list(tell)
                return True
            change = next((c for c in self._unseen() if self._concerns(c)), None)
            self._seen = change.version if change is not None else self._server.version
            if change is not None:
                self._follow(change, tell)
            return change is not None

    @contextmanager
    def _stepping(self) -> Iterator[list[Callable[[], None]]]:
        """What is put into the list while the server is locked is called when it is not any more."""
        tell: list[Callable[[], None]] = []
        with self._server.changed:
            yield tell
        for action in tell:
            action()
        if self._listed.is_set():
            self._told_to = str(self._seen)

    def _unseen(self) -> Iterator[Change]:
        history, start = self._server.history, self._seen - self._server.oldest
        return (history[n] for n in range(start, len(history)))

    def _concerns(self, change: Change) -> bool:
        return change.key[0] == self._resource and self._namespace in ("", change.key[1])

    def _list(self, tell: list[Callable[[], None]]) -> None:
        version, self._since = self._since if self._since >= self._server.oldest else self._server.version, 0
        found = select(self._server, self._resource, self._namespace, self._labels, version)
        now = {(self._resource, o.namespace, o.name): o for o in found}
        gone = [  # that is all that is known of their end
            msgspec.structs.replace(o, body=b"")
            for key, o in self._told.items()
            if key not in now or now[key].uid != o.uid
        ]
        changed = [o for key, o in now.items() if self._told.get(key) != o]
        self._told, self._seen, self._was_away = now, version, False
        tell += [partial(self._on_gone, o) for o in gone]
        tell += [partial(self._on_change, o) for o in changed]
        tell += [partial(self._on_listed, str(version)), self._listed.set]

    def _follow(self, change: Change, tell: list[Callable[[], None]]) -> None:
        """An object that no longer has the labels is told as gone, as the API server does."""
        was = change.before is not None and matches(change.before, self._labels)
        after = change.after if change.after is not None and matches(change.after, self._labels) else None
        if after is not None:
            self._told[change.key] = after
            tell.append(partial(self._on_change, after))
        elif was and change.before is not None:
            self._told.pop(change.key, None)
            tell.append(partial(self._on_gone, at_version(change.before, change.version)))

    def _run(self) -> None:
        while not self._stopping.is_set():
            if self.step():
                continue
            with self._server.changed:
                if not self._stopping.is_set() and not (self._client.reachable and self._seen < self._server.version):
                    self._server.changed.wait(0.05)  # also until the client is reachable again
