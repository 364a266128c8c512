"""The result of an ADD, free of any spec version. No I/O.

CNI SPEC 1.1.0 §5 "ADD Success"; `cni.versions` turns it into and out of each version's wire form.
"""

from __future__ import annotations

import msgspec

from homeport.model.addresses import IPAddress, IPInterface, IPNetwork


class Interface(msgspec.Struct, frozen=True, kw_only=True):
    """An interface the attachment made. `sandbox` is the netns path, or None for one on the host."""

    name: str
    mac: str | None = None
    mtu_bytes: int | None = None
    sandbox: str | None = None
    socket_path: str | None = None
    pci_id: str | None = None


class IPConfig(msgspec.Struct, frozen=True, kw_only=True):
    """An address with its prefix. `interface` is an index into `Result.interfaces`, or None when unassigned."""

    address: IPInterface
    gateway: IPAddress | None = None
    interface: int | None = None


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """A route of the container. None means "not given"; for `table` and `scope` zero has a meaning of its own."""

    dst: IPNetwork
    gw: IPAddress | None = None
    mtu_bytes: int | None = None
    advmss: int | None = None
    priority: int | None = None
    table: int | None = None
    scope: int | None = None


class DNS(msgspec.Struct, frozen=True, kw_only=True):
    """Resolver settings. All empty is the same as absent."""

    nameservers: tuple[str, ...] = ()
    domain: str = ""
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.nameservers or self.domain or self.search or self.options)


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What an ADD achieved; order is meaningful in every field."""

    interfaces: tuple[Interface, ...] = ()
    ips: tuple[IPConfig, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: DNS = DNS()
