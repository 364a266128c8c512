"""Where something stands in an object, in the words of its API: `spec.config plugins[1].ipam.range`. No I/O."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from homeport.lint.findings import Span
from homeport.lint.manifests import Embedded, Manifests
from homeport.lint.nodes import Node

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


def path_of(read: Manifests, span: Span) -> str:
    """The path of a stretch of an object's text, and behind a blank the one within a text that is JSON itself.

    "" for the object as a whole.
    """
    root = next((node for _, node in read.objects), None)
    outer = _path(root, span) if root is not None else ""
    for text in _embedded(read):
        if text.root is not None and _is_within(span, text.root.span):
            inner = _path(text.root, span)
            return f"{outer} {inner}" if inner else outer
    return outer


def _embedded(read: Manifests) -> Iterator[Embedded]:
    for network in read.networks:
        if network.text is not None:
            yield network.text
    for workload in read.workloads:
        yield from workload.annotations.values()


def _path(root: Node, span: Span) -> str:
    steps: list[str] = []
    node = root
    while True:
        inner = _step(node, span)
        if inner is None:
            return "".join(steps).removeprefix(".")
        step, child = inner
        steps.append(step)
        if child is None:
            return "".join(steps).removeprefix(".")
        node = child


def _step(node: Node, span: Span) -> tuple[str, Node | None] | None:
    """One step down to the stretch; without a child where it is a key."""
    for member in node.members:
        if _is_within(span, member.value.span):
            return _named(member.name), member.value
        if _is_within(span, member.key.span):
            return _named(member.name), None
    for number, item in enumerate(node.items):
        if _is_within(span, item.span):
            return f"[{number}]", item
    return None


def _named(name: str) -> str:
    return f".{name}" if _PLAIN.fullmatch(name) else f"[{json.dumps(name)}]"


def _is_within(span: Span, outer: Span) -> bool:
    return outer.start <= span.start and span.end <= outer.end
