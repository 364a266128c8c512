"""What an API server keeps: objects, their history, one version for all of them. Used by tests.stand_ins_objects."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from typing import Any

import msgspec

from homeport.model.errors import IOFailure
from homeport.ports import ApiObject, Resource

Key = tuple[Resource, str, str]
"""Resource, namespace, name."""

_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")


class Change(msgspec.Struct, frozen=True):
    """One change, as a watch tells it: what an object was and what it became, None for nothing."""

    version: int
    key: Key
    before: ApiObject | None
    after: ApiObject | None


class MemoryServer:
    """The objects, their history, and one ascending version for all of them."""

    def __init__(self) -> None:
        self.objects: dict[Key, ApiObject] = {}
        self.history: list[Change] = []
        self.version = 1
        self.oldest = 1  # watches go on from this version or a later one
        self.lacking: set[Resource] = set()  # of which it has no definition
        self.changed = threading.Condition(threading.RLock())

    def compact(self) -> None:
        """Forgets the past: whoever has not seen all of it yet must list."""
        with self.changed:
            self.history.clear()
            self.oldest = self.version
            self.changed.notify_all()

    def put(self, key: Key, body: Mapping[str, Any], *, uid: str, created: str) -> ApiObject:
        """Stores it under a new version, unless it is what is there already."""
        before = self.objects.get(key)
        metadata = {**body.get("metadata", {}), "name": key[2], "uid": uid, "creationTimestamp": created}
        if key[1]:
            metadata["namespace"] = key[1]
        metadata.pop("resourceVersion", None)
        for name, value in (metadata.get("labels") or {}).items():
            if not _LABEL_VALUE.fullmatch(value):
                raise IOFailure(f"write {key[0].plural} {key[2]}: label {name}: found {value!r}, expected a label")
        if before is not None:
            metadata["resourceVersion"] = before.version
            if msgspec.json.decode(before.body) == _jsonable({**body, "metadata": metadata}):
                return before
        _refuse_empty(body, key)
        self.version += 1
        metadata["resourceVersion"] = str(self.version)
        raw = msgspec.json.encode({**body, "metadata": metadata})
        after = ApiObject(namespace=key[1], name=key[2], uid=uid, version=str(self.version), body=raw)
        self.objects[key] = after
        self._tell(key, before, after)
        return after

    def remove(self, key: Key) -> None:
        before = self.objects.pop(key)
        self.version += 1
        self._tell(key, before, None)

    def _tell(self, key: Key, before: ApiObject | None, after: ApiObject | None) -> None:
        self.history.append(Change(self.version, key, before, after))
        self.changed.notify_all()


def _refuse_empty(value: Any, key: Key, at: str = "") -> None:
    """API servers of 1.20 take "" for null in custom resources, and refuse both where text is expected."""
    if not key[0].group.endswith("homeport.dev"):
        return
    for name, item in value.items() if isinstance(value, Mapping) else ():
        if item in (None, ""):
            raise IOFailure(f"write {key[0].plural} {key[2]}: {at}{name}: found nothing, expected text")
        for inner in item if isinstance(item, list) else (item,):
            _refuse_empty(inner, key, f"{at}{name}.")


def select(
    server: MemoryServer, resource: Resource, namespace: str, labels: Mapping[str, str], version: int = 0
) -> list[ApiObject]:
    """As they were at `version`, which the server still knows; 0 is now."""
    objects = dict(server.objects)
    for change in reversed(server.history[version - server.oldest :] if version else ()):
        if change.before is None:
            del objects[change.key]
        else:
            objects[change.key] = change.before
    found = [
        (key[1:], o)
        for key, o in objects.items()
        if key[0] == resource and namespace in ("", key[1]) and matches(o, labels)
    ]
    return [o for _, o in sorted(found, key=lambda item: item[0])]


def matches(stored: ApiObject, labels: Mapping[str, str]) -> bool:
    if not labels:
        return True
    has = msgspec.json.decode(stored.body)["metadata"].get("labels") or {}
    return all(has.get(name) == value for name, value in labels.items())


def at_version(stored: ApiObject, version: int) -> ApiObject:
    """As the last word of a deleted object comes: its body, at the version of its end."""
    body = msgspec.json.decode(stored.body)
    body["metadata"]["resourceVersion"] = str(version)
    return msgspec.structs.replace(stored, version=str(version), body=msgspec.json.encode(body))


def api_version(resource: Resource) -> str:
    return f"{resource.group}/{resource.version}" if resource.group else resource.version


def _jsonable(value: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(value))
