"""What `--repair` may do: each kind with what it acts on. Values only; `repairing` carries them out."""

from __future__ import annotations

from homeport.doctor.findings import Repair


class ChangeMode(Repair, frozen=True, kw_only=True, tag=True):
    """Takes permissions away from group and others; never gives any."""

    path: str
    take: int  # permission bits


class MakeDirectory(Repair, frozen=True, kw_only=True, tag=True):
    """For its owner alone."""

    path: str


class RemoveUnfinished(Repair, frozen=True, kw_only=True, tag=True):
    """A file of the journal that its writer never finished, and so never answered for."""

    path: str


class RemoveLink(Repair, frozen=True, kw_only=True, tag=True):
    """A link of the node's own namespace, if it is still the same one and still as it was."""

    index: int
    name: str


class TakeDown(Repair, frozen=True, kw_only=True, tag=True):
    """A DEL of a container whose namespace is gone, carried out by the daemon at `socket`. `config` is what the
    runtime's file says.
    """

    container_id: str
    netns: str
    socket: str
    config: str
