"""One plugin's configuration, as it is executed. No I/O.

CNI SPEC 1.1.0 §1 and §2; `parse` has checked the keys every plugin shares, `raw` keeps all others untouched.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from homeport.model.names import AttachmentKey
from homeport.model.results import DNS, Result


class NetConf(msgspec.Struct, frozen=True, kw_only=True):
    """`raw` is the whole object as it came (JSON types), prevResult included; the other fields are read out of it."""

    cni_version: str
    name: str
    type: str
    raw: Mapping[str, Any]
    prev_result: Result | None = None
    ipam: Mapping[str, Any] | None = None
    dns: DNS = DNS()
    runtime_config: Mapping[str, Any] = {}
    args: Mapping[str, Any] = {}  # the object under "args": {"cni": ...}
    capabilities: Mapping[str, bool] = {}
    valid_attachments: frozenset[AttachmentKey] | None = None  # GC only
