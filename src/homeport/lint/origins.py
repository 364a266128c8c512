"""Of which file a rendered manifest was made, as Helm's comments and Kustomize's annotations say. No I/O.

`helm template` puts `# Source: CHART/templates/FILE` before every manifest; Kustomize with
`buildMetadata: [originAnnotations]` gives every object the annotation `config.kubernetes.io/origin`.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping

from homeport.lint.findings import Span
from homeport.lint.nodes import Node

_KUSTOMIZE = "config.kubernetes.io/origin"
_SOURCE = re.compile(r"^(?:# Source: (?P<path>\S.*?)\s*|---(?:[ \t].*)?)$", re.MULTILINE)
_PATH = re.compile(r"^path: *(?P<path>\S.*?) *$", re.MULTILINE)


class Origins:
    """Origins of places in texts. An object's own annotation goes before a comment."""

    def __init__(self, texts: Mapping[str, str], objects: Iterable[tuple[str, Node]]) -> None:
        self._comments: dict[str, list[tuple[int, str]]] = {
            file: [(m.end(), m["path"] or "") for m in _SOURCE.finditer(text)]
            for file, text in texts.items()
            if "# Source: " in text
        }
        self._objects: dict[str, list[tuple[Span, str]]] = {}
        for file, node in objects:
            if path := _of_object(node):
                self._objects.setdefault(file, []).append((node.span, path))

    def of(self, file: str, span: Span) -> str:
        """The file's path as it is written there; "" where nothing tells."""
        objects = self._objects.get(file, ())
        before = bisect_right(objects, span.start, key=lambda one: one[0].start)
        if before and span.start < objects[before - 1][0].end:
            return objects[before - 1][1]
        comments = self._comments.get(file, ())
        before = bisect_right(comments, span.start, key=lambda one: one[0])
        return comments[before - 1][1] if before else ""


def _of_object(node: Node) -> str:
    written = node.text("metadata", "annotations", _KUSTOMIZE)
    found = _PATH.search(written) if written else None
    return found["path"] if found else ""
