"""ADD of a pod: every network it is to have, or none. I/O: through the context's shells.

CNI SPEC 1.1.0 §2 "ADD". What was decided is written down before anything is made, so that a DEL finds it whatever
happens in between; a failure takes back all that was made (docs/identity.md R6).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv4Interface

import msgspec
import structlog

from homeport.cni import versions
from homeport.ipam.objects import Pod
from homeport.metaplugin import attaching, default_routing, resolving
from homeport.metaplugin.contexts import Context
from homeport.metaplugin.records import PodRecord
from homeport.metaplugin.resolving import Resolver
from homeport.model.errors import InvalidNetns, LinkExists, NoSuchObject, TryAgainLater, WaitingForRelease
from homeport.model.results import Interface, IPConfig, Result
from homeport.multinet import requests, scratch, statuses
from homeport.multinet.delegates import Delegate
from homeport.ports import Event, Shells
from homeport.runtime import chaining
from homeport.runtime.chaining import Attached

_CONFIG_SOURCE = "kubernetes.io/config.source"

log = structlog.get_logger()


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be attached. `record` is what the node knew of the pod before; `pod` is None outside Kubernetes."""

    pod: Pod | None
    delegates: tuple[Delegate, ...]
    record: PodRecord | None = None


def add(context: Context) -> Result:
    """The main network's result. A pod that is proven gone gets an empty one, as there is nobody to attach.

    Raises the first error, with its network named; nothing is left then but what notes of it say could not be undone,
    which stays written down for the DEL.
    """
    if not context.runtime.netns_path:
        raise InvalidNetns("ADD: network namespace missing, expected its path")
    _require_new(context)
    plan = decide(context)
    if plan is None:
        return _nobody(context)
    container_id = context.runtime.container_id
    delegates = context.device_infos.told(plan.delegates, container_id)
    context.scratch.write(container_id, delegates)
    done: list[Delegate] = []
    shells, cluster = context.with_record(plan.record)
    try:
        with shells.host.operation():
            results = [_attach(context, shells, delegate, done) for delegate in delegates]
        status = _status(context, delegates, results)
        if plan.pod is not None:
            record = PodRecord(
                uid=context.pod_uid or plan.pod.uid,
                pod=plan.pod,
                container_id=container_id,
                delegates=scratch.encode(delegates),
                status=status,
                delivered=_tell(context, plan.pod, status),
                workload=cluster.workload_seen if cluster is not None else None,
            )
            context.records.put(record)
    except BaseException as error:
        attaching.undo(context, shells, delegates, done, error)
        if isinstance(error, WaitingForRelease):
            _tell_waiting(context, plan.pod, error)
        raise
    _announce(context, plan.pod, delegates, results)
    return results[0]


def decide(context: Context) -> Plan | None:
    """What this container is to be attached to; None when its pod is proven gone.

    While the API server is away, a pod that was added here before gets what it had (docs/identity.md E20).
    """
    ref, kubernetes = context.pod_ref, context.kubernetes
    record = context.records.find(context.pod_uid) if context.pod_uid else None
    if ref is None or kubernetes is None:
        return Plan(pod=None, delegates=delegates_of(context, None))
    try:
        pod = kubernetes.pod_with_uid(ref, context.pod_uid)
        if pod is None:
            return None
        require_same(pod, context.pod_uid)
        return Plan(pod=pod, delegates=delegates_of(context, pod), record=record)
    except TryAgainLater as e:
        if record is None or record.pod.ref != ref:
            raise
        log.warning("added from the node's own record", pod=str(ref), reason=e.msg)
        return Plan(pod=record.pod, delegates=_again(context, record), record=record)


def require_same(pod: Pod, uid: str) -> None:
    """Raises `NoSuchObject` when the pod of this name is another one by now.

    A static pod's UID is the kubelet's own; the API server knows only its mirror, which has another.
    """
    if uid and pod.uid != uid and pod.annotations.get(_CONFIG_SOURCE, "api") == "api":
        raise NoSuchObject(f"look up pod {pod.ref}: found UID {pod.uid}, expected {uid}: the pod was replaced")


def _require_new(context: Context) -> None:
    """Takes down what an ADD that never came to its end left; one that did is the runtime's to take down."""
    delegates = context.scratch.read(context.runtime, context.settings.runtime_config)
    if delegates is None:
        return
    if all(context.cache.load(context.key(d)) is not None for d in delegates):
        raise LinkExists(
            f'attach container "{context.runtime.container_id}": found it attached already, expected a DEL before '
            "another ADD"
        )
    log.warning("took down an unfinished attachment", container=context.runtime.container_id)
    attaching.detach(context, context.shells, delegates)


def delegates_of(context: Context, pod: Pod | None) -> tuple[Delegate, ...]:
    """Facts, then the pure decision."""
    resolved = resolver(context, pod).of_pod(pod)
    given: Mapping[str, Sequence[str]] = {}
    if pod is not None and context.devices is not None and any(r.resource_name for r in resolved):
        given = context.devices.of_pod(pod.ref, context.pod_uid or pod.uid)
    return requests.delegates_of(
        resolved,
        container_args=_container_args(context, pod),
        runtime_config=context.settings.runtime_config,
        main_ifname=context.runtime.ifname,
        settings=context.settings,
        devices=given,
    )


