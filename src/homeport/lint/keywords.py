"""What a key of a configuration may hold, and what it is for. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

Type = Literal["string", "number", "boolean", "array", "object", "any"]


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """One key. `least`..`most` bound a number, both inclusive; `inside` are the keys of an object, or of a list's.

    `of` is the type of an array's elements. `about` is what an editor shows.
    """

    type: Type
    about: str = ""
    of: Type = "any"
    choices: tuple[str, ...] = ()
    least: int | None = None
    most: int | None = None
    inside: Mapping[str, Key] | None = None
    required: bool = False


def text(about: str, *choices: str, required: bool = False) -> Key:
    """A string; `choices` are the words it may be."""
    return Key(type="string", about=about, choices=choices, required=required)


def flag(about: str) -> Key:
    """A boolean."""
    return Key(type="boolean", about=about)


def number(about: str, least: int = 0, most: int | None = None) -> Key:
    """A whole number, both bounds inclusive."""
    return Key(type="number", about=about, least=least, most=most)


def words(about: str) -> Key:
    """An array of strings."""
    return Key(type="array", of="string", about=about)


def free(about: str) -> Key:
    """An object whose keys are not ours to judge."""
    return Key(type="object", about=about)


def inside(keys: Mapping[str, Key], kind: Type = "object", about: str = "") -> Key:
    """An object with those keys, or an array of such."""
    return Key(type=kind, of="object", about=about, inside=keys)


ANY = Key(type="any")
