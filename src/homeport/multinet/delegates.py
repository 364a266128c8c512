"""One network that a pod is to be attached to, as the meta-plugin has resolved it. Values only; no I/O.

A delegate is decided once, at ADD, and kept with the container: CHECK, DEL and GC act on what is written there,
whatever the pod and its NetworkAttachmentDefinitions say by then.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from homeport.cni.conflists import ConfList
from homeport.multinet.selections import NetworkSelection


class Delegate(msgspec.Struct, frozen=True, kw_only=True):
    """`network` is the complete configuration, with the selection's `cni-args` and device ID already in its plugins.

    `name` is what status and messages call it: NAMESPACE/NAME of a NetworkAttachmentDefinition, else the
    configuration's own name. `selection` is None for a network that no pod asked for. `ifname`, `args` and
    `capability_args` are exactly what its plugins are run with. `main` is the pod's default network.
    `drops_default_routes` are the families (4, 6) whose default route this interface must not have, as another one
    provides it.
    """

    name: str
    network: ConfList
    ifname: str
    main: bool = False
    selection: NetworkSelection | None = None
    args: Mapping[str, str] = {}
    capability_args: Mapping[str, Any] = {}
    resource_name: str = ""
    device_id: str = ""
    drops_default_routes: frozenset[int] = frozenset()
