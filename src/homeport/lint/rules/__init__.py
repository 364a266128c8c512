"""The rules. Each is a function whose docstring explains it; `ALL` has them in the order in which they are listed."""

from __future__ import annotations

from homeport.lint.findings import Rule
from homeport.lint.rules import (
    addresses,
    capacity,
    deprecated,
    gateways,
    keys,
    maps,
    masters,
    metadata,
    names,
    plugins,
    requests,
    routing,
    selections,
    sharing,
    syntax,
    values,
    versions,
    workloads,
)
from homeport.lint.rules.checks import Check

ALL: tuple[Check, ...] = tuple(
    value
    for module in (
        syntax,
        names,
        versions,
        plugins,
        keys,
        addresses,
        sharing,
        masters,
        routing,
        gateways,
        workloads,
        requests,
        capacity,
        maps,
        metadata,
        selections,
        values,
        deprecated,
    )
    for value in vars(module).values()
    if isinstance(value, Check)
)


def by_id(rule_id: str) -> Rule | None:
    """The rule of that id, or None when there is none."""
    return next((check.rule for check in ALL if check.rule.id == rule_id), None)
