"""JSON as CNI uses it: bounded on the way in, four-space indented on the way out. No I/O.

Whatever bytes come in, `decode` and `convert` return a value or raise a `CniError`; no input makes them recurse or
grow without limit. A key that is null counts as absent, as it does for every Go plugin.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar, get_args

import msgspec

from homeport.model.errors import CniError, DecodeFailure, InvalidNetConf

T = TypeVar("T")

MAX_BYTES = 16 * 1024 * 1024
MAX_DEPTH = 100
_SHOWN = 80  # characters of a found value worth printing

_EXPECTED_GOT = re.compile(r"Expected `(?P<expected>.+?)`, got `(?P<got>.+?)`")
_EXPECTED = re.compile(r"Expected (?P<expected>.+)")
_MISSING = re.compile(r"Object missing required field `(?P<field>.+)`")
_ENUM = re.compile(r"Invalid enum value (?P<value>.+)")
_AT = re.compile(r"^(?P<problem>.*?)(?: - at (?P<key>`key` in )?`\$(?P<path>.*)`)?$", re.DOTALL)
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+)\]")


def decode(raw: bytes, what: str) -> Any:
    """The JSON value in `raw`; `what` names it in the `DecodeFailure` raised otherwise."""
    if len(raw) > MAX_BYTES:
        raise DecodeFailure(f"decode {what}: found {len(raw)} bytes, expected at most {MAX_BYTES}")
    if not raw.strip():
        raise DecodeFailure(f"decode {what}: found nothing, expected a JSON object")
    try:
        value = msgspec.json.decode(raw)
    except RecursionError as e:
        raise _too_deep(what) from e
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise DecodeFailure(f"decode {what}: not JSON", str(e)) from e
    if _is_deeper_than(value, MAX_DEPTH):
        raise _too_deep(what)
    return value


def decode_object(raw: bytes, what: str) -> Mapping[str, Any]:
    """The JSON object in `raw`."""
    value = decode(raw, what)
    if not isinstance(value, dict):
        raise DecodeFailure(f"decode {what}: found {shown(value)}, expected a JSON object")
    return value


def convert(value: Any, into: type[T], *, at: str = "", error: type[CniError] = InvalidNetConf) -> T:
    """JSON types as a msgspec type. Unknown keys are ignored; an error names the key below `at` and the value found."""
    try:
        return msgspec.convert(_without_nulls(value), into)
    except RecursionError as e:
        raise _too_deep(at or "object") from e
    except msgspec.ValidationError as e:
        raise error(_explain(str(e), value, into, at)) from e


def require_known(value: Mapping[str, Any], into: type[msgspec.Struct], *, at: str = "") -> None:
    """Raises `InvalidNetConf` for a key that is no field of `into`: where all keys are ours, another is a mistake."""
    known = [field.encode_name for field in msgspec.structs.fields(into)]
    for key in value:
        if key not in known:
            raise InvalidNetConf(f"key {shown(f'{at}{key}')}: unknown, expected one of {', '.join(known)}")


def write(value: Any) -> bytes:
    """The form plugins print: four-space indented, no newline at the end.

    Raises `DecodeFailure` for text that has no UTF-8: half of a surrogate pair, which JSON can escape.
    """
    try:
        return msgspec.json.format(msgspec.json.encode(value), indent=4)
    except UnicodeEncodeError as e:
        raise DecodeFailure(f"write JSON: found {e.object[e.start]!a}, expected text that UTF-8 can hold") from e


def shown(value: Any) -> str:
    """`value` as JSON for an error message, cut when long."""
    try:
        text = msgspec.json.encode(value).decode()
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError):
        text = repr(type(value).__name__)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _too_deep(what: str) -> DecodeFailure:
    return DecodeFailure(f"decode {what}: nested too deeply, expected at most {MAX_DEPTH} levels")


def _is_deeper_than(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit + 1):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
        if not below:
            return False
        level = below
    return True


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [_without_nulls(v) for v in value]
    return value


def _explain(problem: str, value: Any, into: Any, at: str) -> str:
    """Msgspec's text as ours: `key "mtu": found "big", expected int`."""
    match = _AT.match(problem)
    path = (match["path"] or "") if match else ""
    text = match["problem"] if match else problem
    if missing := _MISSING.fullmatch(text):
        field = missing["field"]
        return f'key "{_joined(at, f"{path}.{field}")}": missing'
    found = shown(_at_path(value, path))
    if got := _EXPECTED_GOT.fullmatch(text):
        expected = got["expected"].replace("`", "")
        text = f"found {found}, expected {expected}"
    elif (enum := _ENUM.fullmatch(text)) and (choices := _choices(into, path)):
        text = f"found {enum['value'].replace(chr(39), chr(34))}, expected one of {', '.join(choices)}"
    elif constraint := _EXPECTED.fullmatch(text):
        text = f"found {found}, expected {constraint['expected'].replace('`', '')}"
    key = _joined(at, path)
    return f'key "{key}": {text}' if key else text


def _joined(at: str, path: str) -> str:
    return f"{at}{path}" if at else path.removeprefix(".")


def _at_path(value: Any, path: str) -> Any:
    """What stands at msgspec's `path`; for a path it cannot follow, the innermost value it could."""
    for name, index in _STEP.findall(path):
        try:
            value = value[name] if name else value[int(index)]
        except (KeyError, IndexError, TypeError):
            return value
    return value


def _choices(into: Any, path: str) -> list[str]:
    """The words a Literal field of `into` takes, or none when the path leads elsewhere."""
    if not (isinstance(into, type) and issubclass(into, msgspec.Struct)):
        return []
    name = path.removeprefix(".")
    for field in msgspec.structs.fields(into):
        if field.encode_name == name:
            return [shown(choice) for choice in get_args(field.type)]
    return []
