"""How rows came out, as values, and as text, JSON and JUnit. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any
from xml.etree import ElementTree

import msgspec

_TOOL = "homeport.conformance"
_SHORT = 0.05  # seconds that are not worth telling


class RowFailed(Exception):
    """What a row found is not what the matrix says."""


class NotRun(Exception):
    """A row cannot be run here, and why."""


class Interrupted(Exception):
    """Somebody has had enough."""


class Verdict(Enum):
    """On one row."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_RUN = "not run"


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Of one row. `reason` is empty where it passed; `remark` is what was not quite as the matrix has it; `seen` is
    what there was in the end: facts, a line each.
    """

    row: str
    event: str
    expected: str
    verdict: Verdict
    reason: str = ""
    remark: str = ""
    seen: tuple[str, ...] = ()
    seconds: float = 0.0


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Of a run. `left` is what could not be cleaned up, a line each; `interrupted` by a signal."""

    network: str
    namespace: str
    records: bool  # whether the cluster has Homeport's own allocations to look at
    outcomes: tuple[Outcome, ...] = ()
    left: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    interrupted: bool = False
    seconds: float = 0.0

    def count(self, verdict: Verdict) -> int:
        return sum(outcome.verdict is verdict for outcome in self.outcomes)

    @property
    def is_green(self) -> bool:
        """Something passed, nothing failed, and nothing is left."""
        failed = self.count(Verdict.FAILED) or not self.count(Verdict.PASSED)
        return not (failed or self.left or self.interrupted)


def line_of(outcome: Outcome) -> str:
    """For people: the row, and below it why it is not green."""
    verdict = "FAILED" if outcome.verdict is Verdict.FAILED else outcome.verdict.value
    aside = [text for text in (outcome.remark, f"{outcome.seconds:.1f} s" if outcome.seconds >= _SHORT else "") if text]
    tail = f" ({', '.join(aside)})" if aside else ""
    lines = [f"{outcome.row:5}{verdict:9}{outcome.event}{tail}"]
    if outcome.reason:
        lines.append(f"     {outcome.reason}")
    if outcome.verdict is Verdict.FAILED:
        lines.append(f"     expected: {outcome.expected}")
        lines += [f"     seen: {fact}" for fact in outcome.seen]
    return "\n".join(lines)


def summary(report: Report) -> str:
    """The last lines for people."""
    counts = ", ".join(f"{report.count(verdict)} {verdict.value}" for verdict in Verdict if report.count(verdict))
    lines = ["", f"{report.network}: {counts or 'no row was run'}, in {report.seconds:.0f} s"]
    if report.interrupted:
        lines.append("interrupted: the rows that are not named were not run")
    lines += [f"note: {note}" for note in report.notes]
    lines += [f"left behind: {thing}" for thing in report.left]
    if report.left:
        lines.append(f"to remove it later: homeport conformance --clean {report.namespace}")
    return "\n".join(lines)


def as_value(report: Report) -> Mapping[str, Any]:
    """For programs."""
    return {
        "network": report.network,
        "namespace": report.namespace,
        "allocations": report.records,
        "passed": report.count(Verdict.PASSED),
        "failed": report.count(Verdict.FAILED),
        "notRun": report.count(Verdict.NOT_RUN),
        "green": report.is_green,
        "interrupted": report.interrupted,
        "seconds": round(report.seconds, 1),
        "rows": [
            {
                "row": outcome.row,
                "event": outcome.event,
                "expected": outcome.expected,
                "verdict": outcome.verdict.value,
                "reason": outcome.reason,
                "remark": outcome.remark,
                "seen": outcome.seen,
                "seconds": round(outcome.seconds, 1),
            }
            for outcome in report.outcomes
        ],
        "left": report.left,
        "notes": report.notes,
    }


def as_junit(report: Report) -> str:
    """A test case a row, and one for the clean-up, as the CI systems read them."""
    cases = [_case(outcome) for outcome in report.outcomes]
    clean = ElementTree.Element("testcase", classname=_TOOL, name="clean-up", time="0.0")
    if report.left or report.interrupted:
        message = report.left[0] if report.left else "interrupted"
        ElementTree.SubElement(clean, "failure", message=_printable(message)).text = _lines(report.left)
    cases.append(clean)
    suite = ElementTree.Element(
        "testsuite",
        name=_TOOL,
        tests=str(len(cases)),
        failures=str(sum(case.find("failure") is not None for case in cases)),
        errors="0",
        skipped=str(report.count(Verdict.NOT_RUN)),
        time=f"{report.seconds:.1f}",
    )
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in (("network", report.network), ("namespace", report.namespace)):
        ElementTree.SubElement(properties, "property", name=name, value=_printable(value))
    suite.extend(cases)
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True)


def _case(outcome: Outcome) -> ElementTree.Element:
    case = ElementTree.Element(
        "testcase", classname=_TOOL, name=f"{outcome.row} {outcome.event}", time=f"{outcome.seconds:.1f}"
    )
    if outcome.verdict is Verdict.FAILED:
        problem = ElementTree.SubElement(case, "failure", message=_printable(outcome.reason))
        problem.text = _lines((f"expected: {outcome.expected}", *(f"seen: {fact}" for fact in outcome.seen)))
    elif outcome.verdict is Verdict.NOT_RUN:
        ElementTree.SubElement(case, "skipped", message=_printable(outcome.reason))
    return case


def _lines(texts: Sequence[str]) -> str:
    return _printable("\n".join(texts))


def _printable(text: str) -> str:
    """XML 1.0 §2.2 has no place for most control characters."""
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)
