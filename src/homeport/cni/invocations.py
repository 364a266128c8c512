"""What a runtime asks of a plugin through the environment. No I/O.

CNI SPEC 1.1.0 §2 "Parameters".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

Command = Literal["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"]


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
