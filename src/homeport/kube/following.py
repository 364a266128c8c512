"""What lists and a watch tell of any resource, passed on object by object. No I/O.

Kubernetes API concepts, "Efficient detection of changes". Of each object its UID and version are kept, no
more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec

from homeport.kube import decoding
from homeport.kube.caching import Told, understood
from homeport.kube.decoding import Page
from homeport.model.errors import CniError, InternalError
from homeport.ports import ApiObject

T = TypeVar("T")
_Key = tuple[str, str]


class _Known(msgspec.Struct, frozen=True, gc=False):
    uid: str
    version: str


class Follower:
    """Takes lists and lines as `caching.Cache` does, and calls back. For one thread.

    `on_change` hears of every object as it is found in a list or told by the watch, but never twice of the same version
    in a row; `on_gone` of those proven gone; `on_listed` of a list's version after all that the list had to tell. What
    they raise is a bug: told to `on_trouble`, and passed over. What ended unseen, between two lists, has an empty body.
    """

    def __init__(
        self,
        *,
        on_change: Callable[[ApiObject], None],
        on_gone: Callable[[ApiObject], None],
        on_listed: Callable[[str], None],
        on_trouble: Callable[[CniError], None],
    ) -> None:
        self._on_change, self._on_gone, self._on_listed = on_change, on_gone, on_listed
        self._on_trouble = on_trouble
        self._known: dict[_Key, _Known] = {}

    def replace(self, pages: Iterable[Page]) -> Told:
        """A complete list, told as its pages come; what is missing from it is gone once the last one has come."""
        there: set[_Key] = set()
        version = ""
        for page in pages:
            for item in page.items:
                found = decoding.decode_object(item)
                there.add((found.namespace, found.name))
                self._note(found)
            version = page.version
        for key in [key for key in self._known if key not in there]:
            self._end(key)
        self._call(self._on_listed, version)
        return Told(version)

    def apply(self, line: decoding.Bytes) -> Told:
        """A line of the watch; for its errors see `caching.understood`."""
        change = understood(line)
        if change.type == "BOOKMARK":
            return Told(decoding.decode_identity(change.object).version)
        found = decoding.decode_object(change.object)
        if change.type != "DELETED":
            self._note(found)
            return Told(found.version)
        known = self._known.get((found.namespace, found.name))
        if known is not None and known.uid != found.uid:
            return Told(found.version)  # one before the present one
        self._known.pop((found.namespace, found.name), None)
        self._call(self._on_gone, found)
        return Told(found.version)

    def _note(self, found: ApiObject) -> None:
        key = (found.namespace, found.name)
        known = self._known.get(key)
        if known is not None and (known.uid, known.version) == (found.uid, found.version):
            return
        if known is not None and known.uid != found.uid:
            self._end(key)
        self._known[key] = _Known(found.uid, found.version)
        self._call(self._on_change, found)

    def _end(self, key: _Key) -> None:
        known = self._known.pop(key)
        namespace, name = key
        gone = ApiObject(namespace=namespace, name=name, uid=known.uid, version=known.version, body=b"")
        self._call(self._on_gone, gone)

    def _call(self, listener: Callable[[T], None], what: T) -> None:
        try:
            listener(what)
        except Exception as e:  # noqa: BLE001 -- whoever listens must not end the watch
            self._on_trouble(InternalError(f"tell of a change: {type(e).__name__}: {e}"))
