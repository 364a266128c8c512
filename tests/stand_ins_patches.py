"""What the API server does with a patch, for its stand-ins: RFC 7386 and RFC 6902 on plain JSON values."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any


class Refused(Exception):
    """A test failed, or a path leads nowhere."""


def merged(value: Any, patch: Any) -> Any:
    """RFC 7386, section 2. `value` stays as it is."""
    if not isinstance(patch, Mapping):
        return copy.deepcopy(patch)
    result = dict(value) if isinstance(value, Mapping) else {}
    for key, item in patch.items():
        if item is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), item)
    return result


def patched(value: Any, operations: Sequence[Mapping[str, Any]]) -> Any:
    """RFC 6902, all of the operations or, with `Refused`, none. `value` stays as it is."""
    root = {"": copy.deepcopy(value)}
    for operation in operations:
        path = _steps(operation["path"])
        match operation["op"]:
            case "test":
                if _tested(_at(root, path[:-1]), path[-1]) != operation["value"]:
                    raise Refused(f"test {operation['path']}")
            case "add":
                _add(root, path, copy.deepcopy(operation["value"]))
            case "replace":
                _remove(root, path)
                _add(root, path, copy.deepcopy(operation["value"]))
            case "remove":
                _remove(root, path)
            case "copy":
                _add(root, path, copy.deepcopy(_at(root, _steps(operation["from"]))))
            case "move":
                _add(root, path, _remove(root, _steps(operation["from"])))
            case other:
                raise Refused(f"operation {other}")
    return root[""]


def _steps(pointer: str) -> list[str]:
    """RFC 6901; the first step is the whole document."""
    return [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")]


def _at(value: Any, steps: Sequence[str]) -> Any:
    for step in steps:
        value = _child(value, step)
    return value


def _tested(parent: Any, step: str) -> Any:
    """The API server takes a key that is not there for null, where RFC 6902 has the test fail."""
    return parent.get(step) if isinstance(parent, dict) else _child(parent, step)


def _child(value: Any, step: str) -> Any:
    if isinstance(value, dict) and step in value:
        return value[step]
    if isinstance(value, list) and step.isdigit() and int(step) < len(value):
        return value[int(step)]
    raise Refused(f"no {step!r}")


def _add(root: Any, steps: Sequence[str], item: Any) -> None:
    parent = _at(root, steps[:-1])
    if isinstance(parent, dict):
        parent[steps[-1]] = item
    elif isinstance(parent, list) and steps[-1] == "-":
        parent.append(item)
    elif isinstance(parent, list) and steps[-1].isdigit() and int(steps[-1]) <= len(parent):
        parent.insert(int(steps[-1]), item)
    else:
        raise Refused(f"no place for {steps[-1]!r}")


def _remove(root: Any, steps: Sequence[str]) -> Any:
    parent, last = _at(root, steps[:-1]), steps[-1]
    found = _child(parent, last)
    if isinstance(parent, dict):
        del parent[last]
    else:
        del parent[int(last)]
    return found
