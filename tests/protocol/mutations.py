"""The protocol with one of its rules left out: each must be found out, or the tests prove nothing.

A mutation changes our own code or the request it makes, never a law.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from tests.protocol.machines import SimCluster
from tests.stand_ins_objects import MemoryObjects

from homeport.cni.invocations import Attachment
from homeport.cni.netconfs import NetConf
from homeport.ipam.allocations import Allocation
from homeport.ipam.identities import Slot
from homeport.ipam.objects import Pod
from homeport.model.addresses import IPAddress, MacAddress
from homeport.model.errors import TryAgainLater
from homeport.model.names import PodRef
from homeport.plugins import claiming
from homeport.ports import ApiObject, ObjectExists, Place, Resource, Shells
from homeport.stores import nodes
from homeport.stores.claims import HeldClaim, is_same_pod
from homeport.stores.kubernetes.recording import SlotRecords


def claim_without_a_record(patch: pytest.MonkeyPatch) -> None:
    """A replica's place is not written down before it is claimed."""

    def name(self: SlotRecords, slot: Slot, place: Place) -> None:
        return None

    patch.setattr(SlotRecords, "name", name)


def delete_any_version(patch: pytest.MonkeyPatch) -> None:
    """A release does not say which life of the object it means."""
    delete = MemoryObjects.delete

    def blunt(
        self: MemoryObjects, resource: Resource, name: str, *, namespace: str = "", version: str = "", uid: str = ""
    ) -> None:
        delete(self, resource, name, namespace=namespace)

    patch.setattr(MemoryObjects, "delete", blunt)


def overwrite_any_version(patch: pytest.MonkeyPatch) -> None:
    """A change does not say what it has seen."""
    overwrite = MemoryObjects.patch

    def blunt(
        self: MemoryObjects,
        resource: Resource,
        name: str,
        body: Mapping[str, Any],
        *,
        namespace: str = "",
        version: str = "",
    ) -> ApiObject:
        return overwrite(self, resource, name, body, namespace=namespace)

    patch.setattr(MemoryObjects, "patch", blunt)


def trust_the_hint(patch: pytest.MonkeyPatch) -> None:
    """What looked free is taken, whoever has it by now."""
    create = MemoryObjects.create

    def put(self: MemoryObjects, resource: Resource, body: Mapping[str, Any], *, namespace: str = "") -> ApiObject:
        try:
            return create(self, resource, body, namespace=namespace)
        except ObjectExists:
            return MemoryObjects.patch(self, resource, body["metadata"]["name"], body, namespace=namespace)

    patch.setattr(MemoryObjects, "create", put)


def free_on_an_error(patch: pytest.MonkeyPatch) -> None:
    """A pod that could not be asked for is taken for gone (R12)."""
    ask = SimCluster.pod_now

    def pod_now(self: SimCluster, ref: PodRef) -> Pod | None:
        try:
            return ask(self, ref)
        except TryAgainLater:
            return None

    patch.setattr(SimCluster, "pod_now", pod_now)


def take_back_a_release_that_was_sent(patch: pytest.MonkeyPatch) -> None:
    """P9: a new sandbox gets its address locally, although the API server may know of its release."""

    def may_rebind(former: HeldClaim, allocation: Allocation) -> bool:
        return is_same_pod(former.allocation.holder, allocation.holder)

    patch.setattr(nodes, "_may_rebind", may_rebind)


def take_ones_own_rows_for_all(patch: pytest.MonkeyPatch) -> None:
    """P8: while the API server does not answer, what the node's rows say of a slot is all it has."""
    of_slot = nodes.NodeStore.of_slot

    def sure(self: nodes.NodeStore, slot: Slot, *, likely: Sequence[Place] = ()) -> tuple[Allocation, ...]:
        found = of_slot(self, slot, likely=likely)
        vars(self)["_unsure"].clear()
        return found

    patch.setattr(nodes.NodeStore, "of_slot", sure)


def bind_locally_without_a_probe(patch: pytest.MonkeyPatch) -> None:
    """P11: what the node could not ask the API server, it does not ask the network either."""

    def nobody(address: IPAddress, conf: NetConf, attachment: Attachment, shells: Shells) -> MacAddress | None:
        return None

    patch.setattr(claiming, "stranger_at", nobody)
