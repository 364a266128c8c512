"""What one call of the runtime works with. Values only; no I/O."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from homeport.cni.invocations import Attachment
from homeport.metaplugin.device_info import DeviceInfos
from homeport.metaplugin.records import PodRecord, PodRecords, RecordedCluster
from homeport.metaplugin.scratch_files import ScratchFiles
from homeport.model.names import AttachmentKey, PodRef
from homeport.multinet.delegates import Delegate
from homeport.multinet.settings import Settings
from homeport.ports import Devices, Kubernetes, Shells
from homeport.runtime.caching import ResultCache
from homeport.runtime.chaining import Attached


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """`runtime` is the attachment the runtime asks for: the container with its main interface.

    Its path begins with `binDir`. `shells` are the node's with this request's `execTypes`. `stopped(seconds)` waits,
    and is true when the program is ending.
    """

    settings: Settings
    runtime: Attachment
    shells: Shells
    kubernetes: Kubernetes | None
    devices: Devices | None
    records: PodRecords
    scratch: ScratchFiles
    cache: ResultCache
    device_infos: DeviceInfos
    stopped: Callable[[float], bool]

    @property
    def pod_ref(self) -> PodRef | None:
        """The pod that CNI_ARGS name."""
        args = self.runtime.args
        namespace, name = args.get("K8S_POD_NAMESPACE", ""), args.get("K8S_POD_NAME", "")
        return PodRef(namespace, name) if namespace and name else None

    @property
    def pod_uid(self) -> str:
        """Its UID as the kubelet knows it, "" when it is not given."""
        return self.runtime.args.get("K8S_POD_UID", "")

    def attached(self, delegate: Delegate) -> Attached:
        """The delegate's attachment to the runtime's container."""
        attachment = msgspec.structs.replace(self.runtime, ifname=delegate.ifname, args=delegate.args)
        return Attached(network=delegate.network, attachment=attachment, capability_args=delegate.capability_args)

    def key(self, delegate: Delegate) -> AttachmentKey:
        """What the delegate's result is cached under."""
        return AttachmentKey(delegate.network.name, self.runtime.container_id, delegate.ifname)

    def with_record(self, record: PodRecord | None) -> tuple[Shells, RecordedCluster | None]:
        """Shells whose plugins learn of the pod from its record while the API server is away."""
        if self.shells.cluster is None:
            return self.shells, None
        cluster = RecordedCluster(self.shells.cluster, record)
        delegates = self.shells.delegates.adapted(cluster=cluster)
        return msgspec.structs.replace(self.shells, delegates=delegates, cluster=cluster), cluster
