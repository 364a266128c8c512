"""What a list and a watch have told of one resource. No I/O.

Kubernetes API concepts, "Efficient detection of changes". An object leaves only when the API server says that it is
deleted, or when a complete list is without it; a failure of any kind takes nothing away. Reading is safe from any
thread, writing is for one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import msgspec

from homeport.kube import decoding, errors
from homeport.kube.decoding import Bytes, Change, Identity, Page
from homeport.kube.errors import Expired
from homeport.model.errors import DecodeFailure, TryAgainLater

T = TypeVar("T")
_TYPES = ("ADDED", "MODIFIED", "DELETED", "BOOKMARK")


class _Entry(msgspec.Struct, Generic[T], frozen=True):
    identity: Identity
    value: T


class Told(msgspec.Struct, frozen=True):
    """What came of a list or of a line of a watch: where to go on from, and which objects are proven gone."""

    version: str
    gone: tuple[Identity, ...] = ()


class Cache(Generic[T]):
    """The objects of one resource by namespace and name, as `decode` makes them of JSON."""

    def __init__(self, decode: Callable[[Bytes], T]) -> None:
        self._decode = decode
        self._entries: dict[tuple[str, str], _Entry[T]] = {}

    def get(self, namespace: str, name: str) -> T | None:
        """None says nothing about the API server's side."""
        entry = self._entries.get((namespace, name))
        return entry.value if entry is not None else None

    def __len__(self) -> int:
        return len(self._entries)

    def replace(self, pages: Iterable[Page]) -> Told:
        """Takes a complete list, all its pages in order, for everything there is.

        An object that cannot be read is left out, so that whoever asks for it asks the API server; one whose very
        name cannot be read makes the list as a whole a `DecodeFailure`, which changes nothing.
        """
        version = ""
        there: dict[tuple[str, str], str] = {}
        entries: dict[tuple[str, str], _Entry[T]] = {}
        for page in pages:
            for item in page.items:
                identity = decoding.decode_identified(item)
                key = (identity.namespace, identity.name)
                there[key] = identity.uid
                entry = self._entry(identity, item)
                if entry is not None:
                    entries[key] = entry
            version = page.version
        gone = tuple(e.identity for key, e in self._entries.items() if there.get(key) != e.identity.uid)
        self._entries = entries
        return Told(version, gone)

    def apply(self, line: Bytes) -> Told:
        """Takes one line of a watch; for its errors see `understood`."""
        change = understood(line)
        if change.type == "BOOKMARK":
            return Told(decoding.decode_identity(change.object).version)
        identity = decoding.decode_identified(change.object)
        key = (identity.namespace, identity.name)
        former = self._entries.get(key)
        if change.type == "DELETED":
            if former is not None and former.identity.uid == identity.uid:
                del self._entries[key]
            return Told(identity.version, (identity,))
        entry = self._entry(identity, change.object)
        if entry is not None:
            self._entries[key] = entry
        else:
            self._entries.pop(key, None)
        replaced = former is not None and former.identity.uid != identity.uid
        return Told(identity.version, (former.identity,) if former is not None and replaced else ())

    def _entry(self, identity: Identity, item: Bytes) -> _Entry[T] | None:
        try:
            return _Entry(identity, self._decode(item))
        except DecodeFailure:
            return None


def understood(line: Bytes) -> Change:
    """One line of a watch that tells of an object, or is a bookmark.

    Raises `Expired` when only a new list can go on, `TryAgainLater` for another error of the API server's and
    `DecodeFailure` for a line that cannot be understood: a list must follow, as something was missed.
    """
    change = decoding.decode_change(line)
    if change.type == "ERROR":
        raise _reported(change.object)
    if change.type not in _TYPES:
        raise DecodeFailure(f'decode watch event: found type "{change.type}", expected one of {", ".join(_TYPES)}')
    return change


def _reported(item: Bytes) -> TryAgainLater:
    status = errors.decode_status(bytes(item))
    if status is None:
        return TryAgainLater("watch: the API server ended it with an error")
    if status.code == 410:
        return Expired("watch: the version to go on from is no longer kept (410)", status.message)
    return TryAgainLater(f"watch: the API server ended it with {status.code} {status.reason}", status.message)
