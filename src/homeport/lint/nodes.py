"""A tree of JSON types that knows where each part stands in its file, whether YAML or JSON wrote it. No I/O.

Built from the leaves up and never changed, so that it has no cycle and the garbage collector need not look at it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import msgspec

from homeport.lint.findings import Span

Kind = Literal["object", "array", "string", "number", "boolean", "null"]

MAX_DEPTH = 64


class Member(msgspec.Struct, frozen=True, gc=False):
    """One `key: value` of an object."""

    key: Node
    value: Node

    @property
    def name(self) -> str:
        return str(self.key.value)


class Node(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A value and its place. `style` is YAML's way of writing a scalar (`'`, `"`, `|`, `>` or empty for plain)."""

    kind: Kind
    span: Span
    value: str | int | float | bool | None = None
    members: tuple[Member, ...] = ()
    items: tuple[Node, ...] = ()
    style: str = ""

    def member(self, name: str) -> Member | None:
        """The member of that name; of several the last, which is the one Go's decoders keep."""
        for member in reversed(self.members):
            if member.key.value == name and member.key.kind == "string":
                return member
        return None

    def get(self, *path: str) -> Node | None:
        """The value at a path of object keys; None where a step is missing or not an object."""
        node: Node = self
        for name in path:
            found = node.member(name)
            if found is None:
                return None
            node = found.value
        return node

    def text(self, *path: str) -> str | None:
        """The string at a path; None when it is missing or no string."""
        node = self.get(*path)
        return node.value if node is not None and isinstance(node.value, str) and node.kind == "string" else None


def plain(node: Node) -> Any:
    """The value without its places, as a JSON decoder would give it."""
    match node.kind:
        case "object":
            return {m.name: plain(m.value) for m in node.members}
        case "array":
            return [plain(item) for item in node.items]
        case _:
            return node.value


def moved(node: Node, place: Callable[[Span], Span]) -> Node:
    """The same tree with every span put through `place`."""
    return msgspec.structs.replace(
        node,
        span=place(node.span),
        members=tuple(Member(moved(m.key, place), moved(m.value, place)) for m in node.members),
        items=tuple(moved(item, place) for item in node.items),
    )


def objects(node: Node) -> Iterator[Node]:
    """Every object of a tree, outermost first."""
    if node.kind == "object":
        yield node
    for child in (*(m.value for m in node.members), *node.items):
        yield from objects(child)
