"""Rules about what workloads say: their annotations, and whether the networks they select can do it. No I/O.

A namespace that a manifest leaves out is the one it will be applied to: it matches any.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from homeport.cni import conflists
from homeport.cni.documents import shown
from homeport.ipam import policies
from homeport.lint import wishes
from homeport.lint.catalogue import nearest
from homeport.lint.findings import Edit, Found, Severity, Span
from homeport.lint.manifests import (
    ADDRESSES,
    DEFAULT_NETWORK,
    NETWORKS,
    RETENTION,
    Embedded,
    Manifests,
    Network,
    Workload,
)
from homeport.lint.nodes import Node, plain
from homeport.lint.rules.checks import rule
from homeport.lint.rules.editing import insert_first
from homeport.lint.rules.wording import said
from homeport.lint.wishes import Wish
from homeport.model.errors import CniError
from homeport.model.names import is_label
from homeport.multinet import capabilities, selections

_STEP = re.compile(r"\[([0-9]+)\]|\.([A-Za-z-]+)")
_STEPS = re.compile(r"(?:\[[0-9]+\]|\.[A-Za-z-]+)*")
_LISTS = (("ips",), ("default-route",))


@rule(
    "annotation-syntax",
    Severity.ERROR,
    fix="puts one address in brackets where a list is expected, and NAMESPACE/NAME into two keys",
)
def annotation_syntax(manifests: Manifests) -> Iterator[Found]:
    """An annotation about networks cannot be read.

    The network selection is `[NAMESPACE/]NAME[@IFNAME],...` or a JSON list of objects, the default network exactly one
    such; `homeport.dev/addresses` and `homeport.dev/retention` are JSON objects. A pod with a bad one does not start.
    `{ordinal}` stands for a replica's number, so it is right in a StatefulSet and wrong anywhere else.
    """
    for workload in manifests.workloads:
        for key in (NETWORKS, DEFAULT_NETWORK):
            text = workload.annotations.get(key)
            if text is not None:
                yield from _unreadable_selection(workload, key, text)
        for key in (ADDRESSES, RETENTION):
            text = workload.annotations.get(key)
            if text is None:
                continue
            for slip in text.slips:
                yield workload.found(slip.span, f"found {slip.found}", f"expected {slip.right}")
            if text.root is not None and text.root.kind != "object":
                yield workload.found(text.root.span, f'annotation "{key}" is no object', "expected a JSON object")


@rule("unknown-network", Severity.WARNING)
def unknown_network(manifests: Manifests) -> Iterator[Found]:
    """A workload asks for a network that is not in the files.

    It may be in the cluster already; then its pods start, but nothing between the two could be checked here.
    """
    named = wishes.by_name(manifests.networks)
    for workload in manifests.workloads:
        text = workload.annotations.get(NETWORKS)
        missing: dict[Span, list[Wish]] = {}
        for wish in wishes.of(workload):
            if text is not None and wishes.chosen(workload, wish, named) is None:
                missing.setdefault(wishes.place(text, wish), []).append(wish)
        for span, lost in missing.items():
            name = lost[0].selection.name
            elsewhere = [n.namespace for n in named.get(name, [])]
            near = nearest(name, tuple(named))
            right = "define it in these files, or lint it together with them"
            if elsewhere:
                right = f'it is defined in namespace "{elsewhere[0]}"'
            elif near and lost[0].ordinal is None:
                right = f'did you mean "{near}"?'
            yield workload.found(span, f"{_missing(workload, lost)} not in these files", right)


@rule("unhonoured-request", Severity.ERROR)
def unhonoured_request(manifests: Manifests) -> Iterator[Found]:
    """A network selection asks for something that no plugin of the network takes, such as `ips`.

    A plugin that takes it says so by `"capabilities": {"ips": true}` in its configuration. Those that read `ips` or
    `mac` without, such as whereabouts and macvlan, are known (docs/networks.md). Pods with such a request do not start,
    unless the nodes are told to drop it (`unhonouredRequests`).
    """
    for workload, text, wish, network in wishes.selections_of(manifests):
        asked = _unhonoured(network, wish)
        if asked:
            yield workload.found(
                wishes.place(text, wish),
                f'a request for {", ".join(map(shown, asked))}, which no plugin of network "{network.name}" takes',
                f'expected "capabilities": {{"{asked[0]}": true}} in one of them',
            )


@rule("bad-duration", Severity.ERROR)
def bad_duration(manifests: Manifests) -> Iterator[Found]:
    """`retainFor` is not a duration.

    Write whole numbers with d, h, m or s: `72h`, `1h30m`, `7d`.
    """
    holders: list[tuple[Network | Workload, Node | None]] = [
        *((n, plugin.get("ipam", "sticky")) for n in manifests.networks for plugin in n.plugins),
        *((w, w.annotations[RETENTION].root) for w in manifests.workloads if RETENTION in w.annotations),
    ]
    for subject, holder in holders:
        node = holder.get("retainFor") if holder is not None else None
        if node is None or node.kind != "string":
            continue
        try:
            policies.parse_policy({"retainFor": str(node.value)}, [])
        except CniError as e:
            yield subject.found(node.span, *said(e))


def _unreadable_selection(workload: Workload, key: str, text: Embedded) -> Iterator[Found]:
    try:
        for ordinal in wishes.ordinals(workload, text):
            wishes.parse(workload, key, text, ordinal)
    except CniError as e:
        if selections.is_json(text.scalar.text) and text.slips:
            for slip in text.slips:
                yield workload.found(slip.span, f"found {slip.found}", f"expected {slip.right}")
        else:
            yield _misread(workload, key, text, e)


def _misread(workload: Workload, key: str, text: Embedded, error: CniError) -> Found:
    """What pods would be told, at the entry or value that the error names."""
    path = _path(error.msg, key)
    node = text.root if selections.is_json(text.scalar.text) else None
    found, right = said(error)
    if node is None:
        item = path[0] if path and isinstance(path[0], int) else None
        return workload.found(text.scalar.span(_item(text.scalar.text, item)), found, right)
    for step in path:
        inner = _inside(node, step)
        if inner is None:
            break
        node = inner
    meant, edits = _meant(text, path, node)
    return Found(file=workload.file, span=node.span, found=found, right=meant or right, edits=edits)


def _meant(text: Embedded, path: tuple[int | str, ...], node: Node) -> tuple[str, tuple[Edit, ...]]:
    """What a misread value of a JSON list can only mean, in words, and the edits that write it."""
    start, end = node.span.start, node.span.end
    if path[1:] in _LISTS and node.kind == "string":
        return "", (Edit(start, start, "["), Edit(end, end, "]"))
    element = _inside(text.root, path[0]) if text.root is not None and path[1:] == ("name",) else None
    namespace, _, name = str(node.value).partition("/")
    if element is None or element.get("namespace") is not None or not is_label(namespace) or not is_label(name):
        return "", ()
    right = f'expected "namespace": "{namespace}", "name": "{name}"'
    return right, (insert_first(text, element, "namespace", namespace), text.edit(node.span, f'"{name}"'))


def _inside(node: Node, step: int | str) -> Node | None:
    if isinstance(step, str):
        return node.get(step)
    return node.items[step] if step < len(node.items) else None


def _path(message: str, key: str) -> tuple[int | str, ...]:
    """The steps that a message names behind the annotation's key: `[0].ips` as 0 and "ips"."""
    written = _STEPS.match(message.partition(key)[2])
    steps = _STEP.finditer(written[0]) if written is not None else ()
    return tuple(int(step[1]) if step[1] else step[2] for step in steps)


def _item(written: str, number: int | None) -> Span:
    """The stretch of an item of the short form, the whole annotation without a number."""
    if number is None:
        return Span(0, len(written))
    items = written.split(",")
    start = sum(len(item) + 1 for item in items[:number])
    item = items[number]
    return Span(start + len(item) - len(item.lstrip()), start + len(item.rstrip()))


def _unhonoured(network: Network, wish: Wish) -> tuple[str, ...]:
    """The requests, under the names of capabilities; none of a network that other rules find fault with."""
    try:
        parsed = conflists.parse(plain(network.config) if network.config else {}, default_name=network.name)
    except CniError:
        return ()
    return capabilities.unhonoured(parsed, wish.selection)


def _missing(workload: Workload, lost: Sequence[Wish]) -> str:
    """The networks of one place in an annotation, with their verb."""
    name, ordinal = wishes.full_name(workload, lost[0]), lost[0].ordinal
    if ordinal is None:
        return f'network "{name}" is'
    if len(lost) == 1:
        return f'network "{name}" of replica {ordinal} is'
    return f'network "{name}" of replica {ordinal}, and those of {len(lost) - 1} more, are'
