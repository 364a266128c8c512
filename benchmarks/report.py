"""What was measured, as a table for a person, as JSON, and as the page docs/benchmarks.md."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from benchmarks.cluster import ClusterReport
from benchmarks.measuring import Figure, Spread
from benchmarks.node import NodeReport
from benchmarks.profiling import Hot, Share
from benchmarks.starting import Memory

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
_BLOCK = r"(?<=<!-- {} -->\n).*?(?=<!-- end -->)"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run. Times are milliseconds, ratios are taken round by round."""

    machine: str
    figures: list[Figure]
    memory: list[Memory]
    shares: list[Share]
    hottest: list[Hot]
    imports: list[tuple[str, float]]
    node: NodeReport | None = None
    cluster: ClusterReport | None = None
    shim_peak_kib: Mapping[str, int] = {}
    missing: list[str] = []


def machine() -> str:
    """What the figures depend on, in a line."""
    info = Path("/proc/cpuinfo").read_text()
    found = re.search(r"model name\s*: (.*)", info)
    model = found.group(1) if found else platform.machine()
    cpus = info.count("processor\t")
    return f"{cpus} CPUs ({model}), Linux {platform.release()}, Python {platform.python_version()}"


Table = tuple[str, list[str], list[list[str]]]


def tables(report: Report) -> list[Table]:
    """(title, headers, rows) in order of interest; empty ones are left out."""
    found = [
        *(_of_node(report.node) if report.node else []),
        *(of_cluster(report.cluster) if report.cluster else []),
        _times("Time", report.figures),
        (
            "Memory of the shim while it waits",
            ["who", "KiB"],
            [[who, str(peak)] for who, peak in report.shim_peak_kib.items()],
        ),
        (
            "Memory of an ADD: the largest process at its peak",
            ["who", "MiB", "processes an ADD"],
            [[m.who, f"{m.peak_mib:.1f}", str(m.processes)] for m in report.memory],
        ),
        _shares("Where an in-process ADD's time goes", report.shares),
        _hottest("Hottest functions of an in-process ADD, under the profiler", report.hottest),
        (
            "Slowest imports of an executable's ADD, each with what it imports",
            ["module", "ms"],
            [[module, f"{ms:.1f}"] for module, ms in report.imports],
        ),
    ]
    return [table for table in found if table[2]]


def _of_node(node: NodeReport) -> list[Table]:
    return [
        _times("A pod on a node", node.figures),
        (
            "A pod on a node: the 95th percentile",
            ["what", "who", "ms"],
            [[what, who, _ms(ms)] for what, by in node.p95.items() for who, ms in by.items()],
        ),
        (
            "Many pods on a node",
            ["what", "who", "pods/s", "slowest ms"],
            [[b.what, b.who, f"{b.pods_a_second:.0f}", f"{b.slowest_ms:.0f}"] for b in node.bursts],
        ),
        (
            "Requests of an ADD to the API server, events included",
            ["request", "an ADD"],
            [[what, f"{count:.2f}"] for what, count in node.requests.items()],
        ),
        (
            "Memory with many pods at once: the daemon and every process started, shims included",
            ["who", "sum of resident sets, MiB", "anonymous, MiB", "processes"],
            [[m.who, f"{m.sum_mib:.0f}", f"{m.anonymous_mib:.0f}", str(m.processes)] for m in node.memory],
        ),
        _shares("Where the time of the daemon's ADD goes", node.shares),
        _hottest("Hottest functions of the daemon's ADD, under the profiler", node.hottest),
    ]


def of_cluster(cluster: ClusterReport) -> list[Table]:
    """Of `benchmarks.cluster`."""
    return [
        _times("An address of the cluster", cluster.figures),
        (
            "An address of the cluster: the 95th percentile",
            ["what", "who", "ms"],
            [[what, who, _ms(ms)] for what, by in cluster.p95.items() for who, ms in by.items()],
        ),
        (
            "Many addresses from ten nodes at once",
            ["who", "asked", "got", "failures", "addresses/s", "slowest ms"],
            [
                [c.who, str(c.asked), str(c.got), str(c.failures), f"{c.addresses_a_second:.0f}", f"{c.slowest_ms:.0f}"]
                for c in cluster.crowds
            ],
        ),
        (
            "Requests of an IPAM ADD to the API server",
            ["who", "request", "times"],
            [[who, what, f"{count:.2f}"] for who, by in cluster.requests.items() for what, count in by.items()],
        ),
    ]


def _times(title: str, found: Sequence[Figure]) -> Table:
    rows = [
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
        for f in found
    ]
    return title, ["what", "who", "median ms", "min..max", "ratio", "min..max", "against", "rounds"], rows


def _shares(title: str, shares: Sequence[Share]) -> Table:
    return title, ["where", "share"], [[s.where, f"{s.share:.0%}"] for s in shares if s.share >= 0.005]


def _hottest(title: str, hottest: Sequence[Hot]) -> Table:
    rows = [[h.function, f"{h.own_ms:.3f}", f"{h.whole_ms:.3f}", f"{h.calls:g}"] for h in hottest]
    return title, ["function", "own ms", "with callees", "calls"], rows


def text(report: Report) -> str:
    """For a terminal."""
    from homeport.cli import output

    parts = [f"{title}\n{output.table(headers, rows)}" for title, headers, rows in tables(report)]
    return "\n\n".join([report.machine, *parts, *(f"not measured: {reason}" for reason in missing(report))])


def missing(report: Report) -> list[str]:
    """What could not be measured, and why."""
    return [*report.missing, *(report.cluster.missing if report.cluster else [])]


def write_page(report: Report) -> None:
    """Puts the tables between the page's marks and leaves its words alone."""
    alone = msgspec.structs.replace(report, cluster=None)
    write_tables("measured", report.machine, tables(alone), report.missing)
    if report.cluster is not None:
        write_cluster(report.machine, report.cluster)


def write_cluster(machine: str, cluster: ClusterReport) -> None:
    """The same with what `benchmarks.cluster` measured alone."""
    write_tables("measured cluster", machine, of_cluster(cluster), cluster.missing)


def write_tables(mark: str, machine: str, found: Sequence[Table], missing: Sequence[str] = ()) -> None:
    """Puts tables into the page, between its mark `mark` and the end mark after that."""
    parts = [f"Measured on {machine}.\n"]
    for title, headers, rows in found:
        lines = [headers, ["---"] * len(headers), *rows]
        parts.append(f"### {title}\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n")
    parts += [f"Not measured: {reason}.\n" for reason in missing]
    block = re.compile(_BLOCK.format(mark), re.DOTALL)
    PAGE.write_text(block.sub(lambda _: "\n".join(parts), PAGE.read_text()))


def _ms(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _range(spread: Spread | None) -> str:
    return f"{spread.min:.2f}..{spread.max:.2f}" if spread else "-"
