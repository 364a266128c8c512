"""`homeport lab`: a cluster's StatefulSets and secondary networks on this machine.

The commands that change something: each says what is wanted, converges, and tells what does not run. What only shows is
in `lab_views`.
"""

from __future__ import annotations

from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from homeport.cli import lab_names, lab_views
from homeport.cli.demo import demo
from homeport.cli.lab_names import LabName, Namespace

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Run StatefulSets with secondary networks on this machine, in network namespaces of their own.",
)
rollout_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Replace the pods of a workload.")
node_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Take nodes away and bring them back.")
app.add_typer(rollout_app, name="rollout")
app.add_typer(node_app, name="node")


class Cascade(Enum):
    """What happens to the pods of a deleted workload."""

    BACKGROUND = "background"
    ORPHAN = "orphan"


WorkloadWords = Annotated[
    list[str],
    typer.Argument(metavar="TYPE/NAME", autocompletion=lab_names.complete_workload, help="such as statefulset/web"),
]
NodeName = Annotated[str, typer.Argument(autocompletion=lab_names.complete_node, metavar="NAME")]


@app.command()
def up(
    file: Annotated[
        list[Path], typer.Option("-f", "--filename", help="Manifest to read; - is standard input. May be repeated.")
    ] = [],  # noqa: B006 -- typer reads the default, nobody changes it
    nodes: Annotated[int | None, typer.Option(min=1, max=100, help="Number of nodes [default: 3].")] = None,
    substitute: Annotated[
        list[str], typer.Option(metavar="TYPE=TYPE", help="Let one plugin stand for another, such as ipvlan=macvlan.")
    ] = [],  # noqa: B006
    lab: LabName = lab_names.DEFAULT,
) -> None:
    """Start the lab, or bring it to what manifests say. A second time changes nothing.

    Example: homeport lab up -f nad.yaml -f statefulset.yaml --nodes 3
    """
    from homeport.lab import actions

    manifests = lab_names.read_manifests(file)
    substitutes = lab_names.parse_substitutes(substitute)
    with lab_names.session(lab, create=True) as session:
        for applied in actions.apply(session.lab, manifests, nodes=nodes, substitutes=substitutes):
            typer.echo(f"{applied.name} {applied.change}")
        for skipped in manifests.skipped:
            typer.echo(f"{skipped.kind.lower()}/{skipped.name} skipped: the lab has no use for it ({skipped.where})")
        session.converge()
    session.exit()


app.command("get")(lab_views.get)
app.command("ping")(lab_views.ping)
app.command("exec", context_settings={"ignore_unknown_options": True})(lab_views.exec_)
app.command("events")(lab_views.events)


@app.command()
def delete(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="TYPE NAME... | TYPE/NAME...",
            autocompletion=lab_names.complete_object,
            help="pod, statefulset, deployment or network, and names.",
        ),
    ],
    all_: Annotated[bool, typer.Option("--all", help="Every object of the type.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Forget pods at once; their DEL comes later.")] = False,
    cascade: Annotated[Cascade, typer.Option(help="orphan: leave the pods of a workload.")] = Cascade.BACKGROUND,
    namespace: Namespace = None,
    lab: LabName = lab_names.DEFAULT,
) -> None:
    """Delete pods, workloads or networks. A workload's pods come back, with their addresses.

    Example: homeport lab delete pod --all
    """
    from homeport.lab import actions
    from homeport.lab.objects import Network, PodObject

    with lab_names.session(lab) as session:
        found = lab_names.find_objects(session.lab, words, namespace, every=all_)
        pods = [o for o in found if isinstance(o, PodObject)]
        actions.delete_pods(session.lab, pods, force=force)
        for obj in found:
            if isinstance(obj, Network):
                actions.delete_network(session.lab, obj)
            elif not isinstance(obj, PodObject):
                actions.delete_workload(session.lab, obj, cascade.value)
            typer.echo(f"{lab_names.written(obj)} {'force ' if force and obj in pods else ''}deleted")
        if not found:
            typer.echo("no resources found", err=True)
        session.converge()
    session.exit()


@app.command()
def scale(
    words: Annotated[
        list[str],
        typer.Argument(metavar="TYPE/NAME", autocompletion=lab_names.complete_workload, help="statefulset/web"),
    ],
    replicas: Annotated[int, typer.Option(min=0, max=10_000, help="How many are wanted.")],
    namespace: Namespace = None,
    lab: LabName = lab_names.DEFAULT,
) -> None:
    """Set the number of replicas.

    Example: homeport lab scale statefulset/web --replicas 0
    """
    from homeport.lab import actions

    with lab_names.session(lab) as session:
        for workload in lab_names.find_workloads(session.lab, words, namespace):
            actions.scale(session.lab, workload, replicas)
            typer.echo(f"{lab_names.written(workload)} scaled")
        session.converge()
    session.exit()


