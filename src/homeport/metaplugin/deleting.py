"""DEL of a pod: every network it was attached to, whatever has become of the pod since. I/O: the context's shells.

CNI SPEC 1.1.0 §2 "DEL". What to take down is read from the node's own files; the API server is asked only when these
are gone, and nobody waits for it then (docs/identity.md R10).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import structlog

from homeport.cni import conflists
from homeport.cni.invocations import Attachment
from homeport.ipam.objects import Pod
from homeport.metaplugin import adding, attaching
from homeport.metaplugin.contexts import Context
from homeport.model.errors import CniError, NoSuchObject, TryAgainLater
from homeport.multinet.delegates import Delegate
from homeport.runtime.caching import CachedAttachment
from homeport.runtime.chaining import Attached

log = structlog.get_logger()


class Deferred(TryAgainLater):
    """A DEL that nothing can be done about now: whoever answers it keeps it, and calls again later."""


def delete(context: Context) -> None:
    """Idempotent. Goes on past errors and raises them together; raises `Deferred` while it cannot know what to do.

    Taken down is what the container's scratch file says, in reverse order, and what else the results of its ADDs tell
    of. A file that cannot be read is evidence that there is more: then the networks are those of the pod's record, else
    those that the pod asks for now, and the file is set aside in the end. Whatever it said beyond that, GC finds.
    """
    try:
        delegates = context.scratch.read(context.runtime, context.settings.runtime_config)
    except CniError as error:
        _delete_unreadable(context, error)
        return
    if delegates is None:
        _delete_unknown(context)
    else:
        attaching.detach(context, context.shells, delegates, remembered(context, delegates))


def _delete_unreadable(context: Context, error: CniError) -> None:
    delegates = _supposed(context)
    attaching.detach(context, context.shells, delegates, remembered(context, delegates), keep_scratch=True)
    aside = context.scratch.set_aside(context.runtime.container_id)
    log.error(
        "scratch file was not readable",
        container=context.runtime.container_id,
        kept=str(aside),
        reason=str(error),
    )


def _delete_unknown(context: Context) -> None:
    """Without a scratch file nothing was begun, or all of it was taken down; unless somebody removed the file.

    So the pod's networks get their DEL, but one that fails does not hold up a pod which has nothing there.
    """
    attaching.detach(context, context.shells, (), remembered(context, ()))
    supposed = _supposed(context)
    try:
        attaching.detach(context, context.shells, supposed)
    except CniError as error:
        log.warning("detached as far as possible", container=context.runtime.container_id, reason=str(error))


def remembered(context: Context, delegates: Sequence[Delegate]) -> tuple[Attached, ...]:
    """Attachments of the container that its results tell of and `delegates` do not: with the networks of their ADD."""
    known = {context.key(delegate) for delegate in delegates}
    cached, unreadable = context.cache.of_container(context.runtime.container_id)
    for error in unreadable:
        log.error("cached result is not readable", container=context.runtime.container_id, reason=str(error))
    left = sorted(cached, key=lambda entry: entry.key.ifname != context.runtime.ifname)  # the main one goes last
    found = (attached_of(entry, context.runtime) for entry in left if entry.key not in known)
    return tuple(attached for attached in found if attached is not None)


def attached_of(entry: CachedAttachment, runtime: Attachment) -> Attached | None:
    """What a cached result is of; None when it does not say."""
    try:
        network = conflists.parse(entry.config)
    except CniError:
        return None
    attachment = Attachment(
        container_id=entry.key.container_id,
        ifname=entry.key.ifname,
        netns_path=runtime.netns_path or entry.netns_path,
        args=entry.args,
        path=runtime.path,
    )
    return Attached(network=network, attachment=attachment, capability_args=entry.capability_args)


def _supposed(context: Context) -> tuple[Delegate, ...]:
    """What the container of a pod would be attached to; nothing for a pod that is proven gone.

    Where that cannot be told any more, as an object is gone or wrong by now, what the cached results say has to do. A
    pod that nobody tells us of, refused or unanswered, is not proven gone (R12).
    """
    record = context.records.find(context.pod_uid) if context.pod_uid else None
    try:
        if record is not None and record.container_id == context.runtime.container_id:
            return record.decoded_delegates()
        pod = _pod_now(context)
        if pod is None:
            return ()
        adding.require_same(pod, context.pod_uid)
        return adding.delegates_of(msgspec.structs.replace(context, devices=None), pod)
    except NoSuchObject:
        return ()
    except TryAgainLater as e:
        raise _deferred(context, e) from e
    except CniError as error:
        log.warning("networks are not known", container=context.runtime.container_id, reason=str(error))
        return ()


def _pod_now(context: Context) -> Pod | None:
    """The runtime's pod; None when it names none, or the API server says that there is none."""
    if context.pod_ref is None or context.kubernetes is None:
        return None
    try:
        return context.kubernetes.pod_with_uid(context.pod_ref, context.pod_uid)
    except CniError as e:
        raise _deferred(context, e) from e


def _deferred(context: Context, error: CniError) -> Deferred:
    return Deferred(f'detach container "{context.runtime.container_id}": {error.msg}', error.details)
