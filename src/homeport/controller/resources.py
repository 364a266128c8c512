"""Resources that the controller reads and are not Homeport's own. Values only."""

from __future__ import annotations

from homeport.kube.resources import DEFINITIONS, NODES, PODS, STATEFUL_SETS

__all__ = ["DEFINITIONS", "NODES", "PODS", "STATEFUL_SETS"]