@rollout_app.command("restart")
def rollout_restart(
    words: Annotated[
        list[str],
        typer.Argument(metavar="TYPE/NAME", autocompletion=lab_names.complete_workload, help="statefulset/web"),
    ],
    namespace: Namespace = None,
    lab: LabName = lab_names.DEFAULT,
) -> None:
    """Replace every pod, one at a time, the highest ordinal first.

    Example: homeport lab rollout restart statefulset/web
    """
    from homeport.lab import actions

    with lab_names.session(lab) as session:
        for workload in lab_names.find_workloads(session.lab, words, namespace):
            actions.restart(session.lab, workload)
            typer.echo(f"{lab_names.written(workload)} restarted")
        session.converge()
    session.exit()


@node_app.command("kill")
def node_kill(name: NodeName, lab: LabName = lab_names.DEFAULT) -> None:
    """Take a node's power. No DEL is sent, and its pods start elsewhere."""
    from homeport.lab import actions

    with lab_names.session(lab) as session:
        actions.kill(session.lab, actions.find_node(session.lab, name))
        typer.echo(f"node/{name} killed")
        session.converge()
    session.exit()


@node_app.command("partition")
def node_partition(
    name: NodeName,
    answering: Annotated[
        bool, typer.Option("--answering", help="Its pods still answer on their networks; only controllers lost it.")
    ] = False,
    lab: LabName = lab_names.DEFAULT,
) -> None:
    """Pull a node's cables. Its pods run on, reach nobody, and are not replaced until they are deleted by force."""
    from homeport.lab import actions

    with lab_names.session(lab) as session:
        actions.partition(session.lab, actions.find_node(session.lab, name), answering=answering)
        typer.echo(f"node/{name} partitioned")
        session.converge()


@node_app.command("heal")
def node_heal(name: NodeName, lab: LabName = lab_names.DEFAULT) -> None:
    """Bring a partitioned or killed node back."""
    from homeport.lab import actions

    with lab_names.session(lab) as session:
        actions.heal(session.lab, actions.find_node(session.lab, name))
        typer.echo(f"node/{name} healed")
        session.converge()
    session.exit()


@node_app.command("cordon")
def node_cordon(name: NodeName, lab: LabName = lab_names.DEFAULT) -> None:
    """Let no new pod come to a node."""
    _set_cordoned(name, lab, cordoned=True)


@node_app.command("uncordon")
def node_uncordon(name: NodeName, lab: LabName = lab_names.DEFAULT) -> None:
    """Let pods come to a node again."""
    _set_cordoned(name, lab, cordoned=False)


def _set_cordoned(name: str, lab: str, *, cordoned: bool) -> None:
    from homeport.lab import actions

    with lab_names.session(lab) as session:
        actions.cordon(session.lab, actions.find_node(session.lab, name), cordoned=cordoned)
        typer.echo(f"node/{name} {'cordoned' if cordoned else 'uncordoned'}")
        session.converge()
    session.exit()


@node_app.command("drain")
def node_drain(name: NodeName, lab: LabName = lab_names.DEFAULT) -> None:
    """Move a node's pods to other nodes, gracefully, and cordon it."""
    from homeport.lab import actions

    with lab_names.session(lab) as session:
        for pod in actions.drain(session.lab, actions.find_node(session.lab, name)):
            typer.echo(f"pod/{pod.ref.name} evicted")
        typer.echo(f"node/{name} drained")
        session.converge()
    session.exit()


@app.command()
def advance(
    span: Annotated[str, typer.Argument(metavar="TIME", help="such as 72h, 30m or 45s")],
    lab: LabName = lab_names.DEFAULT,
) -> None:
    """Put the lab's clock forward. Addresses kept with retainFor then come to their end.

    Example: homeport lab advance 72h
    """
    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
    if not span[:-1].isdecimal() or span[-1:] not in units:
        raise typer.BadParameter(f'found "{span}", expected a number with s, m, h or d, such as 72h')
    with lab_names.session(lab) as session:
        session.lab.advance(timedelta(**{units[span[-1]]: int(span[:-1])}))
        typer.echo(f"clock advanced by {span}")
        session.converge()
    session.exit()


@app.command()
def down(lab: LabName = lab_names.DEFAULT) -> None:
    """Remove the lab and all that is in it."""
    from homeport.lab import places, sessions

    existed = sessions.remove(places.of_lab(lab), lab_names.say_waiting)
    typer.echo(f"lab/{lab} deleted" if existed else f"lab/{lab} is not there; nothing to delete")


app.command("demo")(demo)
