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

from homeport.model.errors import CniError
from homeport.plugins import registry
from homeport.ports import AllocationStore, Clock, Cluster, Exec, FileAllocations, Shells
from homeport.runtime.delegating import DEFAULT_TIMEOUT_SECONDS, PluginDelegates

if TYPE_CHECKING:
    from homeport.host.kernel import Kernel
    from homeport.kube.client import KubernetesClient
    from homeport.metaplugin.plugin import MetaPlugin

NODE_MODULES = (
    "homeport.devices.checkpoints",
    "homeport.devices.podresources",
    "homeport.kube.client",
    "homeport.metaplugin.plugin",
)
DEFAULT_STORE = "/var/lib/cni/homeport/allocations.db"


def build_shells(
    *,
    netns: str | None = None,
    node: str = "",
    cluster: Cluster | None = None,
    store: str = "",
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
    allocations where a configuration names none, from HOMEPORT_STORE; `exec_types`, plugin types to execute from
    CNI_PATH although they are built in, from HOMEPORT_EXEC (joined by commas). `disk` is a directory that stands for
    the simulated node's own file system: host-local's directories are below it. `root` is where executed plugins find
    theirs (chroot). Copies of the shells with another field still give their delegates the original: pass
    everything here.
    """
    from homeport.host.clocks import SystemClock
    from homeport.host.files import LocalFiles
    from homeport.host.kernel import Kernel
    from homeport.host.probing import ArpProbe

    default_store = store or environ.get("HOMEPORT_STORE") or DEFAULT_STORE
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
        open_allocations=lambda path: _open_allocations(path or default_store),
        open_file_allocations=lambda data_dir, network: _open_file_allocations(disk, data_dir, network),
        cluster=cluster,
        node=node or environ.get("NODENAME") or os.uname().nodename,
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
    """What a node's daemon serves with. `kubernetes` is None where no API server is configured."""

    shells: Shells
    host: Kernel
    meta: MetaPlugin
    kubernetes: KubernetesClient | None

    def close(self) -> None:
        """Ends the watches and the helper process; no call may be under way."""
        if self.kubernetes is not None:
            self.kubernetes.close()
        self.host.close()


def build_node(
    daemon_config: Mapping[str, Any],
    *,
    node: str,
    state_dir: Path,
    kubeconfig: str | None = None,
    store: str = "",
    exec_types: Collection[str] = (),
    root: str = "",
    environ: Mapping[str, str] = os.environ,
) -> Node:
    """The meta-plugin on this machine as the node `node`, already watching the API server.

    That is the one of `kubeconfig`, else the one whose pod this process is, else there is none. For the rest see
    `build_shells` and `MetaPlugin`.
    """
    from homeport.devices.kubelet import KubeletDevices
    from homeport.host.files import LocalFiles
    from homeport.kube import configs
    from homeport.kube.client import KubernetesClient
    from homeport.metaplugin.plugin import MetaPlugin

    api = configs.load(kubeconfig, environ, LocalFiles())
    kubernetes = KubernetesClient(api, node=node, on_trouble=_tell_trouble) if api is not None else None
    shells = build_shells(node=node, cluster=kubernetes, store=store, exec_types=exec_types, environ=environ, root=root)
    meta = MetaPlugin(
        shells, kubernetes=kubernetes, devices=KubeletDevices(), daemon_config=daemon_config, state_dir=state_dir
    )
    if kubernetes is not None:
        kubernetes.recall = meta.recall
        kubernetes.on_pod_gone(meta.forget_pod)
        kubernetes.start()
    host = cast("Kernel", shells.host)
    return Node(shells=shells, host=host, meta=meta, kubernetes=kubernetes)


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
