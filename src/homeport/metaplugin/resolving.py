"""Which networks a pod is to have, and their configurations. I/O: through `ports.Kubernetes` and `ports.Files`.

Order: the default network, the cluster's further ones, those the pod selects, the auxiliary chain.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import msgspec

from homeport.cni import conflists, documents
from homeport.cni.conflists import ConfList
from homeport.ipam.objects import Pod
from homeport.ipam.replicas import ReplicaKind, replica_of
from homeport.model.errors import CniError, InvalidNetConf, IOFailure, NoSuchObject, TryAgainLater
from homeport.multinet import devices, ipam_claims, isolation, selections
from homeport.multinet.requests import ResolvedNetwork
from homeport.multinet.selections import NetworkSelection
from homeport.multinet.settings import Settings
from homeport.ports import Event, Files, Kubernetes, NetworkDefinition
from homeport.runtime import networks

T = TypeVar("T")

_PASSTHRU = {"type": "passthru"}
_AUXILIARY_VERSION = "1.0.0"


class Resolver:
    """Looks up the networks of one request. `report` gets an event for each network of the pod that is not there."""

    def __init__(
        self, settings: Settings, files: Files, kubernetes: Kubernetes | None, report: Callable[[str], None]
    ) -> None:
        self._settings = settings
        self._files = files
        self._kubernetes = kubernetes
        self._report = report

    def main(self) -> ResolvedNetwork:
        """The default network of pods that do not choose another."""
        return self._defaults()[0]

    def of_pod(self, pod: Pod | None) -> tuple[ResolvedNetwork, ...]:
        """All networks of the pod, the main one first; with None of a container that is no pod we can know of.

        Raises `NoSuchObject` for a network that is proven absent, `TryAgainLater` when that cannot be told now, and
        what a configuration that cannot be right raises, with the network named.
        """
        settings = self._settings
        found = [*self._defaults()]
        if pod is not None:
            ordinal = self._ordinal(pod)
            chosen = pod.annotations.get(selections.DEFAULT_ANNOTATION, "")
            if chosen.strip():
                wanted = selections.parse_default(chosen, settings.multus_namespace, ordinal=ordinal)
                found[0] = msgspec.structs.replace(self._selected(wanted, pod), main=True)
            if pod.ref.namespace not in settings.system_namespaces:
                found += [self._named(name) for name in settings.default_networks]
            listed = selections.parse(
                pod.annotations.get(selections.ANNOTATION, ""), pod.ref.namespace, ordinal=ordinal
            )
            isolation.require_permitted(listed, pod.ref.namespace, settings)
            found += [self._selected(selection, pod) for selection in listed]
        auxiliary = self._auxiliary()
        return (*found, auxiliary) if auxiliary is not None else tuple(found)

    def _defaults(self) -> Sequence[ResolvedNetwork]:
        """The main network, and those written beside it in `delegates`."""
        settings = self._settings
        if settings.cluster_network:
            return [msgspec.structs.replace(self._named(settings.cluster_network), main=True)]
        found = []
        for n, delegate in enumerate(settings.delegates):
            with _at(f"delegates[{n}]"):
                network = conflists.parse(delegate)
            found.append(ResolvedNetwork(name=network.name, network=network, main=n == 0))
        return found

    def _named(self, name: str) -> ResolvedNetwork:
        """A network of the cluster's configuration: an object's name, else a file's; with a slash a path."""
        if "/" in name:
            return self._in_file(name)
        definition, unknown = self._definition(self._settings.multus_namespace, name)
        if definition is not None:
            return self._defined(definition)
        try:
            return _plain(networks.load(self._files, name, self._settings.conf_dir))
        except IOFailure as e:
            if unknown is not None:
                raise unknown from e
            self._report(f"{self._settings.multus_namespace}/{name}")
            raise NoSuchObject(
                f'find network "{name}": found no NetworkAttachmentDefinition in namespace '
                f'"{self._settings.multus_namespace}", and no file of that name',
                e.msg,
            ) from e

    def _in_file(self, path: str) -> ResolvedNetwork:
        if not os.path.isdir(path):
            return _plain(networks.load_file(self._files, path))
        listed = [name for name in self._files.list(path) or () if name.endswith((".conf", ".conflist"))]
        if not listed:
            raise NoSuchObject(f"find network in {path}: found no .conf or .conflist in this directory")
        return _plain(networks.load_file(self._files, os.path.join(path, listed[0])))

    def _selected(self, selection: NetworkSelection, pod: Pod) -> ResolvedNetwork:
        """A network that the pod asks for: always an object."""
        definition, unknown = self._definition(selection.namespace, selection.name)
        if unknown is not None:
            raise unknown
        if definition is None:
            self._report(f"{selection.namespace}/{selection.name}")
            raise NoSuchObject(
                f'find network "{selection.namespace}/{selection.name}": no such NetworkAttachmentDefinition'
            )
        resolved = self._defined(definition)
        if selection.ipam_claim is not None:
            selection = self._with_claim(selection, selection.ipam_claim, pod, resolved)
        return msgspec.structs.replace(resolved, selection=selection)

    def _with_claim(
        self, selection: NetworkSelection, name: str, pod: Pod, resolved: ResolvedNetwork
    ) -> NetworkSelection:
        """The selection with the claim's addresses told to the network's plugins."""
        claim = self._kubernetes.ipam_claim(pod.ref.namespace, name) if self._kubernetes is not None else None
        if claim is None:
            raise NoSuchObject(
                f'attach network "{resolved.name}": find IPAMClaim "{pod.ref.namespace}/{name}": no such object'
            )
        with _at(f'network "{resolved.name}"'):
            told = ipam_claims.cni_args(claim, resolved.network, resolved.name)
        return msgspec.structs.replace(selection, cni_args={**selection.cni_args, **told})

    def _definition(self, namespace: str, name: str) -> tuple[NetworkDefinition | None, TryAgainLater | None]:
        """(the object, or None when it is not there; why that cannot be told now)."""
        if self._kubernetes is None:
            return None, None
        try:
            return self._kubernetes.definition(namespace, name), None
        except TryAgainLater as e:
            return None, e

    def _defined(self, definition: NetworkDefinition) -> ResolvedNetwork:
        with _at(f'network "{definition}"'):
            if definition.config.strip():
                with _at("spec.config"):
                    network = conflists.complete(
                        conflists.parse(definition.config.encode(), default_name=definition.name), ()
                    )
            else:
                network = networks.load(self._files, definition.name, self._settings.conf_dir)
        return ResolvedNetwork(
            name=str(definition),
            network=network,
            resource_name=definition.annotations.get(devices.RESOURCE_ANNOTATION, ""),
        )

    def _auxiliary(self) -> ResolvedNetwork | None:
        """The chain of files beside the cluster network's, behind a plugin that does nothing; None without files."""
        settings = self._settings
        name = settings.auxiliary_cni_chain_name
        if not name:
            return None
        if "/" not in settings.cluster_network:
            raise InvalidNetConf(
                f'key "auxiliaryCNIChainName": found "{name}" with clusterNetwork '
                f"{documents.shown(settings.cluster_network)}, expected one that is a path: the chain's files are "
                "beside it"
            )
        written = {"cniVersion": _AUXILIARY_VERSION, "name": name, "plugins": [_PASSTHRU]}
        directory = os.path.join(os.path.dirname(settings.cluster_network), name)
        with _at('key "auxiliaryCNIChainName"'):
            network = conflists.parse(written)
            entries = [e for e in self._files.list(directory) or () if e.endswith(".conf")]
            contents = [(os.path.join(directory, e), self._files.read(os.path.join(directory, e))) for e in entries]
            network = conflists.complete(network, [(path, text) for path, text in contents if text is not None])
        return _plain(network) if len(network.plugins) > 1 else None

    def _ordinal(self, pod: Pod) -> int | None:
        kinds = [
            documents.convert(kind, ReplicaKind, at=f"replicaKinds[{n}]")
            for n, kind in enumerate(self._settings.replica_kinds)
        ]
        replica = replica_of(pod, kinds)
        return replica.ordinal if replica is not None else None


def not_found(pod: Pod, network: str) -> Event:
    """What a person reads who asks why the pod does not start."""
    return Event(
        pod=pod.ref,
        pod_uid=pod.uid,
        reason="NoNetworkFound",
        message=f"cannot find a network-attachment-definition {network}",
        warning=True,
    )


def _plain(network: ConfList) -> ResolvedNetwork:
    return ResolvedNetwork(name=network.name, network=network)


@contextmanager
def _at(place: str) -> Iterator[None]:
    """Puts the place before an expected failure of the block."""
    try:
        yield
    except CniError as error:
        error.msg = f"{place}: {error.msg}"
        raise
