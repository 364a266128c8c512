"""Where the shells are built and joined. Every program starts here; nothing below knows which shell it was given.

Imports happen inside: a plugin's process loads what it uses.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec

from homeport.model.errors import CniError, InvalidNetConf
from homeport.plugins import registry
from homeport.ports import AllocationStore, Attach, Clock, Cluster, Exec, FileAllocations, Shells, ignore
from homeport.runtime.delegating import DEFAULT_TIMEOUT_SECONDS, PluginDelegates

if TYPE_CHECKING:
    from homeport.host.kernel import Kernel
    from homeport.kube.client import KubernetesClient
    from homeport.kube.sending import Observe
    from homeport.metaplugin.plugin import MetaPlugin
    from homeport.stores.claims import HeldClaim
    from homeport.stores.nodes import NodeStore

NODE_MODULES = (
    "homeport.devices.checkpoints",
    "homeport.devices.podresources",
    "homeport.kube.client",
    "homeport.metaplugin.plugin",
    "homeport.stores.coexisting",
    "homeport.stores.kubernetes.store",
    "homeport.stores.nodes",
)
IN_CLUSTER = "kubernetes"  # in place of a file's path
DEFAULT_STORE = "/var/lib/cni/homeport/allocations.db"


def build_shells(
    *,
    netns: str | None = None,
    node: str = "",
    cluster: Cluster | None = None,
    store: str = "",
    allocations: AllocationStore | None = None,
    on_attach: Callable[[Attach], None] = ignore,
    clock: Clock | None = None,
    disk: str = "",
    exec_types: Collection[str] = (),
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
    environ: Mapping[str, str] = os.environ,
    short_lived: bool = False,
    interrupt_fd: int | None = None,
    root: str = "",
) -> Shells:
    """Shells for this machine, or for one simulated node of it whose network namespace is `netns`.

    What is not given comes from the environment: `node` from NODENAME, else the host name; `store`, the file of
    allocations where a configuration names none, from HOMEPORT_STORE, unless `allocations` stand for it; `exec_types`,
    plugin types to execute from CNI_PATH although they are built in, from HOMEPORT_EXEC (joined by commas). `disk` is a
    directory that stands for the simulated node's own file system: host-local's directories are below it. `root` is
    where executed plugins find theirs (chroot). Copies of the shells with another field still give their delegates the
    original: pass everything here.
    """
    from homeport.host.clocks import SystemClock
    from homeport.host.files import LocalFiles
    from homeport.host.kernel import Kernel
    from homeport.host.probing import ArpProbe

    default_store = store or environ.get("HOMEPORT_STORE") or DEFAULT_STORE

    def open_allocations(path: str | None) -> AllocationStore:
        return allocations if allocations is not None and not path else _open_allocations(path or default_store)

    host = Kernel(netns, short_lived=short_lived)
    delegates = build_delegates(
        lambda: shells,
        netns=netns,
        exec_types=exec_types,
        timeout_seconds=timeout_seconds,
        environ=environ,
        interrupt_fd=interrupt_fd,
        root=root,
    )
    shells = Shells(
        host=host,
        probe=ArpProbe(host),
        clock=clock or SystemClock(),
        files=LocalFiles(),
        delegates=delegates,
        open_allocations=open_allocations,
        open_file_allocations=lambda data_dir, network: _open_file_allocations(disk, data_dir, network),
        cluster=cluster,
        node=node or environ.get("NODENAME") or os.uname().nodename,
        on_attach=on_attach,
    )
    return shells


def build_delegates(
    shells: Callable[[], Shells],
    *,
    netns: str | None = None,
    exec_types: Collection[str] = (),
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
    environ: Mapping[str, str] = os.environ,
    interrupt_fd: int | None = None,
    root: str = "",
) -> PluginDelegates:
    """The plugins, ours with `shells` and foreign ones in the namespace `netns`; see `build_shells`."""
    return PluginDelegates(
        find=registry.find,
        shells=shells,
        open_executor=lambda: _open_executor(interrupt_fd, root),
        environ=environ,
        netns=netns,
        exec_types=exec_types or tuple(name for name in environ.get("HOMEPORT_EXEC", "").split(",") if name),
        timeout_seconds=timeout_seconds,
        on_stderr=_forward,
        link_kinds=registry.LINK_KINDS,
    )


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """What a node's daemon serves with. `kubernetes` is None where no API server is configured, `allocations` where the
    allocations are in a file.
    """

    shells: Shells
    host: Kernel
    meta: MetaPlugin
    kubernetes: KubernetesClient | None
    allocations: NodeStore | None

    def close(self) -> None:
        """Ends the watches and the helper process; no call may be under way."""
        if self.kubernetes is not None:
            self.kubernetes.close()
        if self.allocations is not None:
            self.allocations.claims.close()
        self.host.close()


def build_node(
    daemon_config: Mapping[str, Any],
    *,
    node: str,
    state_dir: Path,
    kubeconfig: str | None = None,
    store: str = "",
    whereabouts_namespace: str = "",
    exec_types: Collection[str] = (),
    root: str = "",
    environ: Mapping[str, str] = os.environ,
    on_attach: Callable[[Attach], None] = ignore,
    observe: Observe | None = None,
) -> Node:
    """The meta-plugin on this machine as the node `node`, already watching the API server.

    That is the one of `kubeconfig`, else the one whose pod this process is, else there is none. Allocations are its
    objects, unless `store` (or HOMEPORT_STORE) names a file; without an API server they are always in a file. With
    `whereabouts_namespace` every claim is also made where Whereabouts of other nodes sees it. For the rest see
    `build_shells`, `MetaPlugin` and `KubernetesClient`.
    """
    from homeport.devices.kubelet import KubeletDevices
    from homeport.host.files import LocalFiles
    from homeport.kube import configs
    from homeport.kube.client import KubernetesClient
    from homeport.metaplugin.plugin import MetaPlugin

    api = configs.load(kubeconfig, environ, LocalFiles())
    kubernetes = None
    if api is not None:
        kubernetes = KubernetesClient(api, node=node, observe=observe, on_trouble=_tell_trouble)
    file = store or environ.get("HOMEPORT_STORE", "")
    allocations = None
    if file in ("", IN_CLUSTER) and kubernetes is not None:
        allocations = _open_node_store(kubernetes, node, state_dir, whereabouts_namespace)
    else:
        _require_no_cluster(file, whereabouts_namespace)

    def attached(attach: Attach) -> None:
        if allocations is not None and attach.link is not None:
            allocations.claims.note_link(attach.slot.network, attach.link)
        on_attach(attach)

    shells = build_shells(
        node=node,
        cluster=kubernetes,
        store=file,
        allocations=allocations,
        on_attach=attached,
        exec_types=exec_types,
        environ=environ,
        root=root,
    )
    meta = MetaPlugin(
        shells, kubernetes=kubernetes, devices=KubeletDevices(), daemon_config=daemon_config, state_dir=state_dir
    )
    if kubernetes is not None:
        kubernetes.recall = meta.recall
        kubernetes.on_pod_gone(meta.forget_pod)
        kubernetes.start()
    host = cast("Kernel", shells.host)
    return Node(shells=shells, host=host, meta=meta, kubernetes=kubernetes, allocations=allocations)


def _require_no_cluster(file: str, whereabouts_namespace: str) -> None:
    """Of settings that keep allocations in a file."""
    if file == IN_CLUSTER:
        raise InvalidNetConf(f'key "store": found "{IN_CLUSTER}", expected a kubeconfig, or to run in a pod')
    if whereabouts_namespace:
        raise InvalidNetConf(
            f'key "whereaboutsNamespace": found "{whereabouts_namespace}" with allocations in a file, expected them in '
            "the cluster"
        )


def _open_node_store(kubernetes: KubernetesClient, node: str, state_dir: Path, whereabouts: str) -> NodeStore:
    """The cluster's allocations as this node uses them; its claims are kept in `state_dir`."""
    from homeport.stores.claims import Claims
    from homeport.stores.coexisting import CoexistingStore
    from homeport.stores.kubernetes.store import KubernetesStore
    from homeport.stores.nodes import NodeStore

    store = KubernetesStore(kubernetes.objects)
    claims = Claims(state_dir / "claims.db")
    store.start()
    if not whereabouts:
        return NodeStore(store, claims, node=node, on_trouble=_tell_claim_trouble)
    remote = CoexistingStore(store, kubernetes.objects, whereabouts)
    return NodeStore(remote, claims, node=node, on_trouble=_tell_claim_trouble, confirm=remote.confirm)


