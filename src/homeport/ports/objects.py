"""Objects of the API server, of any resource."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import msgspec


class Resource(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of object and where the API server has it. `group` is "" for the core's."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = False


class ApiObject(msgspec.Struct, frozen=True, kw_only=True):
    """One object as the API server has it. `version` is its resourceVersion, `body` its JSON."""

    namespace: str = ""
    name: str
    uid: str
    version: str
    body: bytes


class Deletion(msgspec.Struct, frozen=True, kw_only=True):
    """How an object goes, and what belongs to it: after it, before it, or not at all (`kubectl delete --cascade`).

    `grace_seconds` None is the object's own; 0 removes a pod's object at once, whatever its node says.
    """

    propagation: Literal["Background", "Foreground", "Orphan"] = "Background"
    grace_seconds: int | None = None


USUAL_DELETION = Deletion()


class ObjectExists(Exception):
    """`Objects.create`: the name is taken."""


class ObjectChanged(Exception):
    """`Objects.patch` or `delete`: the object has another version or UID by now, or is gone."""


class PatchRefused(Exception):
    """`Objects.patch_json`: one of its tests failed (422), or the object is gone."""


class Watching(Protocol):
    """A watch under way, in a thread of its own."""

    def is_current(self) -> bool:
        """Whether what it told is what the API server has, but for what is on its way."""

    def was_away(self) -> bool:
        """Whether the API server was sought in vain since the last list was told.

        Its database may have been set back meanwhile, and have got as far again by now: then something was not told.
        """

    def version(self) -> str:
        """Up to which everything has been told; "" while a list is being told, or none has been."""

    def wait_listed(self, seconds: float) -> bool:
        """Until everything that was there at first has been told; False when that took longer."""

    def stop(self) -> None: ...


class Objects(Protocol):
    """Objects of the API server, of any resource. Safe to share by threads.

    Every method raises `TryAgainLater` when the API server is away, overloaded or broken, and `IOFailure` when it
    refuses for good. A write that raised `TryAgainLater` may have been done, be done later, or never be done; one that
    raised `Unreachable` was never sent.
    """

    def get(self, resource: Resource, name: str, *, namespace: str = "") -> ApiObject | None:
        """As it is now; None when the API server says that there is no such object."""

    def create(self, resource: Resource, body: Mapping[str, Any], *, namespace: str = "") -> ApiObject:
        """Raises `ObjectExists`: a repetition of one's own lost request raises it too."""

    def patch(
        self, resource: Resource, name: str, body: Mapping[str, Any], *, namespace: str = "", version: str = ""
    ) -> ApiObject:
        """JSON merge patch (RFC 7386) of that version; "" is any. Raises `ObjectChanged`."""

    def patch_json(
        self, resource: Resource, name: str, operations: Sequence[Mapping[str, Any]], *, namespace: str = ""
    ) -> ApiObject:
        """JSON patch (RFC 6902). Raises `PatchRefused`."""

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
        """Of that version and UID; "" is any. Raises `ObjectChanged`, also when it was gone already."""

    def list(
        self, resource: Resource, *, namespace: str = "", labels: Mapping[str, str] | None = None
    ) -> Sequence[ApiObject]:
        """All of them, of one version of the collection, page by page: the whole, or an error."""

    def names(
        self, resource: Resource, *, namespace: str = "", labels: Mapping[str, str] | None = None
    ) -> Sequence[str]:
        """The names of all of them as the API server remembers them: cheap, and perhaps not those of this moment.

        To know where to look, never to conclude that something is not there.
        """

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
    ) -> Watching:
        """Tells of every object there is, and from then on of every change; `on_gone` only of what is proven gone,
        with its last known body, or an empty one where just its absence from a list tells of its end. `on_listed`
        follows each complete list, whose version it gets. With `since`, a version, the first list is what there was
        then, so that no change from then on is missed; `on_listed` tells another version when the API server no longer
        knows that one. The version "0" is whichever the API server has in memory, which costs it least: it may be a
        little old.
        """
