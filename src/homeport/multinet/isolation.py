"""Which namespaces' networks a pod may select. No I/O."""

from __future__ import annotations

from collections.abc import Iterable

from homeport.model.errors import InvalidNetConf
from homeport.multinet.selections import NetworkSelection
from homeport.multinet.settings import Settings


def require_permitted(selections: Iterable[NetworkSelection], pod_namespace: str, settings: Settings) -> None:
    """Raises `InvalidNetConf` for a network of a namespace that is neither the pod's own nor open to all.

    For what the pod's annotation selects; networks that the cluster's own configuration names are not isolated.
    """
    if not settings.namespace_isolation:
        return
    permitted = (pod_namespace, *settings.global_namespaces)
    for selection in selections:
        if selection.namespace not in permitted:
            raise InvalidNetConf(
                f'attach network "{selection.namespace}/{selection.name}": found namespace "{selection.namespace}" '
                f"with namespaceIsolation, expected one of {', '.join(dict.fromkeys(permitted))}"
            )