def resolver(context: Context, pod: Pod | None) -> Resolver:
    """The networks of this request; what a pod lacks is told to its events."""

    def report(network: str) -> None:
        if pod is not None and context.kubernetes is not None:
            context.kubernetes.emit(resolving.not_found(pod, network))

    return Resolver(context.settings, context.shells.files, context.kubernetes, report)


def _container_args(context: Context, pod: Pod | None) -> Mapping[str, str]:
    """CNI_ARGS, with what a runtime may have left out of them."""
    known: dict[str, str] = {}
    if context.pod_ref is not None:
        known["K8S_POD_INFRA_CONTAINER_ID"] = context.runtime.container_id
    if pod is not None:
        known["K8S_POD_UID"] = pod.uid
    return {**known, **context.runtime.args}


def _again(context: Context, record: PodRecord) -> tuple[Delegate, ...]:
    """The recorded delegates, for this container."""
    args = _container_args(context, record.pod)
    container_id = args["K8S_POD_INFRA_CONTAINER_ID"]
    return tuple(
        msgspec.structs.replace(d, args={**d.args, "K8S_POD_INFRA_CONTAINER_ID": container_id})
        for d in record.decoded_delegates()
    )


def _attach(context: Context, shells: Shells, delegate: Delegate, done: list[Delegate]) -> Result:
    """One network; it is in `done` from the moment on when it has to be undone."""
    attached = context.attached(delegate)
    with attaching.named(context, delegate):
        _require_free(shells, attached)
        context.device_infos.provide(delegate, context.runtime.container_id)
        result = chaining.add(
            attached.network,
            attached.attachment,
            shells,
            cache=context.cache,
            capability_args=attached.capability_args,
        )
        done.append(delegate)
        routed = default_routing.apply(shells.host, attached.attachment.netns_path or "", delegate, result)
        if routed != result:
            _correct_cache(context, delegate, routed)
    log.info(
        "attached",
        container=attached.attachment.container_id,
        interface=delegate.ifname,
        network=delegate.name,
        addresses=[str(ip.address) for ip in routed.ips],
    )
    return routed


def _require_free(shells: Shells, attached: Attached) -> None:
    """An interface of the asked name is somebody else's, and stays as it is."""
    ifname, netns = attached.attachment.ifname, attached.attachment.netns_path
    if shells.host.link(ifname, netns) is not None:
        raise LinkExists(f'make interface "{ifname}" in {netns}: found one of that name, expected none')


def _correct_cache(context: Context, delegate: Delegate, result: Result) -> None:
    """CHECK and DEL are to know the routes there are, not those there were."""
    cached = context.cache.load(context.key(delegate))
    if cached is not None:
        encoded = versions.encode_result(result, delegate.network.cni_version)
        context.cache.save(msgspec.structs.replace(cached, result=encoded))


def _status(context: Context, delegates: Sequence[Delegate], results: Sequence[Result]) -> str:
    container_id = context.runtime.container_id
    return statuses.text(
        status
        for delegate, result in zip(delegates, results, strict=True)
        for status in statuses.of_result(
            delegate.name,
            result,
            default=delegate.main,
            device_info=context.device_infos.read(delegate, container_id),
        )
    )


def _tell(context: Context, pod: Pod, status: str) -> bool:
    """Whether the API server took it, or said that there is nobody to tell it of. Away, it gets it later."""
    if context.kubernetes is None:
        return True
    try:
        context.kubernetes.write_annotations(pod.ref, pod.uid, {statuses.ANNOTATION: status})
    except TryAgainLater as e:
        log.warning("network status is delivered later", pod=str(pod.ref), reason=e.msg)
        return False
    return True


def _announce(context: Context, pod: Pod | None, delegates: Sequence[Delegate], results: Sequence[Result]) -> None:
    """One event for the whole pod: each is a request that the API server has to take (Multus sends one a network)."""
    if pod is None or context.kubernetes is None:
        return
    added = [
        f"{delegate.ifname} [{' '.join(str(ip.address) for ip in result.ips)}] from {delegate.name}"
        for delegate, result in zip(delegates, results, strict=True)
    ]
    context.kubernetes.emit(
        Event(pod=pod.ref, pod_uid=pod.uid, reason="AddedInterface", message=f"Add {', '.join(added)}")
    )


def _tell_waiting(context: Context, pod: Pod | None, error: WaitingForRelease) -> None:
    """Why the pod does not start (docs/identity.md R8). The runtime tries again and again: that is one event."""
    if pod is not None and context.kubernetes is not None:
        context.kubernetes.emit(
            Event(pod=pod.ref, pod_uid=pod.uid, reason="WaitingForRelease", message=error.msg, warning=True)
        )


def _nobody(context: Context) -> Result:
    """What Multus answers for a pod that is gone; the runtime takes the container down next."""
    runtime = context.runtime
    log.info("pod is gone, nothing attached", pod=str(context.pod_ref), container=runtime.container_id)
    return Result(
        interfaces=(Interface(name=runtime.ifname, sandbox=runtime.netns_path),),
        ips=(IPConfig(address=IPv4Interface("0.0.0.0/0"), gateway=IPv4Address(0), interface=0),),
    )
