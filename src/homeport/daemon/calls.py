"""One call of a container runtime and its answer, whichever protocol carried them. Values only; no I/O."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

META_PLUGIN = frozenset({"homeport", "homeport-shim", "multus", "multus-shim"})


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """`plugin` is the name the executable was called by: one of META_PLUGIN, or the type of a single plugin.

    `environ` holds the CNI_* variables, `stdin` the network configuration as it came.
    """

    plugin: str
    environ: Mapping[str, str]
    stdin: bytes


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What the executable is to print and to exit with."""

    exit_code: int
    stdout: bytes = b""
