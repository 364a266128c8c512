"""`homeport lab demo`: the guide's StatefulSet loses everything it can lose, and keeps its addresses.

It runs the very commands it shows, in a lab of its own that is gone afterwards, and believes only what they print.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from types import FrameType
from typing import NoReturn

import msgspec
import typer

from homeport.cli import lab_names, output

FILES = ("nad.yaml", "statefulset.yaml", "deployment.yaml")
_EXPECTED = {"web-0": "10.93.97.12", "web-1": "10.93.97.13", "web-2": "10.93.97.14"}


class Place(msgspec.Struct, frozen=True):
    """Where a replica is, and its address there."""

    node: str
    address: str


class _Scene(msgspec.Struct, frozen=True):
    """What is done to the replicas; `pods` is how many there are after it."""

    title: str
    commands: Sequence[Sequence[str]]
    pods: int


class _Ran(msgspec.Struct, frozen=True):
    exit_code: int
    stdout: str


def demo() -> None:
    """Show replicas that lose everything but their addresses.

    Their pods, a node, and their place to another workload, in a lab of its own. Exit code 0 says that every address
    was the same every time, and that all replicas reached each other.
    """
    typer.echo("A StatefulSet on a secondary network, on this machine, in network namespaces of its own.")
    with _lab_of_its_own():
        substitute = [] if _kernel_has_ipvlan() else ["--substitute", "ipvlan=macvlan"]
        if substitute:
            typer.echo("This kernel has no ipvlan, so macvlan stands for it; all else is as the manifests say.")
        kept = _play(substitute)
    typer.echo(f"\nsame addresses: {'yes' if kept else 'NO'}")
    if not kept:
        raise typer.Exit(1)


def _play(substitute: list[str]) -> bool:
    """Every scene, also after one that went wrong; whether all went well."""
    _say("Three replicas start on two nodes")
    good = [_show("up", "-f", "nad.yaml", "-f", "statefulset.yaml", "--nodes", "2", *substitute), _show("get")]
    first = _places()
    good += [_claim("in replica order", {r: p.address for r, p in first.items()} == _EXPECTED), _show_ping(3)]
    for scene in _scenes(first):
        before = _places()
        _say(scene.title)
        good += [_show(*command) for command in scene.commands]
        good += [compare(before or first, _places(), first), _show_ping(scene.pods)]
    return all(good)


def _scenes(first: Mapping[str, Place]) -> Iterator[_Scene]:
    yield _Scene("All pods are deleted at once", [["delete", "pod", "--all"]], 3)
    node = first["web-0"].node if "web-0" in first else "node-1"
    yield _Scene("A node loses its power", [["node", "kill", node]], 3)
    yield _Scene(
        "Scaled to nothing; another workload takes addresses; the set comes back",
        [
            ["scale", "statefulset/web", "--replicas", "0"],
            ["up", "-f", "deployment.yaml"],
            ["get"],
            ["scale", "statefulset/web", "--replicas", "3"],
        ],
        5,
    )


def compare(before: Mapping[str, Place], after: Mapping[str, Place], first: Mapping[str, Place]) -> bool:
    """Prints the replicas before and after; whether each has the address it had at first."""
    nowhere = Place("", "")
    rows = []
    for name in _EXPECTED:
        was, now = before.get(name, nowhere), after.get(name, nowhere)
        same = now.address != "" and now.address == first.get(name, nowhere).address
        rows.append((name, was.node, was.address, now.node, now.address, "yes" if same else "NO"))
    headers = ("replica", "node before", "address before", "node after", "address after", "same")
    typer.echo("\n" + output.table(headers, rows))
    return _claim("same addresses", all(row[-1] == "yes" for row in rows))


def _places() -> dict[str, Place]:
    """The running replicas of `web`, as `lab get` tells."""
    listed = json.loads(_run("get", "-o", "json").stdout or "[]")
    return {
        one["replica"]: Place(one["node"], ",".join(one["addresses"]))
        for one in listed
        if one["replica"] in _EXPECTED and one["phase"] == "Running"
    }


def _show_ping(pods: int) -> bool:
    """Whether each of that many pods reached each other one."""
    pairs = pods * (pods - 1)
    reached = _show("ping", says=f"{pairs} of {pairs} reached")
    return _claim("they ping each other", reached)


def _say(title: str) -> None:
    typer.echo(f"\n# {title}")


def _claim(what: str, holds: bool) -> bool:
    typer.echo(f"{what}: {'yes' if holds else 'NO'}")
    return holds


def _show(*words: str, says: str = "") -> bool:
    """The command, then what it printed; whether it succeeded and said `says`."""
    typer.echo(f"\n$ homeport lab {' '.join(words)}")
    ran = _run(*words)
    typer.echo(ran.stdout, nl=False)
    return ran.exit_code == 0 and says in ran.stdout


def _run(*words: str) -> _Ran:
    """One command in a process of its own, as a shell would start it; its errors go to our stderr."""
    return _fork(lambda: _command(words))


def _command(words: Sequence[str]) -> int:
    from homeport.cli.main import main

    sys.argv = ["homeport", "lab", *words]
    main()
    return 0


def _kernel_has_ipvlan() -> bool:
    """Asked inside the lab's namespaces: an ordinary user may make links nowhere else."""
    return _fork(_ask_for_ipvlan).exit_code == 0


def _ask_for_ipvlan() -> int:
    with lab_names.session(os.environ["HOMEPORT_LAB"], create=True) as session:
        return 0 if session.lab.host.supports_kind("ipvlan") else 1


def _fork(work: Callable[[], int]) -> _Ran:
    """`work` in a child, whose exit code it gives."""
    sys.stdout.flush()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reader)
            os.dup2(writer, 1)
            code = work()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        finally:
            sys.stdout.flush()
            os._exit(code)
    os.close(writer)
    try:
        with os.fdopen(reader, "rb") as pipe:
            stdout = pipe.read().decode()
    finally:
        _, status = os.waitpid(child, 0)
    return _Ran(os.waitstatus_to_exitcode(status), stdout)


@contextmanager
def _lab_of_its_own() -> Iterator[None]:
    """An empty directory with the manifests, and the environment that leads commands to a lab there; all gone after.

    Also gone after Ctrl-C or SIGTERM.
    """
    directory = Path(tempfile.mkdtemp(prefix="homeport-demo-"))
    before = Path.cwd()
    terminated = signal.signal(signal.SIGTERM, _end)
    os.environ["HOMEPORT_LAB_DIR"], os.environ["HOMEPORT_LAB"] = str(directory), "demo"
    try:
        for name in FILES:
            (directory / name).write_text((resources.files("homeport.lab") / "guide" / name).read_text())
        os.chdir(directory)
        yield
    finally:
        interrupted = signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave half of it
        _run("down")
        os.chdir(before)
        shutil.rmtree(directory)
        signal.signal(signal.SIGINT, interrupted)
        signal.signal(signal.SIGTERM, terminated)


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(143)
