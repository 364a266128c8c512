"""What plugins are, and what they are given."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

import msgspec

from homeport.cni.invocations import Attachment
from homeport.cni.netconfs import NetConf
from homeport.ipam.attaches import Attach
from homeport.model.results import Result
from homeport.ports.allocations import AllocationStore, FileAllocations
from homeport.ports.clusters import Cluster
from homeport.ports.kernel import Host, Probe
from homeport.ports.programs import Clock, Files


class Delegates(Protocol):
    """Plugins run by another plugin (CNI SPEC §4), such as its IPAM: in-process when ours, else from CNI_PATH."""

    def add(self, plugin_type: str, conf: NetConf, attachment: Attachment) -> Result: ...
    def delete(self, plugin_type: str, conf: NetConf, attachment: Attachment) -> None: ...
    def check(self, plugin_type: str, conf: NetConf, attachment: Attachment) -> None: ...
    def gc(self, plugin_type: str, conf: NetConf, attachment: Attachment) -> None: ...
    def status(self, plugin_type: str, conf: NetConf, attachment: Attachment) -> None: ...
    def link_kind(self, plugin_type: str) -> str:
        """The kind of link that a plugin of ours makes under the attachment's own name, and removes at DEL; "" for a
        plugin that makes none, and for any foreign one.
        """

    def adapted(self, *, exec_types: Collection[str] = (), cluster: Cluster | None = None) -> Delegates:
        """The same plugins for one request: these types executed too, ours asking `cluster` where it is given."""


def ignore(_attach: Attach) -> None:
    """For whoever does not count attaches."""


class Shells(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a plugin may act on. Built by the programs; `open_*` connect on first use."""

    host: Host
    probe: Probe
    clock: Clock
    files: Files
    delegates: Delegates
    open_allocations: Callable[[str | None], AllocationStore]  # argument: the configured path, None for the default
    open_file_allocations: Callable[[str, str], FileAllocations]  # (data directory, network name)
    cluster: Cluster | None = None
    node: str = ""
    on_attach: Callable[[Attach], None] = ignore  # R16; must not wait


class Plugin(Protocol):
    """What `plugins.registry` gives for a type: one module with these six functions.

    `add` leaves nothing behind when it raises. `delete` is idempotent and succeeds when the namespace, the
    interface or the allocation is gone. `check` raises `Drift`. `gc` removes what belongs to attachments not in
    `conf.valid_attachments`. `status` raises `PluginNotAvailable`. IPAM plugins return a result without interfaces.
    """

    TYPE: str

    def add(self, conf: NetConf, attachment: Attachment, shells: Shells) -> Result: ...
    def delete(self, conf: NetConf, attachment: Attachment, shells: Shells) -> None: ...
    def check(self, conf: NetConf, attachment: Attachment, shells: Shells) -> None: ...
    def gc(self, conf: NetConf, attachment: Attachment, shells: Shells) -> None: ...
    def status(self, conf: NetConf, attachment: Attachment, shells: Shells) -> None: ...
