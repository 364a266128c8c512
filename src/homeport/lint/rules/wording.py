"""An error's text as a finding's. No I/O."""

from __future__ import annotations

from homeport.model.errors import CniError


def said(error: CniError) -> tuple[str, str]:
    """(what was found, what is right), without the key that the text begins with: lint shows the place."""
    text = error.msg.partition(": ")[2] or error.msg
    found, comma, expected = text.rpartition(", expected ")
    return (found.removeprefix("found "), f"expected {expected}") if comma else (text, error.details or "see the rule")
