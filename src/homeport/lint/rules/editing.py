"""Edits of JSON text that keep its layout. No I/O.

Everything that moves is copied as it is written in the file, so that quoting, indentation and line breaks stay right in
every style of YAML scalar.
"""

from __future__ import annotations

from collections.abc import Sequence

from homeport.lint.findings import Edit, Span
from homeport.lint.manifests import Embedded
from homeport.lint.nodes import Node


def insert_first(text: Embedded, target: Node, key: str, value: str) -> Edit:
    """Puts `"key": "value"` before the first member of a non-empty object, in that member's layout."""
    first = target.members[0]
    colon = text.written(Span(first.key.span.end, first.value.span.start))
    quoted_key, quoted_value = (text.scalar.encode(f'"{word}"') for word in (key, value))
    return _before_first(text, target, f"{quoted_key}{colon}{quoted_value}")


def move_member(text: Embedded, source: Node, name: str, target: Node) -> tuple[Edit, ...]:
    """Takes a member out of one object and puts it into another, as it is written; nothing where that is empty."""
    member = source.member(name)
    if member is None or not target.members:
        return ()
    written = text.written(Span(member.key.span.start, member.value.span.end))
    return (_before_first(text, target, written), remove_member(source, name))


def _before_first(text: Embedded, target: Node, written: str) -> Edit:
    first = target.members[0]
    gap = text.written(Span(target.span.start + 1, first.key.span.start))
    colon = text.written(Span(first.key.span.end, first.value.span.start))
    separator = gap or (" " if colon.endswith(" ") else "")
    return Edit(first.key.span.start, first.key.span.start, f"{written},{separator}")


def remove_member(target: Node, name: str) -> Edit:
    """Takes a member out of an object, with the comma and the white space that go with it."""
    index = next(n for n, m in enumerate(target.members) if m.name == name)
    member = target.members[index]
    if index + 1 < len(target.members):
        return Edit(member.key.span.start, target.members[index + 1].key.span.start, "")
    before = target.members[index - 1].value.span.end if index else target.span.start + 1
    return Edit(before, member.value.span.end, "")


def reorder(text: Embedded, items: Sequence[Node], order: Sequence[Node]) -> tuple[Edit, ...]:
    """Puts the elements `order` into the places of `items`, leaving what stands between them."""
    return tuple(
        Edit(place.span.start, place.span.end, text.written(item.span))
        for place, item in zip(items, order, strict=True)
        if place is not item
    )


def replace_yaml(node: Node, text: str) -> tuple[Edit, ...]:
    """Replaces a one-line YAML scalar, in its own quotes; nothing when an anchor or tag stands before it.

    `text` needs no escaping in any style.
    """
    quote = node.style if node.style in ("'", '"') else ""
    if node.span.end - node.span.start != len(str(node.value)) + 2 * len(quote):
        return ()
    return (Edit(node.span.start, node.span.end, f"{quote}{text}{quote}"),)
