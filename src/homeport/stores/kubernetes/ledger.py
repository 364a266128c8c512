"""IPLedgers: every change of every allocation, in chunks that one writer makes of what a watch tells (R15). No I/O."""

from __future__ import annotations

import gzip
import zlib
from base64 import b64decode, b64encode
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from homeport.ipam.allocations import Allocation, Phase
from homeport.model.errors import DecodeFailure
from homeport.ports import ApiObject, LedgerEntry
from homeport.stores.kubernetes import names
from homeport.stores.kubernetes.resources import IPLEDGERS
from homeport.stores.kubernetes.wire import (
    Instant,
    Record,
    WireSpec,
    WireStatus,
    instant,
    record_of,
    wire_spec,
    wire_status,
    without_empty,
)

PLAIN_DELETION = "DEL"
"""The cause of a deletion that nobody explained: what a holder's own DEL is, so that it costs one request."""

_DATA_MAX = 64 * 1024 * 1024


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """An IPLedger without its entries. `through` is the version up to which every change is in it or an earlier one."""

    number: int
    begin: datetime
    end: datetime
    through: str
    count: int


class _ChunkSpec(msgspec.Struct):
    begin: Instant = msgspec.field(name="from")
    end: Instant = msgspec.field(name="to")
    through: str
    count: int
    data: str


class _Object(msgspec.Struct):
    spec: _ChunkSpec


class _Version(msgspec.Struct):
    version: int
    spec: WireSpec
    status: WireStatus


class _Entry(msgspec.Struct):
    at: Instant
    cause: str
    before: _Version | None
    after: _Version | None


_objects = msgspec.json.Decoder(_Object)
_entries = msgspec.json.Decoder(list[_Entry])


class Chronicle:
    """Makes ledger entries of what a watch tells of IPAllocations, one after the other."""

    def __init__(self) -> None:
        self._leaving: dict[str, Record] = {}  # by object name: the last allocation, with the cause it will go for

    def changed(self, before: Record | None, after: Record) -> LedgerEntry | None:
        """Of a new or changed object; None when only the cause of what comes next was noted in it."""
        name = _name(after.allocation)
        if before is not None and _is_same(before.allocation, after.allocation):
            leaving = self._leaving.get(name, before)
            self._leaving[name] = msgspec.structs.replace(after, allocation=leaving.allocation)
            return None
        was = self._leaving.pop(name, before)
        at = after.changed if after.changed is not None else after.allocation.since
        return LedgerEntry(
            at=at, cause=after.cause, before=was.allocation if was is not None else None, after=after.allocation
        )

    def gone(self, before: Record, *, now: datetime) -> LedgerEntry:
        """Of a deleted object; `now` is its time where nobody noted one."""
        noted = self._leaving.pop(_name(before.allocation), None)
        if noted is not None:
            return LedgerEntry(at=noted.changed or now, cause=noted.cause, before=noted.allocation, after=None)
        cause = PLAIN_DELETION if before.allocation.phase is Phase.BOUND else "deleted"
        return LedgerEntry(at=now, cause=cause, before=before.allocation, after=None)


def chunk_body(number: int, entries: Sequence[LedgerEntry], *, through: str) -> dict[str, Any]:
    """The object of a new chunk; `entries` are at least one."""
    spec = _ChunkSpec(
        begin=min(e.at for e in entries),
        end=max(e.at for e in entries),
        through=through,
        count=len(entries),
        data=b64encode(gzip.compress(msgspec.json.encode([_encode(e) for e in entries]), mtime=0)).decode(),
    )
    body = msgspec.to_builtins(spec) | {"from": instant(spec.begin), "to": instant(spec.end)}
    return {"metadata": {"name": names.ledger_name(number)}, "spec": body}


def decode_chunk(stored: ApiObject) -> Chunk:
    """What a chunk says of itself, its entries left alone. Raises `DecodeFailure` naming the object."""
    spec = _spec(stored)
    number = names.ledger_number(stored.name)
    if number is None:
        raise DecodeFailure(f"decode {IPLEDGERS.plural} {stored.name}: expected a name like {names.ledger_name(0)}")
    return Chunk(number=number, begin=spec.begin, end=spec.end, through=spec.through, count=spec.count)


def decode_entries(stored: ApiObject) -> tuple[LedgerEntry, ...]:
    """A chunk's entries, in their order. Raises `DecodeFailure` naming the object."""
    what = f"{IPLEDGERS.plural} {stored.name}"
    try:
        unpacking = zlib.decompressobj(wbits=31)  # gzip; bounded, for a few bytes can stand for very many
        data = unpacking.decompress(b64decode(_spec(stored).data, validate=True), _DATA_MAX)
        if not unpacking.eof:
            raise ValueError(f"found broken data, or more than {_DATA_MAX} bytes of it")
        found = _entries.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError, zlib.error) as e:
        raise DecodeFailure(f"decode {what}: {e}") from e
    return tuple(
        LedgerEntry(at=e.at, cause=e.cause, before=_decode(e.before, what), after=_decode(e.after, what)) for e in found
    )


def _spec(stored: ApiObject) -> _ChunkSpec:
    try:
        return _objects.decode(stored.body).spec
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise DecodeFailure(f"decode {IPLEDGERS.plural} {stored.name}: {e}") from e


def _encode(entry: LedgerEntry) -> dict[str, Any]:
    return {
        "at": instant(entry.at),
        "cause": entry.cause,
        "before": _encode_version(entry.before),
        "after": _encode_version(entry.after),
    }


def _encode_version(allocation: Allocation | None) -> dict[str, Any] | None:
    if allocation is None:
        return None
    spec, status = wire_spec(allocation), wire_status(Record(allocation=allocation))
    found: dict[str, Any] = without_empty(msgspec.to_builtins({"spec": spec, "status": status}))
    return {"version": allocation.version, **found}


def _decode(version: _Version | None, what: str) -> Allocation | None:
    if version is None:
        return None
    return record_of(version.spec, version.status, version=str(version.version), what=what).allocation


def _name(allocation: Allocation) -> str:
    return names.allocation_name(allocation.scope, allocation.address)


def _is_same(before: Allocation, after: Allocation) -> bool:
    return msgspec.structs.replace(before, version=0) == msgspec.structs.replace(after, version=0)
