"""`{ordinal}` in a network selection: one annotation for all replicas, a value of its own for each. No I/O.

`{ordinal}` is the replica's number, `{ordinal+N}` and `{ordinal-N}` that number moved by N.
"""

from __future__ import annotations

import re

from homeport.cni import documents
from homeport.model.errors import InvalidNetConf

_TOKEN = re.compile(r"\{ordinal(?:(?P<sign>[+-])(?P<by>[0-9]{1,9}))?\}")
_START = "{ordinal"
_BYTE_MAX = 255


def is_template(text: str) -> bool:
    """Whether some replica would read another value in `text`, or somebody meant it to."""
    return _START in text


def starts(text: str) -> bool:
    """Whether `text` starts with a token, and so is no JSON object."""
    return text.lstrip().startswith(_START)


def expand(text: str, ordinal: int | None, at: str, *, as_byte: bool = False) -> str:
    """`text` with every token replaced by a decimal number, or `as_byte` by two hexadecimal digits.

    `ordinal` None is a pod that is no replica. Raises `InvalidNetConf` naming `at`: for a token there, for braces
    that are no token, for a number below zero (or above 255 where it is a byte).
    """
    if "{" not in text and "}" not in text:
        return text
    rest = _TOKEN.sub("", text)
    if "{" in rest or "}" in rest:
        raise _wrong(at, text, 'braces only in "{ordinal}", "{ordinal+N}" and "{ordinal-N}"')
    if ordinal is None:
        raise InvalidNetConf(
            f"annotation {at}: found {documents.shown(text)} on a pod that is no replica, "
            'expected "{ordinal}" only for replicas, such as the pods of a StatefulSet'
        )

    def number(token: re.Match[str]) -> str:
        by = int(token["by"] or 0)
        value = ordinal - by if token["sign"] == "-" else ordinal + by
        if value < 0:
            raise _wrong(at, text, f"no number below 0, and it is {value} for replica {ordinal}")
        if as_byte and value > _BYTE_MAX:
            raise _wrong(at, text, f"at most {_BYTE_MAX} in a byte, and it is {value} for replica {ordinal}")
        return f"{value:02x}" if as_byte else str(value)

    return _TOKEN.sub(number, text)


def _wrong(at: str, found: str, expected: str) -> InvalidNetConf:
    return InvalidNetConf(f"annotation {at}: found {documents.shown(found)}, expected {expected}")
