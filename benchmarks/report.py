"""What was measured, as a table for a person, as JSON, and as the page docs/benchmarks.md."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import msgspec
from benchmarks.measuring import Figure, Spread
from benchmarks.profiling import Hot, Share
from benchmarks.starting import Memory

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
_BLOCK = re.compile(r"(?<=<!-- measured -->\n).*(?=<!-- end -->)", re.DOTALL)


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run. Times are milliseconds, ratios are taken round by round."""

    machine: str
    figures: list[Figure]
    memory: list[Memory]
    shares: list[Share]
    hottest: list[Hot]
    imports: list[tuple[str, float]]
    missing: list[str] = []


def machine() -> str:
    """What the figures depend on, in a line."""
    info = Path("/proc/cpuinfo").read_text()
    found = re.search(r"model name\s*: (.*)", info)
    model = found.group(1) if found else platform.machine()
    cpus = info.count("processor\t")
    return f"{cpus} CPUs ({model}), Linux {platform.release()}, Python {platform.python_version()}"


def tables(report: Report) -> list[tuple[str, list[str], list[list[str]]]]:
    """(title, headers, rows) in order of interest; empty ones are left out."""
    found = [
        (
            "Time",
            ["what", "who", "median ms", "min..max", "ratio", "min..max", "against", "rounds"],
            [
                [
                    f.what,
                    f.who,
                    _ms(f.ms.median),
                    f"{_ms(f.ms.min)}..{_ms(f.ms.max)}",
                    f"{f.ratio.median:.2f}" if f.ratio else "-",
                    _range(f.ratio),
                    f.alternative or "-",
                    str(f.rounds),
                ]
                for f in report.figures
            ],
        ),
        (
            "Memory of an ADD: the largest process at its peak",
            ["who", "MiB", "processes an ADD"],
            [[m.who, f"{m.peak_mib:.1f}", str(m.processes)] for m in report.memory],
        ),
        (
            "Where an in-process ADD's time goes",
            ["where", "share"],
            [[s.where, f"{s.share:.0%}"] for s in report.shares if s.share >= 0.005],
        ),
        (
            "Hottest functions of an in-process ADD, under the profiler",
            ["function", "own ms", "with callees", "calls"],
            [[h.function, f"{h.own_ms:.3f}", f"{h.whole_ms:.3f}", f"{h.calls:g}"] for h in report.hottest],
        ),
        (
            "Slowest imports of an executable's ADD, each with what it imports",
            ["module", "ms"],
            [[module, f"{ms:.1f}"] for module, ms in report.imports],
        ),
    ]
    return [table for table in found if table[2]]


def text(report: Report) -> str:
    """For a terminal."""
    from homeport.cli import output

    parts = [f"{title}\n{output.table(headers, rows)}" for title, headers, rows in tables(report)]
    return "\n\n".join([report.machine, *parts, *(f"not measured: {reason}" for reason in report.missing)])


def write_page(report: Report) -> None:
    """Puts the tables between the page's two marks and leaves its words alone."""
    parts = [f"Measured on {report.machine}.\n"]
    for title, headers, rows in tables(report):
        lines = [headers, ["---"] * len(headers), *rows]
        parts.append(f"### {title}\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n")
    parts += [f"Not measured: {reason}.\n" for reason in report.missing]
    page = PAGE.read_text()
    PAGE.write_text(_BLOCK.sub(lambda _: "\n".join(parts), page))


def _ms(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _range(spread: Spread | None) -> str:
    return f"{spread.min:.2f}..{spread.max:.2f}" if spread else "-"