class ClusterStore(msgspec.Struct, frozen=True, kw_only=True):
    """A cluster's allocations, and the cluster, as a command sees them: every question is asked live."""

    place: str
    store: AllocationStore
    kubernetes: KubernetesClient


@contextmanager
def open_cluster_store(
    kubeconfig: str | None, *, environ: Mapping[str, str] = os.environ
) -> Iterator[ClusterStore | None]:
    """The cluster of `kubeconfig`, else the one whose pod this process is; None where there is neither."""
    from homeport.host.files import LocalFiles
    from homeport.kube import configs
    from homeport.kube.client import KubernetesClient
    from homeport.stores.kubernetes.store import KubernetesStore

    api = configs.load(kubeconfig, environ, LocalFiles())
    if api is None:
        yield None
        return
    kubernetes = KubernetesClient(api, node="")
    try:
        yield ClusterStore(place=api.place, store=KubernetesStore(kubernetes.objects), kubernetes=kubernetes)
    finally:
        kubernetes.close()


def _tell_trouble(error: CniError) -> None:
    """What goes wrong between node and API server while nobody waits for it."""
    import structlog

    structlog.get_logger("homeport.kube").warning("trouble with the API server", error=str(error))


def _tell_claim_trouble(claim: HeldClaim, reason: str) -> None:
    """What goes wrong with what is told of a claim in the background."""
    import structlog

    structlog.get_logger("homeport.claims").warning(
        "the API server is not told yet",
        address=str(claim.allocation.address),
        owner=str(claim.allocation.slot.owner),
        state=claim.state.value,
        reason=reason,
    )


