"""A node's container runtime, as far as CNI sees it: a namespace for a pod, and the node's network in it.

I/O: `ip`, files, plugins as processes in the node's namespace. Calls, variables and their order are containerd's; the
chain is run by Homeport's own `runtime`. What was made is on disk, where another `Runtime` finds it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import msgspec

from homeport.cni.conflists import ConfList
from homeport.cni.invocations import Attachment
from homeport.host.clocks import SystemClock
from homeport.host.files import LocalFiles
from homeport.model.errors import CniError, PluginNotAvailable
from homeport.model.names import AttachmentKey
from homeport.ports import Host, Probe, Shells
from homeport.runtime import chaining, networks
from homeport.runtime.caching import ResultCache
from homeport.runtime.delegating import PluginDelegates
from homeport.runtime.executing import Executor
from testcluster.machines import Machine, delete_namespace, ip, kill_all, path_of

IFNAME = "eth0"
_SUFFIXES = (".conf", ".conflist", ".json")


class Sandbox(msgspec.Struct, frozen=True, kw_only=True):
    """A pod's namespace. `netns` is its name; `addresses` are the default network's, without prefix.

    `ready` once ADD succeeded.
    """

    container_id: str
    pod_uid: str
    namespace: str
    name: str
    netns: str
    addresses: tuple[str, ...] = ()
    capability_args: Mapping[str, Any] = {}
    ready: bool = False

    @property
    def path(self) -> str:
        return path_of(self.netns)

    @property
    def exists(self) -> bool:
        return os.path.exists(self.path)


@dataclass(frozen=True)
class Call:
    """One verb on a whole chain: how long it took, and what came of it (None: success)."""

    verb: str
    container_id: str
    seconds: float
    error: CniError | None


class Runtime:
    """`folder` is this node's disk: results, records, logs. `environ` is what plugins inherit besides CNI variables.

    For any number of threads. `calls` grows with each verb.
    """

    def __init__(
        self,
        machine: Machine,
        folder: Path,
        *,
        conf_dir: Path,
        bin_dirs: Sequence[str | Path],
        environ: Mapping[str, str] | None = None,
        timeout_seconds: float = 120.0,
    ) -> None:
        self.calls: list[Call] = []
        self.conf_dir = conf_dir
        self._machine = machine
        self._bin_dirs = tuple(str(directory) for directory in bin_dirs)
        self._cache = ResultCache(str(folder / "results"))
        self._records = folder / "sandboxes"
        self._records.mkdir(parents=True, exist_ok=True)
        read = [msgspec.json.decode(path.read_bytes(), type=Sandbox) for path in self._records.glob("*.json")]
        self._recorded = {sandbox.container_id: sandbox for sandbox in read}
        self._log = folder / "plugins.log"
        self._log_lock = threading.Lock()
        self._shells = _shells(
            PluginDelegates(
                find=lambda _: None,  # every plugin is a program, ours too
                shells=lambda: self._shells,
                open_executor=Executor,
                environ=environ if environ is not None else {"PATH": os.environ["PATH"]},
                netns=machine.path,
                timeout_seconds=timeout_seconds,
                on_stderr=self._write_log,
            )
        )

    # --- sandboxes -------------------------------------------------------------------------------------------------

    def sandboxes(self) -> list[Sandbox]:
        """Those that were made and not yet removed, also by an earlier `Runtime` of this folder."""
        return list(self._recorded.values())

    def run_sandbox(self, pod: Mapping[str, Any]) -> Sandbox:
        """A new container with the node's network. After a `CniError` it is gone, or in `sandboxes` and not `ready`."""
        metadata = pod["metadata"]
        container_id = secrets.token_hex(32)
        sandbox = Sandbox(
            container_id=container_id,
            pod_uid=metadata["uid"],
            namespace=metadata["namespace"],
            name=metadata["name"],
            netns=f"{self._machine.netns}-{container_id[:12]}",
            capability_args=_capability_args(pod),
        )
        network = self.network()
        self._record(sandbox)
        ip(f"netns add {sandbox.netns}")
        ip("link set lo up", netns=sandbox.netns)
        try:
            with self._timed("ADD", sandbox):
                result = chaining.add(
                    network,
                    self._attachment(sandbox),
                    self._shells,
                    cache=self._cache,
                    capability_args=sandbox.capability_args,
                )
        except CniError as error:
            with contextlib.suppress(CniError):  # it stays on record, and is removed later
                self.stop_sandbox(sandbox)
            raise error
        addresses = tuple(str(config.address.ip) for config in result.ips)
        sandbox = msgspec.structs.replace(sandbox, addresses=addresses, ready=True)
        self._record(sandbox)
        return sandbox

    def stop_sandbox(self, sandbox: Sandbox) -> None:
        """DEL, then the namespace goes. May be repeated; a `CniError` leaves all that is not done for the next time.

        A container whose namespace is gone is deleted with an empty CNI_NETNS, as after a reboot.
        """
        with self._timed("DEL", sandbox):
            chaining.delete(
                self.network(),
                self._attachment(sandbox),
                self._shells,
                cache=self._cache,
                capability_args=sandbox.capability_args,
            )
        _take_down(sandbox)
        self._record_of(sandbox).unlink(missing_ok=True)
        self._recorded.pop(sandbox.container_id, None)

    def check(self, sandbox: Sandbox) -> None:
        """CHECK; raises `CniError` on drift."""
        with self._timed("CHECK", sandbox):
            chaining.check(
                self.network(),
                self._attachment(sandbox),
                self._shells,
                cache=self._cache,
                capability_args=sandbox.capability_args,
            )

    def gc(self, living: Iterable[Sandbox]) -> None:
        """GC with these containers as the valid ones."""
        network = self.network()
        valid = [AttachmentKey(network.name, sandbox.container_id, IFNAME) for sandbox in living]
        chaining.gc(network, valid, self._shells, cache=self._cache, path=self._bin_dirs)

    def status(self) -> None:
        """STATUS; raises `PluginNotAvailable` also when the node has no configuration yet."""
        chaining.status(self.network(), self._shells, path=self._bin_dirs)

    def network(self) -> ConfList:
        """The first configuration of the directory by file name that can be read, as it is now."""
        names = sorted(os.listdir(self.conf_dir)) if self.conf_dir.is_dir() else []
        reason = "it has no file *.conf, *.conflist or *.json"
        for name in names:
            if not name.endswith(_SUFFIXES):
                continue
            try:
                return networks.load_file(self._shells.files, str(self.conf_dir / name))
            except CniError as error:
                reason = str(error)
        raise PluginNotAvailable(f"no network configuration in {self.conf_dir}: {reason}")

    def lose_all(self) -> None:
        """What a power cut does: namespaces and processes are gone, files stay."""
        for sandbox in self.sandboxes():
            _take_down(sandbox)

    def _attachment(self, sandbox: Sandbox) -> Attachment:
        return Attachment(
            container_id=sandbox.container_id,
            ifname=IFNAME,
            netns_path=sandbox.path if sandbox.exists else None,
            args={
                "IgnoreUnknown": "1",
                "K8S_POD_NAMESPACE": sandbox.namespace,
                "K8S_POD_NAME": sandbox.name,
                "K8S_POD_INFRA_CONTAINER_ID": sandbox.container_id,
                "K8S_POD_UID": sandbox.pod_uid,
            },
            path=self._bin_dirs,
        )

    @contextlib.contextmanager
    def _timed(self, verb: str, sandbox: Sandbox) -> Iterator[None]:
        started = time.perf_counter()
        failure: CniError | None = None
        try:
            yield
        except CniError as error:
            failure = error
            raise
        finally:
            self.calls.append(Call(verb, sandbox.container_id, time.perf_counter() - started, failure))

    def _record(self, sandbox: Sandbox) -> None:
        path = self._record_of(sandbox)
        new = path.with_suffix(".new")
        new.write_bytes(msgspec.json.encode(sandbox))
        new.rename(path)
        self._recorded[sandbox.container_id] = sandbox

    def _record_of(self, sandbox: Sandbox) -> Path:
        return self._records / f"{sandbox.container_id}.json"

    def _write_log(self, stderr: bytes) -> None:
        with self._log_lock, self._log.open("ab") as log:
            log.write(stderr)


