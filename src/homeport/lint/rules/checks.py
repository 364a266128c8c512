"""How a rule is written: a function over manifests whose docstring is its summary and explanation. No I/O."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator

import msgspec

from homeport.lint.findings import Found, Rule, Severity
from homeport.lint.manifests import Manifests, Network, of_network

OfManifests = Callable[[Manifests], Iterator[Found]]
OfNetwork = Callable[[Network], Iterator[Found]]


class Check(msgspec.Struct, frozen=True):
    """A rule, and the function that finds where it is broken."""

    rule: Rule
    find: OfManifests


def rule(rule_id: str, severity: Severity, *, fix: str = "") -> Callable[[OfManifests], Check]:
    """Makes a function over all manifests the rule `rule_id`."""

    def make(find: OfManifests) -> Check:
        return Check(_described(find.__doc__, rule_id, severity, fix), find)

    return make


def network_rule(rule_id: str, severity: Severity, *, fix: str = "") -> Callable[[OfNetwork], Check]:
    """Makes a function over one network the rule `rule_id`."""

    def make(find: OfNetwork) -> Check:
        once = of_network(find)

        def of_all(manifests: Manifests) -> Iterator[Found]:
            for network in manifests.networks:
                yield from once(network)

        return Check(_described(find.__doc__, rule_id, severity, fix), of_all)

    return make


def _described(doc: str | None, rule_id: str, severity: Severity, fix: str) -> Rule:
    summary, _, explanation = inspect.cleandoc(doc or rule_id).partition("\n\n")
    return Rule(id=rule_id, severity=severity, summary=summary, explanation=explanation, fix=fix)
