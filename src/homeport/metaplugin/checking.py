"""CHECK and STATUS of a pod's networks. I/O: through the context's shells.

CNI SPEC 1.1.0 §2 "CHECK", "STATUS".
"""

from __future__ import annotations

from homeport.cni import versions
from homeport.metaplugin import adding, attaching, readiness
from homeport.metaplugin.contexts import Context
from homeport.model.errors import CniError, Drift, InvalidNetns, PluginNotAvailable, TryAgainLater
from homeport.runtime import chaining


def check(context: Context) -> None:
    """Every attachment, in the order of ADD; raises the first one's `Drift`, with its network named.

    A network of a version that has no CHECK, or that turns it off, is passed over.
    """
    if not context.runtime.netns_path:
        raise InvalidNetns("CHECK: network namespace missing, expected its path")
    delegates = context.scratch.read(context.runtime, context.settings.runtime_config)
    if delegates is None:
        path = context.scratch.path(context.runtime.container_id)
        raise Drift(f'check container "{context.runtime.container_id}": found no record of its ADD, expected {path}')
    shells, _ = context.with_record(context.records.find(context.pod_uid) if context.pod_uid else None)
    with shells.host.operation(undo_on_error=False):
        for delegate in delegates:
            if not versions.at_least(delegate.network.cni_version, "0.4.0"):
                continue
            attached = context.attached(delegate)
            with attaching.named(context, delegate):
                chaining.check(
                    attached.network,
                    attached.attachment,
                    shells,
                    cache=context.cache,
                    capability_args=attached.capability_args,
                )


def status(context: Context) -> None:
    """Whether an ADD could be served now; raises `PluginNotAvailable`, or what the default network's plugins say.

    An API server that is away is no reason: it may be back before the next pod.
    """
    indicator = context.settings.readiness_indicator_file
    if indicator and not readiness.is_ready(indicator):
        raise PluginNotAvailable(f"look for readiness indicator: found no file {indicator}")
    try:
        main = adding.resolver(context, None).main()
    except TryAgainLater:
        return
    except CniError as e:
        raise PluginNotAvailable(f"find the default network: {e.msg}", e.details) from e
    chaining.status(main.network, context.shells, path=context.runtime.path)
