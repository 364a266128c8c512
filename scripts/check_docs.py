"""Part of `make check`: links inside the docs resolve, every page is reachable, what code writes is current."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import write_lint_docs
from write_errors_doc import PAGE, page

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """The fragment of every heading, as the common renderers make it."""
    bare = (re.sub(r"[^\w\- ]", "", h.replace("`", "").lower()) for h in HEADING.findall(FENCE.sub("", text)))
    return {h.strip().replace(" ", "-") for h in bare}


def problems() -> list[str]:
    """One line for each broken link, unreachable page and outdated generated page."""
    pages = {p: p.read_text() for p in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]}
    found = []
    reached = {ROOT / "README.md"}
    for path, text in pages.items():
        for target in LINK.findall(FENCE.sub("", text)):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, fragment = target.partition("#")
            goal = (path.parent / name).resolve() if name else path
            if not goal.exists():
                found.append(f"{path.relative_to(ROOT)}: link to {target}: no such file")
            elif fragment and goal in pages and fragment not in anchors(pages[goal]):
                found.append(f"{path.relative_to(ROOT)}: link to {target}: no such heading")
            reached.add(goal)
    found += [f"{p.relative_to(ROOT)}: no page links to it" for p in pages if p not in reached]
    if PAGE.read_text() != page():
        found.append("docs/errors.md: not what the code says; run scripts/write_errors_doc.py")
    return found + write_lint_docs.problems()


if __name__ == "__main__":
    sys.exit("\n".join(problems()) or 0)
