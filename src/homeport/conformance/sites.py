"""What one row works with: its networks, its workloads, its addresses. I/O: `ports.Objects`.

Nothing outlasts the row: `clear` removes it, and proves it gone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from homeport.conformance import manifests, observing, templates
from homeport.conformance.manifests import Kind
from homeport.conformance.observing import Addresses, Seen, View
from homeport.conformance.reports import RowFailed
from homeport.conformance.templates import Room
from homeport.conformance.worlds import World
from homeport.kube.resources import DEFINITIONS, DEPLOYMENTS, PODS, STATEFUL_SETS
from homeport.model.addresses import IPAddress
from homeport.ports import USUAL_DELETION, Deletion

_KINDS = {"StatefulSet": STATEFUL_SETS, "Deployment": DEPLOYMENTS}
AT_ONCE = Deletion(grace_seconds=0)


class Network(msgspec.Struct, frozen=True):
    """One of a row. `name` is the definition's, `cni_name` what maps are keyed by, `window` all its addresses."""

    name: str
    cni_name: str
    window: Room

    def address(self, number: int) -> tuple[IPAddress, ...]:
        """Number `number` of each of its ranges."""
        return observing.ordered(run[number] for run in self.window)

    def texts(self, *numbers: int) -> list[list[str]]:
        """A map's entries."""
        return [[str(run[number]) for run in self.window] for number in numbers]


class Site:
    """Of the row `row`."""

    def __init__(self, world: World, row: str) -> None:
        self.world = world
        self.row = row.lower()
        self.remark = ""  # what was not, or not quite, as the matrix has it
        self.networks: list[Network] = []  # of a pod, in the order of its interfaces
        self._made: list[Network] = []
        self._workloads: dict[str, Kind] = {}

    # --- making ---

    def anew(self) -> None:
        """The next network is again that of the first interface."""
        self.networks.clear()

    def network(self, size: int, sticky: Mapping[str, Any] | None = None, *more: Mapping[str, Any]) -> Network:
        """One with a pool of `size` addresses. `more` plugins come at the end of its chain."""
        name = f"{self.row}-{len(self._made) + 1}"
        made = Network(name, f"{self.world.namespace}-{name}", self.world.take(size))
        self.networks.append(made)
        self._made.append(made)
        self.change(made, sticky, *more)
        return made

    def change(self, network: Network, sticky: Mapping[str, Any] | None, *more: Mapping[str, Any]) -> None:
        """The same pool with another policy, or another chain."""
        text = templates.config_of(self.world.template, network.cni_name, network.window, sticky, more)
        self.world.put(DEFINITIONS, manifests.definition(network.name, text, self.world.template.resource))

    def workload(
        self,
        name: str,
        replicas: int,
        *networks: Network,
        kind: Kind = "StatefulSet",
        annotations: Mapping[str, str | None] | None = None,
        pod_annotations: Mapping[str, str | None] | None = None,
        nodes: Sequence[str] = (),
        **spec: Any,
    ) -> None:
        """Makes it, or what is there into this."""
        settings = self.world.settings
        body = manifests.workload(
            name,
            kind,
            replicas,
            [network.name for network in networks],
            image=settings.image,
            resource=self.world.template.resource,
            nodes=nodes or settings.nodes,
            annotations=annotations,
            pod_annotations=pod_annotations,
            spec=spec,
        )
        self._workloads[name] = kind
        self.world.put(_KINDS[kind], body)

    def scale(self, name: str, replicas: int) -> None:
        body = {"spec": {"replicas": replicas}}
        self.world.objects.patch(_KINDS[self._workloads[name]], name, body, namespace=self.world.namespace)

    # --- removing ---

    def delete_workload(self, name: str, manner: Deletion = USUAL_DELETION) -> None:
        """As `kubectl delete --cascade` does."""
        self.world.remove(_KINDS[self._workloads[name]], name, manner)

    def delete_pods(self, *names: str, manner: Deletion = USUAL_DELETION) -> None:
        for name in names:
            self.world.remove(PODS, name, manner)

    def exists(self, workload: str) -> bool:
        """Be it on its way out."""
        resource = _KINDS[self._workloads[workload]]
        return self.world.objects.get(resource, workload, namespace=self.world.namespace) is not None

    def clear(self) -> None:
        """Removes what the row made. `RowFailed` where an address of it stays behind."""
        world = self.world
        for name in self._workloads:
            self.delete_workload(name)
        for pod in world.objects.list(PODS, namespace=world.namespace):
            self.delete_pods(pod.name)  # orphans have nobody who would
        world.await_gone()
        for network in self._made:
            world.remove(DEFINITIONS, network.name)
        self._require_free()

    def _require_free(self) -> None:
        world, records = self.world, self.world.records
        if records is None:
            return

        def is_free(_: Sequence[View]) -> bool:
            records.release(world.namespace)
            return not records.of(world.namespace)

        try:
            world.wait(is_free, "every address is free")
        except RowFailed as e:
            left = ", ".join(f"{kept.address} ({kept.phase}, {kept.pod})" for kept in records.of(world.namespace))
            raise RowFailed(f"{left or 'nothing'} is left of pods that are gone") from e

    # --- what is expected ---

    def having(self, workload: str, *numbers: int, first: int = 0) -> Seen:
        """Replica `first` + n has the address of the n-th of these numbers, on each network."""
        return {f"{workload}-{first + n}": self._addresses(number) for n, number in enumerate(numbers)}

    def numbered(self, workload: str, replicas: int = 3) -> Seen:
        """Replica n has address number n."""
        return self.having(workload, *range(replicas))

    def _addresses(self, number: int) -> Addresses:
        return {f"net{n}": network.address(number) for n, network in enumerate(self.networks, start=1)}


def as_map(network: Network, *numbers: int) -> dict[str, str | None]:
    """The annotation by which a workload fixes its replicas' addresses (docs/identity.md R3)."""
    return mapped(network, network.texts(*numbers))


def mapped(network: Network, entries: Sequence[Sequence[str]]) -> dict[str, str | None]:
    """The same with whatever entries."""
    return {"homeport.dev/addresses": json.dumps({network.cni_name: entries})}
