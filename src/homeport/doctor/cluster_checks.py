"""What doctor looks for from afar, as `--checks` lists it. Values only."""

from __future__ import annotations

from homeport.doctor.findings import Check, Severity

_ERRORS = {
    "definition-missing": "a custom resource definition is not installed",
    "definition-not-served": "a definition is not established, or does not serve the version that is used",
    "definition-old": "a definition's schema lacks what this version of Homeport writes",
    "role-lacks": "a role of deploy/rbac.yaml is missing, or allows less than this version needs",
    "controller-missing": "no controller has ever led",
    "controller-silent": "the controllers' lease is not renewed",
    "webhook-unverifiable": "the admission webhook's certificate authority is missing, broken or over",
    "object-unreadable": "an object of Homeport's cannot be decoded",
    "networks-broken": "lint finds errors in the cluster's networks and StatefulSets",
    "node-not-served": "pods run on networks with ranges, and their node has no allocation at all",
    "address-contested": "Whereabouts has an address for another pod than Homeport",
    "whereabouts-unaware": "Whereabouts gives out of a range of Homeport's without knowing what is taken",
}
_WARNINGS = {
    "clocks-differ": "the lease was renewed in the future",
    "controllers-differ": "controllers run from several images",
    "ledger-behind": "changes of addresses are not written into the ledger",
    "webhook-blocks": "the admission webhook stops the cluster when no controller answers",
    "webhook-certificate-ends": "the admission webhook's certificate authority ends, and is not replaced",
    "networks-doubtful": "lint finds warnings in the cluster's networks and StatefulSets",
    "holder-gone": "an address is in use by a pod that is gone or ended",
    "pod-without-allocation": "a pod runs on a network with ranges, and has no allocation",
    "address-quarantined": "an address is given to nobody, for somebody answered for it",
    "range-full": "a range has no address left",
    "slot-missing": "a replica's address is in no IPSlot",
}
_NOTES = {
    "range-nearly-full": "nine tenths of a range are taken",
    "slots-of-no-use": "IPSlots that no address belongs to are not cleared away",
}

CHECKS = tuple(
    Check(id=id_, severity=severity, summary=summary)
    for severity, listed in ((Severity.ERROR, _ERRORS), (Severity.WARNING, _WARNINGS), (Severity.INFO, _NOTES))
    for id_, summary in listed.items()
)
