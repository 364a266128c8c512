"""Our resources (deploy/crds). Values only."""

from __future__ import annotations

from homeport.ports import Resource

GROUP = "homeport.dev"
VERSION = "v1alpha1"

IPALLOCATIONS = Resource(group=GROUP, version=VERSION, plural="ipallocations", kind="IPAllocation")
IPSLOTS = Resource(group=GROUP, version=VERSION, plural="ipslots", kind="IPSlot")
IPRANGES = Resource(group=GROUP, version=VERSION, plural="ipranges", kind="IPRange")
IPLEDGERS = Resource(group=GROUP, version=VERSION, plural="ipledgers", kind="IPLedger")
