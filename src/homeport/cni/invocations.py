"""What a runtime asks of a plugin through the environment. No I/O.

CNI SPEC 1.1.0 §2 "Parameters". Where the specification leaves CNI_PATH optional, the library every plugin is built
with demands it, and so do we: a plugin without it could not find its IPAM plugin.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, cast, get_args

import msgspec

from homeport.model.errors import InvalidEnvironment
from homeport.model.names import is_identifier, is_ifname

Command = Literal["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"]

_ATTACHING: frozenset[Command] = frozenset({"ADD", "DEL", "CHECK"})
REQUIRED: Mapping[str, frozenset[Command]] = {
    "CNI_CONTAINERID": _ATTACHING,
    "CNI_NETNS": frozenset({"ADD", "CHECK"}),  # DEL must work after the namespace is gone
    "CNI_IFNAME": _ATTACHING,
    "CNI_PATH": frozenset({"ADD", "DEL", "CHECK", "GC", "STATUS"}),
}
_VARIABLES = frozenset({*REQUIRED, "CNI_ARGS"})


class Attachment(msgspec.Struct, frozen=True, kw_only=True):
    """One interface of one container, as every plugin function receives it.

    `netns_path` is None when CNI_NETNS was empty (DEL and GC only). `args` is CNI_ARGS in order, keys unique;
    `path` is CNI_PATH, searched first to last.
    """

    container_id: str
    ifname: str
    netns_path: str | None = None
    args: Mapping[str, str] = {}
    path: tuple[str, ...] = ()


class Invocation(msgspec.Struct, frozen=True, kw_only=True):
    """A whole call: the verb, the attachment it is about, and CNI_NETNS_OVERRIDE."""

    command: Command
    attachment: Attachment
    netns_override: bool = False


def parse_environment(env: Mapping[str, str]) -> Invocation:
    """The call that CNI_* variables describe; other variables are ignored.

    Raises one `InvalidEnvironment` that names every variable that is missing or malformed.
    """
    command = env.get("CNI_COMMAND", "")
    if command not in get_args(Command):
        wrong = f'found "{command}"' if command else "missing"
        raise InvalidEnvironment(f"CNI_COMMAND: {wrong}, expected one of {', '.join(get_args(Command))}")
    verb = cast(Command, command)
    missing = [name for name, verbs in REQUIRED.items() if verb in verbs and not env.get(name)]
    problems = [f"{name}: missing, required for {verb}" for name in missing]
    path = tuple(part for part in env.get("CNI_PATH", "").split(":") if part)
    attachment = Attachment(container_id="", ifname="", path=path)  # GC, STATUS and VERSION are about none
    if verb in _ATTACHING:
        problems += _malformed(env)
        try:
            attachment = Attachment(
                container_id=env.get("CNI_CONTAINERID", ""),
                ifname=env.get("CNI_IFNAME", ""),
                netns_path=env.get("CNI_NETNS") or None,
                args=parse_args(env.get("CNI_ARGS", "")),
                path=path,
            )
        except InvalidEnvironment as error:
            problems.append(error.msg)
    if problems:
        raise InvalidEnvironment("; ".join(problems))
    override = env.get("CNI_NETNS_OVERRIDE", "").lower() in ("1", "true")
    return Invocation(command=verb, attachment=attachment, netns_override=override)


def require_valid(attachment: Attachment) -> None:
    """Raises `InvalidEnvironment` when the attachment could not have come through CNI."""
    problems = _malformed(environment("ADD", attachment))
    problems += [
        f"{name}: missing"
        for name, value in (("CNI_CONTAINERID", attachment.container_id), ("CNI_IFNAME", attachment.ifname))
        if not value
    ]
    if problems:
        raise InvalidEnvironment("; ".join(problems))


def parse_args(text: str) -> Mapping[str, str]:
    """CNI_ARGS, `K=V;K2=V2`, in order. A key given twice keeps its last value, as callers that append expect.

    Empty pieces are skipped, a value may be empty and may contain `=`; anything else raises `InvalidEnvironment`.
    """
    args: dict[str, str] = {}
    for piece in text.split(";"):
        if not piece:
            continue
        key, equals, value = piece.partition("=")
        if not key or not equals:
            raise InvalidEnvironment(f'CNI_ARGS: found "{piece}", expected KEY=VALUE pairs joined by ";"')
        args[key] = value
    return args


def format_args(args: Mapping[str, str]) -> str:
    """The inverse of `parse_args`; raises `InvalidEnvironment` for a pair the form cannot carry."""
    for key, value in args.items():
        if not key or "=" in key or ";" in key or ";" in value or "\0" in key + value:
            raise InvalidEnvironment(f'CNI_ARGS: found "{key}={value}", expected a key and value without ";"')
    return ";".join(f"{key}={value}" for key, value in args.items())


def environment(command: Command, attachment: Attachment) -> dict[str, str]:
    """The variables that describe this call to a plugin; the inverse of `parse_environment`."""
    variables = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": attachment.container_id,
        "CNI_NETNS": attachment.netns_path or "",
        "CNI_IFNAME": attachment.ifname,
        "CNI_ARGS": format_args(attachment.args),
        "CNI_PATH": ":".join(attachment.path),
    }
    if command in ("GC", "STATUS"):
        return {name: variables[name] for name in ("CNI_COMMAND", "CNI_PATH")}
    return variables


def _malformed(env: Mapping[str, str]) -> list[str]:
    problems = [
        f"{name}: found {value!a}, expected UTF-8"
        for name, value in env.items()
        if name in _VARIABLES and any("\ud800" <= c <= "\udfff" for c in value)
    ]
    container_id, ifname = env.get("CNI_CONTAINERID", ""), env.get("CNI_IFNAME", "")
    if container_id and not is_identifier(container_id):
        problems.append(
            f'CNI_CONTAINERID: found "{container_id}", '
            'expected a letter or digit, then letters, digits, "_", "." or "-"'
        )
    if ifname and not is_ifname(ifname):
        problems.append(
            f'CNI_IFNAME: found "{ifname}", expected 1 to 15 characters without "/", ":" or blanks, and not "." or ".."'
        )
    return problems
