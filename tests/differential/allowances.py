"""Deliberate differences as they show in a comparison: each takes its own out of a view, and nothing else.

The names are the IDs of docs/compatibility.md; test_differences.py asserts that each difference is really there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

View = dict[str, Any]


def empty_dns(view: View) -> View:
    answer = {k: v for k, v in view["answer"].items() if k != "dns" or v}
    return {**view, "answer": answer}


def ipam_dns(view: View) -> View:
    return {**view, "answer": {k: v for k, v in view["answer"].items() if k != "dns"}}


def loopback_versions(view: View) -> View:
    ips = [{k: v for k, v in ip.items() if k != "version"} for ip in view["answer"].get("ips", [])]
    return {**view, "answer": {**view["answer"], "ips": ips}}


def queue_length(view: View) -> View:
    def without(link: Mapping[str, Any]) -> Mapping[str, Any]:
        kind = link.get("linkinfo", {}).get("info_kind")
        return {k: v for k, v in link.items() if k != "txqlen"} if kind in ("veth", "macvlan", "ipvlan") else link

    return _with_links(view, without)


def sbr_families(view: View) -> View:
    """Routes in a table that only the other family's rules lead to, and link-local ones."""
    if "pod" not in view:
        return view
    pod = dict(view["pod"])
    tables = {family: {rule.get("table") for rule in pod[f"rules {family}"]} for family in (4, 6)}
    for family in (4, 6):
        foreign = tables[10 - family] - tables[family]
        pod[f"routes {family}"] = [
            route
            for route in pod[f"routes {family}"]
            if route.get("table") not in foreign and not route["dst"].startswith("fe80:")
        ]
    return {**view, "pod": pod}


EVERYWHERE = ("empty-dns", "queue-length")

ALLOWANCES: Mapping[str, Callable[[View], View]] = {
    "empty-dns": empty_dns,
    "ipam-dns": ipam_dns,
    "loopback-versions": loopback_versions,
    "queue-length": queue_length,
    "sbr-families": sbr_families,
}


def allow(names: Iterable[str]) -> Callable[[View], View]:
    """All of them, one after the other."""

    def apply(view: View) -> View:
        for name in names:
            view = ALLOWANCES[name](view)
        return view

    return apply


def _with_links(view: View, change: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> View:
    changed = dict(view)
    for place in {"node", "pod"} & view.keys():
        changed[place] = {**view[place], "links": [change(link) for link in view[place]["links"]]}
    return changed
