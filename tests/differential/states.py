"""What a side's kernel looks like, as iproute2 tells it, with what is random made comparable. No reader of ours."""

from __future__ import annotations

import ipaddress
import json
import os
import re
from typing import Any

from tests.differential.sides import Json, Side

State = dict[str, dict[str, list[Json]]]
"""By place (node, pod) and question."""

_QUESTIONS = (
    ("links", "ip -j -d address show"),
    ("routes 4", "ip -j -d -4 route show table all"),
    ("routes 6", "ip -j -d -6 route show table all"),
    ("rules 4", "ip -j -4 rule show"),
    ("rules 6", "ip -j -6 rule show"),
    ("settings", "ip -j netconf show"),
    ("vlans", "bridge -j vlan show"),
)

_BREAK = "=" * 20

# What differs between two runs of one program: indexes, running timers, and IDs made of a MAC in a form of their own.
_UNSTABLE = frozenset(
    {
        "ifindex", "link", "link_index", "link_netnsid", "iif_index",
        "hello_timer", "tcn_timer", "topology_change_timer", "gc_timer",
        "message_age_timer", "forward_delay_timer", "hold_timer",
        "bridge_id", "root_id", "designated_bridge", "designated_root",
    }
)  # fmt: skip
_RANDOM_VETH = re.compile(r"veth[0-9a-f]{8,11}")


def observe(side: Side) -> State:
    """Both namespaces' answers, raw; a pod that is gone has none."""
    places = (("node", side.node), ("pod", side.pod))
    return {place: _ask(side, netns) for place, netns in places if os.path.exists(netns)}


def _ask(side: Side, netns: str) -> dict[str, list[Json]]:
    """All questions in one go, for under emulation a process costs more than its answer."""
    script = "set -e\n" + f"\necho {_BREAK}\n".join(question for _, question in _QUESTIONS)
    answers = side.inside(netns, "sh", "-c", script).split(f"{_BREAK}\n")
    return {
        what: [entry for entry in json.loads(answer.strip() or "[]") if entry]
        for (what, _), answer in zip(_QUESTIONS, answers, strict=True)
    }


def comparable(side: Side, state: State, answer: Json, *, given: str) -> Any:
    """State and answer with random names, MACs and what follows from them replaced by what they belong to.

    `given` is the configuration's text: a MAC in it is not random.
    """
    renamed = _replace((state, answer, _files(side)), {**_veths(state), side.pod: "<pod>", str(side.data): "<data>"})
    renamed = _replace(renamed, _macs(renamed[0], given))
    return _sorted(_stable(renamed))


def _files(side: Side) -> dict[str, str]:
    """What IPAM plugins keep, by path below the side's directory."""
    below = (path for path in side.data.rglob("*") if path.is_file() and not path.name.startswith("allocations.db"))
    return {str(path.relative_to(side.data)): path.read_text() for path in below}


def _veths(state: State) -> dict[str, str]:
    """Random names to the name of the interface at the other end."""
    pods = {link["ifindex"]: link["ifname"] for link in state.get("pod", {}).get("links", [])}
    names = {}
    for link in state["node"]["links"]:
        if _RANDOM_VETH.fullmatch(link["ifname"]):
            peer = link.get("link") or pods.get(link.get("link_index"), "nobody")
            names[link["ifname"]] = f"<port of {peer}>"
    return names


def _macs(state: State, given: str) -> dict[str, str]:
    names: dict[str, str] = {}
    for place in sorted(state):
        for link in sorted(state[place]["links"], key=lambda entry: entry["ifname"]):
            mac = link.get("address", "")
            if link.get("link_type") != "ether" or mac in given or mac.startswith("02:00:00:00:00:f"):
                continue
            who = names.setdefault(mac, f"<MAC of {place} {link['ifname']}>")
            names[_link_local(mac)] = who.replace("MAC", "link-local")
    for place in sorted(state):
        for link in state[place]["links"]:
            for address in link["addr_info"]:
                # A bridge makes its link-local address of the MAC it had before its first port.
                if address.get("scope") == "link" and link.get("address", "") not in given:
                    names.setdefault(address["local"], f"<former link-local of {place} {link['ifname']}>")
    return names


def _link_local(mac: str) -> str:
    """RFC 4291 appendix A."""
    octets = bytearray.fromhex(mac.replace(":", ""))
    octets[0] ^= 2
    return str(ipaddress.ip_address(b"\xfe\x80" + bytes(6) + octets[:3] + b"\xff\xfe" + octets[3:]))


def _replace(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {names.get(k, k): _replace(v, names) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_replace(v, names) for v in value]
    return names.get(value, value) if isinstance(value, str) else value


def _stable(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _stable(v) for k, v in value.items() if k not in _UNSTABLE}
    return [_stable(v) for v in value] if isinstance(value, list) else value


def _sorted(value: Any) -> Any:
    """Lists of objects in an order of their own, but for the answer's, which mean something."""
    state, answer, files = value
    ordered = {
        place: {what: sorted(entries, key=lambda e: json.dumps(e, sort_keys=True)) for what, entries in parts.items()}
        for place, parts in state.items()
    }
    return {**ordered, "answer": answer, "files": files}
