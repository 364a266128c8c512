"""A network: an ordered list of plugins. No I/O.

CNI SPEC 1.1.0 §1 "Network configuration objects"; libcni's own rules where the spec is silent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec


class ConfList(msgspec.Struct, frozen=True, kw_only=True):
    """`plugins` are the objects in execution order of ADD; `raw` is the text as it came, for the cache."""

    cni_version: str
    name: str
    plugins: tuple[Mapping[str, Any], ...]
    disable_check: bool = False
    disable_gc: bool = False
    load_only_inlined_plugins: bool = False
    raw: bytes = b""
