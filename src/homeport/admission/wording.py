"""What was found, in the words of an answer. No I/O."""

from __future__ import annotations

from collections.abc import Sequence

from homeport.admission.deciding import Said
from homeport.admission.reviews import Answer, Cause
from homeport.lint.findings import Severity

_MOST_ERRORS = 10
_MOST_WARNINGS = 12  # of at most 256 characters: the API server hands on 4096 in all
_WARNING_MAX = 256
_ERROR_MAX = 1000
_PREFIX = "homeport: "
_REST = "homeport lint --cluster lists them"


def answer_of(told: Sequence[Said]) -> Answer:
    """A denial for errors that are new; warnings for everything else."""
    errors = [said for said in told if said.severity is Severity.ERROR and not said.before]
    others = [said for said in told if said not in errors]
    if not errors:
        return Answer(warnings=warnings([line(said) for said in others]))
    lines = [_cut(line(said), _ERROR_MAX) for said in errors[:_MOST_ERRORS]]
    if len(errors) > _MOST_ERRORS:
        lines.append(f"{_PREFIX}and {len(errors) - _MOST_ERRORS} errors more")
    causes = tuple(Cause(reason=said.rule, message=_spoken(said), field=_place(said)) for said in errors[:_MOST_ERRORS])
    return Answer(denial="\n".join(lines), causes=causes, warnings=warnings([line(said) for said in others]))


def line(said: Said) -> str:
    """`homeport: RULE: found; right (place)`."""
    place = _place(said)
    at = f" ({place})" if place else ""
    was = "; it was so before" if said.before else ""
    return f"{_PREFIX}{said.rule}: {_spoken(said)}{was}{at}"


def warnings(lines: Sequence[str]) -> tuple[str, ...]:
    """Lines as an answer may carry them: short, few, and printable, as they become HTTP headers."""
    kept = [_cut(_printable(text), _WARNING_MAX) for text in lines[:_MOST_WARNINGS]]
    if len(lines) > _MOST_WARNINGS:
        kept.append(f"{_PREFIX}and {len(lines) - _MOST_WARNINGS} more; {_REST}")
    return tuple(kept)


def _place(said: Said) -> str:
    return ", ".join(part for part in (said.where, said.path) if part)


def _spoken(said: Said) -> str:
    return _printable(f"{said.found}; {said.right}")


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in text)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."
