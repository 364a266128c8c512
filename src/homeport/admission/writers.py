"""Who writes besides people: Homeport's programs, and the controllers that make objects of templates. No I/O."""

from __future__ import annotations

GROUPS = ("homeport:controllers", "homeport:nodes")
"""Of Homeport's programs that run outside of a pod, as deploy/rbac.yaml names them."""

_ACCOUNTS = ("homeport-controller", "homeport-node")

MAKERS = ("CronJob", "DaemonSet", "Deployment", "Job", "ReplicaSet", "StatefulSet")
"""Kinds whose objects make others, which were reviewed as the templates they are made from."""


def accounts(namespace: str) -> tuple[str, ...]:
    """The user names of Homeport's service accounts in that namespace."""
    return tuple(f"system:serviceaccount:{namespace}:{name}" for name in _ACCOUNTS)
