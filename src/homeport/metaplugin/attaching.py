"""What ADD, DEL and GC share: taking a container's networks down, and naming the network that failed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import structlog

from homeport.metaplugin.contexts import Context
from homeport.model.errors import CniError, SeveralErrors
from homeport.multinet.delegates import Delegate
from homeport.ports import Shells
from homeport.runtime import chaining
from homeport.runtime.chaining import Attached

log = structlog.get_logger()


@contextmanager
def named(context: Context, delegate: Delegate) -> Iterator[None]:
    """An expected failure of the block says which network of which pod it is about. Its code stays."""
    try:
        yield
    except CniError as error:
        error.msg = f"{_place(context, delegate.name, delegate.ifname)}: {error.msg}"
        raise


def detach(
    context: Context,
    shells: Shells,
    delegates: Sequence[Delegate],
    others: Sequence[Attached] = (),
    *,
    keep_scratch: bool = False,
) -> None:
    """DEL of every delegate, the last one first, after that of `others`; then what was written down about them goes.

    Goes on past errors and raises them together; the scratch file outlives any of them, so that the next DEL tries
    again, and with `keep_scratch` it stays in any case. Idempotent.
    """
    container_id = context.runtime.container_id
    attached = [context.attached(delegate) for delegate in delegates]
    names = {one.attachment.ifname: d.name for one, d in zip(attached, delegates, strict=True)}
    failed = chaining.delete_all([*attached, *others], shells, cache=context.cache)
    for failure in failed:
        ifname = failure.attached.attachment.ifname
        failure.error.msg = (
            f"{_place(context, names.get(ifname, failure.attached.network.name), ifname)}: {failure.error.msg}"
        )
    raise_together([failure.error for failure in failed])
    context.device_infos.remove(delegates, container_id)
    if not keep_scratch:
        context.scratch.remove(container_id)
    log.info("detached", container=container_id, interfaces=[one.attachment.ifname for one in attached])


def undo(
    context: Context, shells: Shells, delegates: Sequence[Delegate], done: Sequence[Delegate], error: BaseException
) -> None:
    """Takes back an ADD that failed with `error`, `done` being the delegates that are there.

    The one it failed with has undone itself. What goes wrong here is added to `error`, and then all delegates stay
    written down for the runtime's DEL.
    """
    try:
        if getattr(error, "__notes__", ()):
            left = [context.attached(delegate) for delegate in done]
            raise_together([failure.error for failure in chaining.delete_all(left, shells, cache=context.cache)])
        else:
            context.device_infos.remove(delegates, context.runtime.container_id)
            detach(context, shells, done)
    except CniError as failed:
        note = f"undo: {failed}"
        error.add_note(note)
        if isinstance(error, CniError):
            error.details = "; ".join(part for part in (error.details, note) if part)


def raise_together(errors: Sequence[CniError]) -> None:
    """One error as itself, several as one."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise SeveralErrors(errors)


def _place(context: Context, network: str, ifname: str) -> str:
    pod = f"pod {context.pod_ref}, " if context.pod_ref is not None else ""
    return f'{pod}network "{network}", interface "{ifname}"'
