"""`homeport conformance`: the conformance matrix in the user's own cluster."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from homeport.cli import output, sources
from homeport.cli.sources import Kubeconfig
from homeport.model.errors import CniError, InvalidEnvironment

if TYPE_CHECKING:
    from homeport.conformance.matrix import Row
    from homeport.conformance.process import Run
    from homeport.conformance.reports import Report
    from homeport.conformance.worlds import Settings

_UNABLE = 2  # exit code: nothing could be said


class Form(Enum):
    """The values of `-o`."""

    TEXT = "text"
    JSON = "json"
    JUNIT = "junit"


class Kind(Enum):
    """The plugin that makes interfaces on `--master`."""

    MACVLAN = "macvlan"
    IPVLAN = "ipvlan"
    BRIDGE = "bridge"


def complete_rows(incomplete: str) -> list[str]:
    """The rows after the last comma."""
    from homeport.conformance.matrix import ROWS

    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{row.name}" for row in ROWS if row.name.startswith(last.upper())]


Network = Annotated[
    str, typer.Option(metavar="NAMESPACE/NAME", help="The network to test: rows run on narrower copies of it.")
]
Master = Annotated[str, typer.Option(metavar="INTERFACE", help="Test a network made on this interface of every node.")]
Ranges = Annotated[
    list[str] | None,
    typer.Option("--range", metavar="CIDR", help="Addresses for it that nobody else uses. Once more for IPv6."),
]
Rows = Annotated[
    str, typer.Option(metavar="E1,E2", autocompletion=complete_rows, help="Only these rows [default: all].")
]
Nodes = Annotated[str, typer.Option(metavar="A,B", help="Only on these nodes [default: any].")]
Image = Annotated[str, typer.Option(help="Of its pods: anything that runs until it is told to stop.")]
Timeout = Annotated[float, typer.Option(min=1.0, metavar="SECONDS", help="For each thing that is waited for.")]
Disruptive = Annotated[
    bool, typer.Option("--disruptive", help="Also rows that touch what is not their own: E22 kills the controller.")
]
Keep = Annotated[bool, typer.Option("--keep", help="Leave the namespace, and what failed in it, to be seen.")]
Clean = Annotated[
    str, typer.Option(metavar="NAMESPACE", help="Only remove what this earlier run left. It makes no new one.")
]


def conformance(
    network: Network = "",
    master: Master = "",
    kind: Annotated[Kind, typer.Option("--type", help="Of the network on --master.")] = Kind.MACVLAN,
    ranges: Ranges = None,
    rows: Rows = "",
    nodes: Nodes = "",
    image: Image = "registry.k8s.io/pause:3.10",
    timeout: Timeout = 120.0,
    replicas: Annotated[int, typer.Option(min=1, max=1000, help="Of row E24.")] = 20,
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="Of row E19.")] = 20,
    disruptive: Disruptive = False,
    keep: Keep = False,
    clean: Clean = "",
    every: Annotated[bool, typer.Option("--list", help="List the rows, and do nothing.")] = False,
    form: Annotated[Form, typer.Option("-o", "--output", help="Form of the report.")] = Form.TEXT,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Run the rows of the conformance matrix in a cluster, in a namespace of their own that is removed afterwards.

    Real StatefulSets are restarted, scaled, moved and deleted; what their pods have is read from their network status.
    Works whoever attaches the networks, and shows what holds there. Exits with 1 when a row failed or something could
    not be removed, with 2 when nothing could be run.

    Example: homeport conformance --network testnamespace/multustest

    Example: homeport conformance --master eth1 --range 10.9.0.0/24 --rows E1,E2,E7 -o junit
    """
    if every:
        _list()
        return
    if not clean and bool(network) == bool(master):
        raise typer.BadParameter("expected one of --network and --master")
    if master and not ranges:
        raise typer.BadParameter("expected --range with it", param_hint="--master")
    try:
        from homeport.conformance.matrix import chosen
        from homeport.conformance.process import Subject
        from homeport.conformance.worlds import Settings

        settings = Settings(
            image=image,
            nodes=tuple(name.strip() for name in nodes.split(",") if name.strip()),
            timeout_seconds=timeout,
            replicas=replicas,
            rounds=rounds,
            disruptive=disruptive,
        )
        subject = Subject(network=network, master=master, kind=kind.value, ranges=tuple(ranges or ()))
        wanted = chosen(rows.split(","))
        with _opened(settings, form, kubeconfig) as run:
            report = None if clean else run.run(subject, wanted, keep=keep)
            left = run.clean_old(clean) if report is None else report.left
    except CniError as error:
        typer.echo(f"homeport: {error}", err=True)
        raise typer.Exit(_UNABLE) from error
    green = _show(report, form) if report is not None else _tell_cleaned(clean, left)
    raise typer.Exit(0 if green else 1)


@contextmanager
def _opened(settings: Settings, form: Form, kubeconfig: Path | None) -> Iterator[Run]:
    """A run that stops at the first SIGINT or SIGTERM, and gives up cleaning at the second."""
    from homeport import wiring
    from homeport.conformance.process import Run, Watcher
    from homeport.conformance.reports import line_of
    from homeport.host.clocks import SystemClock

    # On a terminal, what is printed goes above the line that changes; anywhere else it must not follow that to stderr.
    where = sys.stderr if form is not Form.TEXT else None if sys.stdout.isatty() else sys.stdout
    stop, abandon = threading.Event(), threading.Event()
    with wiring.open_cluster_store(sources.usual_kubeconfig(kubeconfig)) as opened:
        if opened is None:
            raise InvalidEnvironment("find the cluster: found no kubeconfig, and this is no pod", "give --kubeconfig")
        with output.progress("looking at the cluster") as doing, _heeding(stop, abandon):
            watcher = Watcher(doing=doing, done=lambda outcome: typer.echo(line_of(outcome), file=where))
            yield Run(
                opened.kubernetes.objects,
                opened.store,
                settings,
                watcher,
                clock=SystemClock(),
                stop=stop,
                abandon=abandon,
            )


@contextmanager
def _heeding(*events: threading.Event) -> Iterator[None]:
    """The first signal sets the first event, the next one the next."""
    waiting = list(events)

    def note(_number: int, _frame: object) -> None:
        if waiting:
            waiting.pop(0).set()

    former = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _show(report: Report, form: Form) -> bool:
    """Prints what has not been printed yet; whether the report is green."""
    from homeport.conformance import reports

    match form:
        case Form.TEXT:
            typer.echo(reports.summary(report))
        case Form.JSON:
            typer.echo(output.json(reports.as_value(report)))
        case Form.JUNIT:
            typer.echo(reports.as_junit(report))
    return report.is_green


def _tell_cleaned(namespace: str, left: Sequence[str]) -> bool:
    for thing in left:
        typer.echo(f"left behind: {thing}")
    if not left:
        typer.echo(f"removed {namespace} and all that was of it")
    return not left


def _list() -> None:
    """Every row, and what it takes where it cannot be run."""
    from homeport.conformance.matrix import ROWS

    def how(row: Row) -> str:
        if row.run is None:
            return f"no: {row.why_not}"
        return "with --disruptive" if row.disruptive else "yes"

    typer.echo(output.table(["row", "event", "outcome", "run"], [[r.name, r.event, r.outcome, how(r)] for r in ROWS]))