def _open_executor(interrupt_fd: int | None, root: str) -> Exec:
    from homeport.runtime.executing import Executor

    return Executor(interrupt_fd, root=root)


@cache
def _open_allocations(path: str) -> AllocationStore:
    from homeport.stores.sqlite import SqliteStore

    return SqliteStore(path)


def _open_file_allocations(disk: str, data_dir: str, network: str) -> FileAllocations:
    from homeport.stores.disk import DEFAULT_DATA_DIR, DiskAllocations

    return DiskAllocations(disk + (data_dir or DEFAULT_DATA_DIR), network)


def _forward(stderr: bytes) -> None:
    """What a foreign plugin logs goes where our own logs go (CNI SPEC 1.1.0 §2)."""
    sys.stderr.buffer.write(stderr)
    sys.stderr.flush()


@cache
def prepare_for_threads(*modules: str) -> None:
    """To be called before plugins run in several threads at once; `modules` are what else those threads use.

    msgspec works out what a Struct looks like when it is first decoded into, and two threads that are first at once
    crash the interpreter (seen with 0.22). So all of ours are worked out here, by one thread.
    """
    import homeport.stores.disk
    import homeport.stores.sqlite  # noqa: F401 -- for the types they define

    for module in (*registry.MODULES.values(), *modules):
        import_module(module)
    waiting: list[type[msgspec.Struct]] = [msgspec.Struct]
    while waiting:
        known = waiting.pop()
        waiting += known.__subclasses__()
        with suppress(TypeError, NameError):  # what cannot be decoded into at all
            msgspec.json.Decoder(known)
