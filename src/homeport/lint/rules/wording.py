"""Words that several rules use. No I/O."""

from __future__ import annotations

from homeport.cni.documents import shown
from homeport.lint.manifests import Workload
from homeport.model.errors import CniError


def said(error: CniError) -> tuple[str, str]:
    """(what was found, what is right), without the key that the text begins with: lint shows the place."""
    text = error.msg.partition(": ")[2] or error.msg
    found, comma, expected = text.rpartition(", expected ")
    return (found.removeprefix("found "), f"expected {expected}") if comma else (text, error.details or "see the rule")


def called(workload: Workload) -> str:
    """The workload as its owner calls it."""
    return f"{workload.kind} {shown(workload.name)}"
