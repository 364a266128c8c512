"""Homeport's nftables rules: one table a family, every rule tagged with the attachment it belongs to.

The tables are `inet homeport` and `bridge homeport`; they and their chains stay once made, empty when nothing needs
them. A rule's comment is its tag, so DEL, CHECK and GC find rules by attachment and never touch a rule without one.
JSON as in libnftables-json(5).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import msgspec

from homeport.model.errors import KernelRefused
from homeport.model.names import AttachmentKey
from homeport.ports import Host

TABLE = "homeport"

# The kernel keeps 128 bytes of comment, its NUL included: 46 + 1 + 64 + 1 + 15 fits.
_NETWORK_MAX = 46
_CONTAINER_MAX = 64

_DELETE_ATTEMPTS = 5


class Chain(msgspec.Struct, frozen=True, kw_only=True):
    """A base chain of ours: `kind` is nft's type, `priority` its number."""

    family: str
    name: str
    kind: str
    hook: str
    priority: int


class TaggedRule(msgspec.Struct, frozen=True, kw_only=True):
    """A rule as the kernel lists it; `expr` is what `add_rules` was given, as the kernel words it."""

    tag: str
    handle: int
    expr: Sequence[Mapping[str, Any]]


def tag(key: AttachmentKey) -> str:
    """The comment of this attachment's rules: `NETWORK CONTAINER IFNAME`, long names shortened with a digest."""
    return f"{_shorten(key.network, _NETWORK_MAX)} {_shorten(key.container_id, _CONTAINER_MAX)} {key.ifname}"


def add_rules(host: Host, chain: Chain, key: AttachmentKey, exprs: Sequence[Sequence[Mapping[str, Any]]]) -> None:
    """Adds one rule for each of `exprs`, all or none; undone with the current operation."""
    place = {"family": chain.family, "table": TABLE}
    host.on_undo(lambda: delete_rules(host, chain, key))
    host.run_nft(
        [
            {"add": {"table": {"family": chain.family, "name": TABLE}}},
            {
                "add": {
                    "chain": {
                        **place,
                        "name": chain.name,
                        "type": chain.kind,
                        "hook": chain.hook,
                        "prio": chain.priority,
                        "policy": "accept",
                    }
                }
            },
            *({"add": {"rule": {**place, "chain": chain.name, "expr": e, "comment": tag(key)}}} for e in exprs),
        ]
    )


def rules_of(host: Host, chain: Chain, key: AttachmentKey) -> tuple[TaggedRule, ...]:
    """The attachment's rules in the order of the chain."""
    return tuple(rule for rule in _tagged_rules(host, chain) if rule.tag == tag(key))


def delete_rules(host: Host, chain: Chain, key: AttachmentKey) -> None:
    """Removes the attachment's rules; none is success."""
    _delete_tagged(host, chain, lambda found: found == tag(key))


def delete_rules_except(host: Host, chain: Chain, network: str, valid: Collection[AttachmentKey]) -> None:
    """Removes the rules of this network whose attachment is not in `valid`."""
    prefix = _shorten(network, _NETWORK_MAX) + " "
    kept = {tag(key) for key in valid}
    _delete_tagged(host, chain, lambda found: found.startswith(prefix) and found not in kept)


def _shorten(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    # "~" is in no CNI identifier, so a shortened name never equals another one's full name.
    return f"{text[: limit - 17]}~{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _delete_tagged(host: Host, chain: Chain, wanted: Callable[[str], bool]) -> None:
    for attempts_left in reversed(range(_DELETE_ATTEMPTS)):
        handles = [rule.handle for rule in _tagged_rules(host, chain) if wanted(rule.tag)]
        if not handles:
            return
        place = {"family": chain.family, "table": TABLE, "chain": chain.name}
        try:
            host.run_nft([{"delete": {"rule": {**place, "handle": handle}}} for handle in handles])
        except KernelRefused as e:
            # Somebody else removed one of them since the listing: list again.
            if "ENOENT" not in e.details or not attempts_left:
                raise
        else:
            return


def _tagged_rules(host: Host, chain: Chain) -> tuple[TaggedRule, ...]:
    """Every rule of the chain that has a comment; none when the chain was never made."""
    try:
        listing = host.run_nft([{"list": {"chain": {"family": chain.family, "table": TABLE, "name": chain.name}}}])
    except KernelRefused as e:
        if "ENOENT" in e.details:
            return ()
        raise
    rules = (item["rule"] for item in listing if "rule" in item)
    return tuple(TaggedRule(tag=r["comment"], handle=r["handle"], expr=r["expr"]) for r in rules if "comment" in r)
