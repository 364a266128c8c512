"""The meta-plugin: a pod's default network and all it selects, as one CNI plugin. I/O: through the ports it is given.

Multus's configuration, files and annotations; CNI SPEC 1.1.0. Calls of different containers may run at the same time,
those of one container must come one after the other.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import structlog

from homeport.cni import netconfs, versions
from homeport.cni.invocations import Attachment, Invocation
from homeport.ipam.objects import Pod
from homeport.metaplugin import adding, checking, collecting, deleting, hotplugging, readiness
from homeport.metaplugin.contexts import Context
from homeport.metaplugin.deleting import Deferred as Deferred
from homeport.metaplugin.device_info import DeviceInfos
from homeport.metaplugin.records import PodRecords
from homeport.metaplugin.scratch_files import ScratchFiles
from homeport.model.errors import CniError, InvalidNetConf, InvalidNetns, TryAgainLater
from homeport.model.names import PodRef
from homeport.model.results import Result
from homeport.multinet import settings as settings_of
from homeport.multinet import statuses
from homeport.ports import Devices, Kubernetes, Shells
from homeport.runtime.caching import ResultCache

_NONE: Mapping[str, Any] = {}

log = structlog.get_logger()


class MetaPlugin:
    """One node's. `daemon_config` goes before the same keys of every request; `state_dir` is where pods' records are.

    `root` is where the node's file system begins, for device information.
    """

    def __init__(
        self,
        shells: Shells,
        *,
        kubernetes: Kubernetes | None,
        devices: Devices | None,
        daemon_config: Mapping[str, Any] = _NONE,
        state_dir: Path,
        root: str = "",
    ) -> None:
        self._shells = shells
        self._kubernetes = kubernetes
        self._devices = devices
        self._daemon_config = daemon_config
        self._records = PodRecords(state_dir)
        self._device_infos = DeviceInfos(root)
        self._stopping = threading.Event()

    # --- the verbs of CNI ---------------------------------------------------------------------------------------

    def add(self, conf: Mapping[str, Any], invocation: Invocation) -> Result:
        """Attaches the pod to all its networks; the result is the default network's. All or none."""
        self._require_other_namespace(invocation)
        context = self._context(conf, invocation.attachment)
        indicator = context.settings.readiness_indicator_file
        if indicator:
            readiness.await_indicator(indicator, self._shells.clock, self._stopping.wait)
        return adding.add(context)

    def delete(self, conf: Mapping[str, Any], invocation: Invocation) -> None:
        """Detaches it from whatever it was attached to. Raises `Deferred` when that must be done later."""
        self._require_other_namespace(invocation)
        deleting.delete(self._context(conf, invocation.attachment))

    def check(self, conf: Mapping[str, Any], invocation: Invocation) -> None:
        """Raises `Drift` when any attachment is not as ADD left it."""
        netconfs.parse(conf, command="CHECK")
        checking.check(self._context(conf, invocation.attachment))

    def gc(self, conf: Mapping[str, Any], invocation: Invocation) -> None:
        """Takes down what containers left behind that are not among the configuration's valid attachments."""
        valid = netconfs.parse(conf, command="GC").valid_attachments
        if valid is None:
            raise InvalidNetConf(f'key "{netconfs.VALID_ATTACHMENTS}": missing, expected a list')
        collecting.collect(self._context(conf, invocation.attachment), valid)

    def status(self, conf: Mapping[str, Any], invocation: Invocation) -> None:
        """Whether an ADD could be served now; raises `PluginNotAvailable`."""
        netconfs.parse(conf, command="STATUS")
        checking.status(self._context(conf, invocation.attachment))

    # --- one network more for a pod that runs --------------------------------------------------------------------

    def delegate_add(
        self, conf: Mapping[str, Any], invocation: Invocation, attributes: Mapping[str, Any] = _NONE
    ) -> Result:
        """Attaches the container to the network `conf`; `attributes` may have `ips`, `mac` and `cni-args`.

        Nothing is written down but the result, which the pod's DEL goes by if no `delegate_delete` came.
        """
        self._require_other_namespace(invocation)
        return hotplugging.add(self._delegate_context(conf, invocation.attachment), conf, attributes)

    def delegate_delete(
        self, conf: Mapping[str, Any], invocation: Invocation, attributes: Mapping[str, Any] = _NONE
    ) -> None:
        """Idempotent."""
        self._require_other_namespace(invocation)
        hotplugging.delete(self._delegate_context(conf, invocation.attachment), conf, attributes)

    def delegate_check(
        self, conf: Mapping[str, Any], invocation: Invocation, attributes: Mapping[str, Any] = _NONE
    ) -> None:
        """Raises `Drift`."""
        hotplugging.check(self._delegate_context(conf, invocation.attachment), conf, attributes)

    def delegate_status(self, conf: Mapping[str, Any], invocation: Invocation) -> None:
        """Raises `PluginNotAvailable`."""
        hotplugging.status(self._delegate_context(conf, invocation.attachment), conf)

    # --- pods' records -------------------------------------------------------------------------------------------

    def deliver_pending(self) -> int:
        """Writes statuses that the API server was away for; how many it did not take yet."""
        pending = self._records.undelivered()
        for n, record in enumerate(pending):
            if self._kubernetes is None:
                break
            try:
                self._kubernetes.write_annotations(record.pod.ref, record.pod.uid, {statuses.ANNOTATION: record.status})
                self._records.mark_delivered(record)
            except TryAgainLater:
                return len(pending) - n
            except CniError as error:
                log.error("network status is not delivered", pod=str(record.pod.ref), reason=str(error))
        return 0

    def forget_pod(self, ref: PodRef, uid: str) -> None:
        """Of a pod that is proven gone (docs/identity.md R12)."""
        self._records.forget(uid)
        log.info("pod is gone", pod=str(ref), uid=uid)

    def forget_gone_pods(self) -> None:
        """Those that went away while nobody watched them, as far as the API server says so now."""
        if self._kubernetes is None:
            return
        for record in self._records.all():
            try:
                pod = self._kubernetes.pod(record.pod.ref)
            except TryAgainLater:
                return
            if pod is None or pod.uid != record.pod.uid:
                self.forget_pod(record.pod.ref, record.uid)

    def recall(self, ref: PodRef) -> Pod | None:
        """The pod as it was when it was last added here; None when none of this name was, or it is proven gone."""
        record = self._records.recall(ref)
        return record.pod if record is not None else None

    def results(self) -> ResultCache:
        """Of every attachment, unless a request's own configuration has put its result elsewhere."""
        return ResultCache(settings_of.cni_dir(self._daemon_config))

    def close(self) -> None:
        """Lets every ADD that waits for readiness fail at once."""
        self._stopping.set()

    def _context(self, conf: Mapping[str, Any], attachment: Attachment) -> Context:
        settings = settings_of.parse(settings_of.overlaid(conf, self._daemon_config))
        for warning in settings.warnings:
            log.warning(warning)
        path = (settings.bin_dir, *(directory for directory in attachment.path if directory != settings.bin_dir))
        delegates = self._shells.delegates
        if settings.exec_types:
            delegates = delegates.adapted(exec_types=settings.exec_types)
        return Context(
            settings=settings,
            runtime=msgspec.structs.replace(attachment, path=path),
            shells=msgspec.structs.replace(self._shells, delegates=delegates),
            kubernetes=self._kubernetes,
            devices=self._devices,
            records=self._records,
            scratch=ScratchFiles(settings.cni_dir),
            cache=ResultCache(settings.cni_dir),
            device_infos=self._device_infos,
            stopped=self._stopping.wait,
        )

    def _delegate_context(self, conf: Mapping[str, Any], attachment: Attachment) -> Context:
        """As if the network were the only one of a configuration of ours."""
        own = {"cniVersion": versions.CURRENT, "name": "delegate", "type": "homeport", "delegates": [conf]}
        return self._context(own, attachment)

    def _require_other_namespace(self, invocation: Invocation) -> None:
        netns = invocation.attachment.netns_path
        if netns and not invocation.netns_override and self._shells.host.is_own_namespace(netns):
            raise InvalidNetns(f"CNI_NETNS: found the node's own network namespace {netns}, expected a container's")
