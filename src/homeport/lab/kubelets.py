"""A node's kubelet and runtime: from a pod to a namespace with its networks attached, and back. I/O: through `Shells`.

Attachments are made one after the other and undone together (R6). Which networks a pod wants is decided before
anything is made; nothing here reads or writes the lab's state, so that several pods may start side by side.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from homeport.cni import conflists, documents
from homeport.cni.invocations import Attachment
from homeport.lab import building
from homeport.lab.objects import Attached, Network, PodObject, Sandbox
from homeport.model.errors import CniError, InvalidNetConf, SeveralErrors
from homeport.model.results import Result
from homeport.multinet import requests, selections
from homeport.multinet.delegates import Delegate
from homeport.multinet.requests import ResolvedNetwork
from homeport.multinet.selections import NetworkSelection
from homeport.ports import Shells
from homeport.runtime import chaining
from homeport.runtime.caching import ResultCache

PLUGIN_PATH = ("/opt/cni/bin", "/usr/lib/cni")
_CONTAINER_ID_BYTES = 32


class Started(msgspec.Struct, frozen=True):
    """Every attachment's ADD succeeded."""

    sandbox: Sandbox


class Failure(msgspec.Struct, frozen=True):
    """Some ADD failed. `left` is what could not be undone, still to be stopped; None when nothing stayed behind."""

    error: CniError
    left: Sandbox | None


class Kubelet:
    """One node's. `pod_netns` gives the path of a new sandbox's namespace."""

    def __init__(
        self,
        node: str,
        shells: Shells,
        cache: ResultCache,
        *,
        pod_netns: Callable[[str], str],
        substitutes: Mapping[str, str],
    ) -> None:
        self._node = node
        self._shells = shells
        self._cache = cache
        self._pod_netns = pod_netns
        self._substitutes = substitutes

    def plan(self, pod: PodObject, networks: Iterable[Network]) -> Sandbox:
        """The sandbox that the pod's annotation asks for, nothing of it made yet."""
        container_id = secrets.token_hex(_CONTAINER_ID_BYTES)
        annotation = pod.template.annotations.get(selections.ANNOTATION, "")
        wanted = selections.parse(annotation, pod.ref.namespace, ordinal=pod.ordinal)
        known = {(n.namespace, n.name): n for n in networks}
        args = _cni_args(pod, container_id)
        delegates = [self._delegate(n, selection, known, args) for n, selection in enumerate(wanted, start=1)]
        requests.require_own_names(delegates)
        return Sandbox(
            container_id=container_id,
            ref=pod.ref,
            pod_uid=pod.uid,
            node=self._node,
            netns_path=self._pod_netns(container_id),
            attachments=tuple(_attached(delegate) for delegate in delegates),
        )

    def start(self, sandbox: Sandbox) -> Started | Failure:
        """The namespace with `lo` up, then every attachment; all of it or nothing."""
        done: list[Attached] = []
        try:
            self._shells.host.create_namespace(sandbox.netns_path)
            self._shells.host.set_link("lo", sandbox.netns_path, up=True)
            for attached in sandbox.attachments:
                done.append(self._add(sandbox, attached))
        except CniError as error:
            return self._undo(sandbox, len(done), error)
        return Started(msgspec.structs.replace(sandbox, attachments=tuple(done), ready=True))

    def _undo(self, sandbox: Sandbox, done: int, error: CniError) -> Failure:
        """Takes back the first `done` attachments. The one that failed undid itself, unless notes say otherwise."""
        begun = done + 1 if getattr(error, "__notes__", ()) else done
        left = msgspec.structs.replace(sandbox, attachments=sandbox.attachments[:begun])
        failed = self.stop(left)
        if failed is None:
            return Failure(error, None)
        error.details = "; ".join(part for part in (error.details, f"undo: {failed}") if part)
        return Failure(error, left)

    def stop(self, sandbox: Sandbox) -> CniError | None:
        """DEL of every attachment, the last made first, then the namespace goes. Goes on past errors; idempotent."""
        errors: list[CniError] = []
        for attached in reversed(sandbox.attachments):
            try:
                network = conflists.parse(attached.conflist.encode())
                chaining.delete(
                    network,
                    _attachment(sandbox, attached),
                    self._shells,
                    cache=self._cache,
                    capability_args=attached.capability_args,
                )
            except CniError as error:
                errors.append(error)
        try:
            self._shells.host.delete_namespace(sandbox.netns_path)
        except CniError as error:
            errors.append(error)
        return SeveralErrors(errors) if len(errors) > 1 else next(iter(errors), None)

    def _add(self, sandbox: Sandbox, attached: Attached) -> Attached:
        network = conflists.parse(attached.conflist.encode())
        result = chaining.add(
            network,
            _attachment(sandbox, attached),
            self._shells,
            cache=self._cache,
            capability_args=attached.capability_args,
        )
        return msgspec.structs.replace(
            attached,
            addresses=tuple(str(ip.address) for ip in result.ips),
            mac=_mac_of(result, attached.ifname, sandbox.netns_path),
        )

    def _delegate(
        self,
        index: int,
        selection: NetworkSelection,
        known: Mapping[tuple[str, str], Network],
        args: Mapping[str, str],
    ) -> Delegate:
        """Number 0 would be the pod's default network, which the lab has none of."""
        network = known.get((selection.namespace, selection.name))
        if network is None:
            raise InvalidNetConf(
                f'find network "{selection.namespace}/{selection.name}": the lab has no such '
                "NetworkAttachmentDefinition",
                f"it has {_listed(known)}",
            )
        resolved = ResolvedNetwork(
            name=str(network),
            network=conflists.parse(_config(network, self._substitutes), default_name=network.name),
            selection=selection,
        )
        return requests.delegate_of(resolved, index, container_args=args, runtime_config={}, main_ifname="")


def _config(network: Network, substitutes: Mapping[str, str]) -> Mapping[str, Any]:
    config = documents.decode_object(network.config.encode(), f'spec.config of network "{network}"')
    return building.substituted(config, substitutes)


def _attached(delegate: Delegate) -> Attached:
    return Attached(
        network=delegate.name,
        ifname=delegate.ifname,
        conflist=delegate.network.raw.decode(),
        args=delegate.args,
        capability_args=delegate.capability_args,
    )


def _attachment(sandbox: Sandbox, attached: Attached) -> Attachment:
    return Attachment(
        container_id=sandbox.container_id,
        ifname=attached.ifname,
        netns_path=sandbox.netns_path,
        args=attached.args,
        path=PLUGIN_PATH,
    )


def _cni_args(pod: PodObject, container_id: str) -> Mapping[str, str]:
    """What container runtimes pass in CNI_ARGS."""
    return {
        "IgnoreUnknown": "1",
        "K8S_POD_NAMESPACE": pod.ref.namespace,
        "K8S_POD_NAME": pod.ref.name,
        "K8S_POD_INFRA_CONTAINER_ID": container_id,
        "K8S_POD_UID": pod.uid,
    }


def _mac_of(result: Result, ifname: str, netns_path: str) -> str | None:
    return next((i.mac for i in result.interfaces if i.name == ifname and i.sandbox == netns_path), None)


def _listed(known: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"{namespace}/{name}" for namespace, name in sorted(known)) or "none"
