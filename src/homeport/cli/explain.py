"""`homeport explain`: why a pod has its addresses, or waits for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from homeport.cli import output, sources
from homeport.cli.ips import Filter, listed, view_of
from homeport.cli.output import Format
from homeport.cli.sources import Kubeconfig, LabName, Place, Said, Source, StorePath
from homeport.cli.who import described
from homeport.model.errors import NoSuchObject, Unsupported
from homeport.model.names import PodRef

if TYPE_CHECKING:
    from homeport.ipam.foreseeing import Foreseen
    from homeport.runtime.explaining import HolderStory, InterfaceStory, RangeStory, Story

_WIDTH = 11  # of a fact's name
_DEFAULT = "default"
_LAST = 5  # events that are shown


def explain(
    pod: Annotated[
        str, typer.Argument(metavar="POD", autocompletion=sources.complete_pod, help="web-0, or testnamespace/web-0")
    ],
    namespace: Annotated[str, typer.Option("-n", "--namespace", help="The pod's namespace.")] = _DEFAULT,
    network: Annotated[
        str | None, typer.Option(help="Only this network.", autocompletion=sources.complete_network)
    ] = None,
    form: Annotated[Format, typer.Option("-o", "--output", help="Form of the output.")] = Format.TABLE,
    store: StorePath = None,
    lab: LabName = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Tell why a pod has its addresses, what its next ADD would do, and what it waits for.

    Works for a replica that is not there yet, too. Changes nothing.

    Example: homeport explain web-0 -n testnamespace

    Example: homeport explain testnamespace/web-0 --network multustest
    """
    from homeport.runtime import explaining

    space, slash, name = pod.rpartition("/")
    ref = PodRef(space if slash else namespace, name)
    with sources.opened(Place(store, lab, kubeconfig)) as source:
        if source.cluster is None or source.find is None:
            raise _pods_unknown(source, ref)
        try:
            story = explaining.explain(ref, source.store, source.cluster, source.find, source.find_claim)
        except NoSuchObject as error:
            if ref.namespace == _DEFAULT:
                error.details = "if it is in another namespace: -n NAMESPACE"
            raise
        by_reason = {event.reason: event for event in source.events(ref)}  # the last of each
        now, said = source.now(), sorted(by_reason.values(), key=lambda event: event.at)[-_LAST:]
    shown = [i for i in story.interfaces if network in (None, i.slot.network, i.interface.definition)]
    if form in (Format.JSON, Format.YAML):
        typer.echo((output.json if form is Format.JSON else output.yaml)(_value(story, shown, said, now)))
        return
    for line in _head(story):
        typer.echo(line)
    for event in said:
        typer.echo(f"{output.age(event.at, now)} ago, {event.reason}: {event.message}")
    if not shown and not story.error:
        typer.echo(f"it selects no network{f' {network}' if network else ''}")
    for interface in shown:
        typer.echo(f"\n{interface.slot.ifname} on {interface.slot.network} ({interface.interface.definition})")
        for name, text in _facts(interface, now):
            typer.echo(f"  {name:<{_WIDTH}}{text}")


def _pods_unknown(source: Source, ref: PodRef) -> Unsupported:
    has = listed(source, Filter(pod=ref.name, namespace=ref.namespace))
    found = "; ".join(f"{a.address} is {described(a)}" for a in has) or "it has no address there"
    return Unsupported(f"explain {ref} from {source.name}: a file of allocations knows no pods and no networks", found)


def _head(story: Story) -> Iterator[str]:
    pod, state = story.pod, story.state
    if pod is None:
        yield f"pod {story.ref}: there is none now"
    else:
        where = f" on {pod.node}" if pod.node else ", on no node yet"
        yield f"pod {story.ref}: {pod.phase}{where}, UID {pod.uid}{', being deleted' if pod.deleting else ''}"
    if state is not None:
        wanted = f"{state.replicas} replicas from ordinal {state.ordinals_start}"
        yield f"{state.workload.kind} {state.workload.name}: {wanted}, UID {state.uid}"
    if story.error:
        yield f"cannot start: {story.error}"


def _facts(told: InterfaceStory, now: datetime) -> Iterator[tuple[str, str]]:
    """(name, text) of one interface, in the order of the decision."""
    from homeport.ipam.identities import Replica

    owner = told.slot.owner
    yield "replica", f"yes: {owner}" if isinstance(owner, Replica) else f"no: {told.why_not}"
    for address in told.interface.fixed:
        yield "fixed", f"{address}, given in full"
    pool = told.interface.pool
    if pool is not None and isinstance(owner, Replica) and pool.policy is not None:
        yield "policy", f"order {pool.policy.order}"
        yield "map", told.map_source or "none"
    if told.interface.claimed is not None:
        yield "claim", f'IPAMClaim "{told.interface.claimed.claim}"'
    for story in told.ranges:
        yield from _range_facts(story, now)
    if told.retention:
        kept, *others = [f"{key} {value} ({source})" for key, value, source in told.retention]
        yield "retention", kept
        yield from (("", text) for text in others)
    if told.error:
        yield "next ADD", f"fails: {told.error}"