def _take_down(sandbox: Sandbox) -> None:
    """The namespace and every process in it; idempotent."""
    if sandbox.exists:
        kill_all(os.stat(sandbox.path).st_ino)
        delete_namespace(sandbox.netns)


class _NewNamespaces:
    """The little of `ports.Host` that running a chain of foreign plugins asks for."""

    def operation(self, *, undo_on_error: bool) -> contextlib.AbstractContextManager[None]:
        assert not undo_on_error
        return contextlib.nullcontext()

    def link(self, name: str, netns: str | None = None) -> None:
        """A sandbox has just been made when it is asked about: nothing is in it."""


def _shells(delegates: PluginDelegates) -> Shells:
    return Shells(
        host=cast(Host, _NewNamespaces()),
        probe=cast(Probe, None),
        clock=SystemClock(),
        files=LocalFiles(),
        delegates=delegates,
        open_allocations=_unused,
        open_file_allocations=_unused,
    )


def _unused(*_: object) -> Any:
    raise AssertionError("only plugins of ours run in this process open stores")


def _capability_args(pod: Mapping[str, Any]) -> dict[str, Any]:
    """What containerd offers to plugins that have the capability."""
    ports = [
        {
            "hostPort": port["hostPort"],
            "containerPort": port["containerPort"],
            "protocol": port.get("protocol", "TCP").lower(),
            "hostIP": port.get("hostIP", ""),
        }
        for container in pod["spec"]["containers"]
        for port in container.get("ports", ())
        if port.get("hostPort")
    ]
    return {"portMappings": ports} if ports else {}
