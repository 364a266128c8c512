"""What the lab's commands share: options, kubectl's names for objects, completion, the session and its progress."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from homeport.cli import output

if TYPE_CHECKING:
    from homeport.lab.manifests import Manifests
    from homeport.lab.objects import Network, PodObject, WorkloadObject
    from homeport.lab.sessions import Lab

DEFAULT = "lab"
LabName = Annotated[str, typer.Option("--lab", envvar="HOMEPORT_LAB", help="Name of the lab.")]
Namespace = Annotated[str | None, typer.Option("-n", "--namespace", help="Only this namespace [default: all].")]

# kubectl's singulars, plurals and short names.
_KINDS: Mapping[str, str] = {
    **dict.fromkeys(("pod", "pods", "po"), "pod"),
    **dict.fromkeys(("statefulset", "statefulsets", "sts", "statefulset.apps"), "StatefulSet"),
    **dict.fromkeys(("deployment", "deployments", "deploy", "deployment.apps"), "Deployment"),
    **dict.fromkeys(
        ("network", "networks", "net-attach-def", "nad", "networkattachmentdefinition.k8s.cni.cncf.io"), "network"
    ),
}


class Session:
    """An open lab, and what is to be told at its end."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self._troubles: list[tuple[str, str]] = []

    def converge(self) -> None:
        """Makes the lab as it is wanted, showing what it does on a terminal."""
        from homeport.lab import converging, views

        with output.progress("converging") as report:
            converging.converge(self.lab, report)
        self._troubles = views.troubles(self.lab.state)

    def exit(self) -> None:
        """Names what does not run, and then ends the command with 1."""
        for pod, why in self._troubles:
            typer.echo(f"{pod}: {why}", err=True)
        if self._troubles:
            raise typer.Exit(1)


@contextmanager
def session(name: str, *, create: bool = False) -> Iterator[Session]:
    """The lab, locked and entered; one whose keeper had died is brought back first."""
    from homeport.lab import places, sessions

    with sessions.opened(places.of_lab(name), create=create, on_wait=say_waiting) as lab:
        opened = Session(lab)
        if lab.recovered:
            typer.echo("the lab's keeper had died; bringing everything back", err=True)
            opened.converge()
        yield opened


def say_waiting() -> None:
    """Another command has the lab's lock."""
    typer.echo("waiting for another command on this lab", err=True)


# --- what was typed ----------------------------------------------------------------------------------------------


def read_manifests(files: Sequence[Path]) -> Manifests:
    """All files, before the command enters the lab's namespaces."""
    from homeport.lab import manifests
    from homeport.model.errors import IOFailure

    found = manifests.Manifests()
    for file in files:
        source = "standard input" if str(file) == "-" else str(file)
        try:
            text = sys.stdin.read() if str(file) == "-" else file.read_text()
        except (OSError, UnicodeDecodeError) as e:
            reason = (e.strerror or "").lower() if isinstance(e, OSError) else "not UTF-8 text"
            raise IOFailure(f'read "{source}": {reason}') from e
        found += manifests.parse(text, source)
    return found


def parse_substitutes(pairs: Sequence[str]) -> Mapping[str, str] | None:
    """`ipvlan=macvlan` as a mapping; None when nothing was given, which leaves the lab's own."""
    for pair in pairs:
        if pair.count("=") != 1 or pair.startswith("=") or pair.endswith("="):
            raise typer.BadParameter(
                f'found "{pair}", expected TYPE=TYPE such as ipvlan=macvlan', param_hint="--substitute"
            )
    return dict(pair.split("=") for pair in pairs) if pairs else None


def split_words(words: Sequence[str]) -> list[tuple[str, str]]:
    """(kind, name) pairs of `pod web-0 web-1` or `pod/web-0 statefulset/web`; the name is empty for a kind alone."""
    first, *rest = words
    pairs = [w.split("/", 1) for w in words] if "/" in first else [[first, name] for name in rest or [""]]
    found = []
    for pair in pairs:
        kind = _KINDS.get(pair[0].lower())
        if kind is None or len(pair) != 2:
            typed = "/".join(pair)
            raise typer.BadParameter(
                f'found "{typed}", expected TYPE NAME or TYPE/NAME, of pod, statefulset, deployment or network'
            )
        found.append((kind, pair[1]))
    return found


