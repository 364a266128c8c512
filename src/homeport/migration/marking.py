"""What a migration made, told apart from everything else: a label, and a note of where it came from. No I/O of its own.

Both are in the very request that creates an object, so that nothing a migration made is ever without them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import msgspec

from homeport.ipam.allocations import Allocation
from homeport.migration.facts import Origin
from homeport.model.errors import DecodeFailure
from homeport.ports import ApiObject, Objects, Resource

LABEL = "homeport.dev/migrated-from"
NOTE = "homeport.dev/migration"
WHEREABOUTS = "whereabouts"


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """Where an allocation came from, and what it was when it was made."""

    origin: Origin
    phase: str
    container_id: str = ""
    since: datetime

    @classmethod
    def of(cls, allocation: Allocation, origin: Origin) -> Note:
        holder = allocation.holder
        return cls(
            origin=origin,
            phase=allocation.phase.value,
            container_id=holder.container_id if holder is not None else "",
            since=allocation.since,
        )

    def still_holds(self, allocation: Allocation) -> bool:
        """Whether the allocation is as it was made: the same phase, and the same container has it, if any."""
        now = Note.of(allocation, self.origin)
        return (now.phase, now.container_id, now.since) == (self.phase, self.container_id, self.since)


class _Metadata(msgspec.Struct):
    annotations: dict[str, str] = {}


class _Noted(msgspec.Struct):
    metadata: _Metadata


def note_of(stored: ApiObject) -> Note | None:
    """The note of an object; None for one that carries none. Raises `DecodeFailure` for one that cannot be read."""
    try:
        text = msgspec.json.decode(stored.body, type=_Noted).metadata.annotations.get(NOTE)
        return None if text is None else msgspec.json.decode(text, type=Note)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise DecodeFailure(f'decode annotation "{NOTE}" of "{stored.name}": {e}') from e


class MarkingObjects:
    """`ports.Objects` whose creations carry the label, and inside `noting` the note. Not to be shared by threads."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._annotations: Mapping[str, str] = {}
        self.get = objects.get
        self.patch = objects.patch
        self.patch_json = objects.patch_json
        self.delete = objects.delete
        self.list = objects.list
        self.names = objects.names
        self.watch = objects.watch

    @contextmanager
    def noting(self, note: Note) -> Iterator[None]:
        self._annotations = {NOTE: msgspec.json.encode(note).decode()}
        try:
            yield
        finally:
            self._annotations = {}

    def create(self, resource: Resource, body: Mapping[str, Any], *, namespace: str = "") -> ApiObject:
        metadata = dict(body.get("metadata") or {})
        metadata["labels"] = {**(metadata.get("labels") or {}), LABEL: WHEREABOUTS}
        metadata["annotations"] = {**(metadata.get("annotations") or {}), **self._annotations}
        return self._objects.create(resource, {**body, "metadata": metadata}, namespace=namespace)


def marked(listed: Sequence[ApiObject]) -> Mapping[str, Note]:
    """The notes of objects, by name; those without one left out."""
    found = ((stored.name, note_of(stored)) for stored in listed)
    return {name: note for name, note in found if note is not None}