def _range_facts(story: RangeStory, now: datetime) -> Iterator[tuple[str, str]]:
    from homeport.cli.who import sentence
    from homeport.ipam.moving import Move
    from homeport.ipam.planning import numbered

    want, scope = story.want, story.want.scope
    withheld = f", not {', '.join(map(str, want.range.withheld))}" if want.range.withheld else ""
    yield "range", f"{want.range.span} of {want.range.subnet}, {want.range.usable} usable{withheld}"
    if want.mapped is not None:
        yield "mapped", f"{want.mapped}: this one or none"
    elif want.preferred is not None:
        yield "number", f"{numbered(want)} is {want.preferred}"
    for address, allocation in story.present.items():
        if allocation is None or allocation != story.held:
            yield "there now", sentence(address, scope, allocation, now)
    if story.held is not None:
        yield "has", sentence(story.held.address, scope, story.held, now)
    if story.holder is not None:
        first, *others = _holder_facts(story.holder)
        yield "holder", first
        yield from (("", text) for text in others)
    yield "next ADD", _outcome(story)
    if story.holder is not None and story.held is not None and not isinstance(story.holder.outcome, Move):
        yield "", f"if {story.holder.holder.node} is off for certain: homeport release {story.held.address} --force"


def _holder_facts(story: HolderStory) -> Iterator[str]:
    """The two steps of proof (R8)."""
    holder, pod, node = story.holder, story.pod, story.node
    yield f"container {holder.container_id[:13]} of pod UID {holder.pod_uid or 'unknown'} on {holder.node}"
    if pod is None:
        yield "its pod: gone, the cluster has none of that name"
    elif pod.uid != holder.pod_uid:
        yield f"its pod: gone, the cluster has UID {pod.uid} under that name"
    else:
        yield "its pod: this very one" + (", which ran to its end" if pod.finished else "")
    if node is None:
        yield f"its node: gone, the cluster has no {holder.node}"
    else:
        ready = "Ready" if node.ready else "NotReady"
        yield f"its node: {ready}{', out of service' if node.out_of_service else ', without the taint out-of-service'}"


def _outcome(story: RangeStory) -> str:
    from homeport.ipam.deciding import AlreadyHeld, Create, Examine, Take
    from homeport.ipam.moving import Wait
    from homeport.ipam.planning import refusal
    from homeport.model import errors

    outcome: Foreseen = story.outcome
    match outcome:
        case AlreadyHeld(allocation):
            return f"finds {allocation.address} its own: nothing to do"
        case Examine(allocation):
            asks = f"asks from its node whether anybody answers for {allocation.address}"
            return f"{asks}: takes it if not, waits if so (code {errors.TryAgainLater.code})"
        case Take(previous, cause):
            return f"takes {previous.address}: {cause}"
        case Create(address, cause):
            lowest = "" if address in (story.want.mapped, story.want.preferred) else ", the lowest free"
            return f"creates {address}{lowest}: {cause}"
        case Wait(reason):
            return f"waits (code {errors.TryAgainLater.code}): {reason}"
    code = errors.PoolExhausted.code if story.want.mapped is None else errors.AddressTaken.code
    return f"fails (code {code}): {refusal(story.want, outcome)}"


def _value(story: Story, shown: Sequence[InterfaceStory], said: Sequence[Said], now: datetime) -> dict[str, Any]:
    """The same for programs: each interface's facts in order, and its allocations."""
    from homeport.ipam.deciding import Examine

    return {
        "namespace": story.ref.namespace,
        "pod": story.ref.name,
        "uid": story.pod.uid if story.pod is not None else "",
        "phase": story.pod.phase if story.pod is not None else "",
        "error": story.error,
        "events": said,
        "interfaces": [
            {
                "interface": i.slot.ifname,
                "network": i.slot.network,
                "definition": i.interface.definition,
                "replica": not i.why_not,
                "ranges": [
                    {
                        "scope": r.want.scope,
                        "first": str(r.want.range.first),
                        "last": str(r.want.range.last),
                        "mapped": str(r.want.mapped) if r.want.mapped is not None else None,
                        "preferred": str(r.want.preferred) if r.want.preferred is not None else None,
                        "held": view_of(r.held) if r.held is not None else None,
                        "next": "Probe" if isinstance(r.outcome, Examine) else type(r.outcome).__name__,
                        "why": _outcome(r),
                    }
                    for r in i.ranges
                ],
                "facts": [{"name": name, "text": text} for name, text in _facts(i, now)],
            }
            for i in shown
        ],
    }