def find_objects(
    lab: Lab, words: Sequence[str], namespace: str | None, *, every: bool
) -> list[PodObject | WorkloadObject | Network]:
    """The objects that `words` name; with `every`, all of the one type they name."""
    from homeport.lab import actions, views
    from homeport.lab.objects import Network, WorkloadObject

    found: list[PodObject | WorkloadObject | Network] = []
    for kind, name in split_words(words):
        if every == bool(name):
            raise typer.BadParameter("give names, or a type and --all, and not both")
        if kind == "pod":
            found += [actions.find_pod(lab, name, namespace)] if name else views.pods_in_order(lab.state, namespace)
        elif kind == "network":
            some = [n for n in lab.state.all(Network) if namespace in (None, n.namespace)]
            found += [actions.find_network(lab, name, namespace)] if name else some
        else:
            of_kind = [w for w in lab.state.all(WorkloadObject) if w.spec.workload.kind == kind]
            wanted = [w for w in of_kind if namespace in (None, w.spec.workload.namespace)]
            found += [actions.find_workload(lab, kind, name, namespace)] if name else wanted
    return found


def find_workloads(lab: Lab, words: Sequence[str], namespace: str | None) -> list[WorkloadObject]:
    """The StatefulSets and Deployments that `words` name."""
    from homeport.lab.objects import WorkloadObject

    found = find_objects(lab, words, namespace, every=False)
    workloads = [o for o in found if isinstance(o, WorkloadObject)]
    if len(workloads) < len(found):
        raise typer.BadParameter(f'found "{" ".join(words)}", expected a statefulset or a deployment')
    return workloads


def written(obj: PodObject | WorkloadObject | Network) -> str:
    """As kubectl writes it: `statefulset.apps/web`."""
    from homeport.lab.objects import Network, PodObject

    if isinstance(obj, PodObject):
        return f"pod/{obj.ref.name}"
    if isinstance(obj, Network):
        return f"networkattachmentdefinition.k8s.cni.cncf.io/{obj.name}"
    return f"{obj.spec.workload.kind.lower()}.apps/{obj.spec.workload.name}"


# --- completion: reads what is on disk, waits for nobody, and is silent when there is nothing ----------------------


def complete_pod(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of pods."""
    return [n for n in _names(ctx)["pod"] if n.startswith(incomplete)]


def complete_node(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of nodes."""
    return [n for n in _names(ctx)["node"] if n.startswith(incomplete)]


def complete_workload(ctx: typer.Context, incomplete: str) -> list[str]:
    """TYPE/NAME of workloads."""
    names = _names(ctx)
    written = [f"{kind.lower()}/{n}" for kind in ("StatefulSet", "Deployment") for n in names[kind]]
    return [w for w in written if w.startswith(incomplete)]


def complete_object(ctx: typer.Context, incomplete: str) -> list[str]:
    """A type, then names of that type; or TYPE/NAME."""
    names = _names(ctx)
    kinds = {"pod": "pod", "statefulset": "StatefulSet", "deployment": "Deployment", "network": "network"}
    words = ctx.params.get("words") or []
    if words and (kind := _KINDS.get(words[0])):
        found = names[kind]
    elif "/" in incomplete:
        found = [f"{typed}/{n}" for typed, kind in kinds.items() for n in names[kind]]
    else:
        found = list(kinds)
    return [f for f in found if f.startswith(incomplete)]


def _names(ctx: typer.Context) -> Mapping[str, list[str]]:
    from homeport.lab import places, sessions
    from homeport.lab.objects import Network, NodeObject, PodObject, WorkloadObject
    from homeport.lab.storing import State
    from homeport.model.errors import CniError

    names: dict[str, list[str]] = {k: [] for k in ("pod", "node", "network", "StatefulSet", "Deployment")}
    try:
        where = places.of_lab(str(ctx.params.get("lab") or DEFAULT))
        if not sessions.exists(where):
            return names
        state = State(where.state)
        names["pod"] = [p.ref.name for p in state.all(PodObject)]
        names["node"] = [n.name for n in state.all(NodeObject)]
        names["network"] = [n.name for n in state.all(Network)]
        for workload in state.all(WorkloadObject):
            names[workload.spec.workload.kind].append(workload.spec.workload.name)
        state.close()
    except CniError:
        return names
    return names
