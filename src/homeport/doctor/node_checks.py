"""What doctor looks for on a node, as `--checks` lists it. Values only."""

from __future__ import annotations

from homeport.doctor.findings import Check, Severity

_ERRORS = {
    "config-broken": "the daemon's configuration cannot be right",
    "runtime-dir-missing": "the runtime's directory of networks is not there",
    "runtime-config-missing": "no network in the runtime's directory leads to the daemon",
    "runtime-config-overruled": "another file comes before the one that leads to the daemon",
    "runtime-config-broken": "a file that comes first in the runtime's directory cannot be read",
    "primary-missing": "the primary plugin's network, which ours names, is not there",
    "readiness-missing": "the readiness file is named and not there",
    "shim-missing": "the shim is not in the directory of plugins",
    "shim-not-executable": "the shim cannot be started",
    "shim-foreign": "another program is in the shim's place",
    "shim-misled": "the runtime leads the shim to another socket or journal than the daemon's",
    "plugin-missing": "a plugin that the pod network, or another, names is not there",
    "daemon-missing": "nobody listens on the daemon's socket",
    "daemon-silent": "the daemon does not answer",
    "api-unreachable": "the API server does not answer, or refuses",
    "journal-missing": "the journal's directory is not there",
    "disk-full": "there is no room for the daemon's state",
    "database-damaged": "a database is damaged, or another program's",
    "file-writable": "others than its owner can write to a file or directory of the daemon's",
    "kind-missing": "the kernel cannot make the links of a network",
    "master-missing": "the master of a network is not there",
    "master-down": "the master of a network is down, or has no carrier",
    "master-enslaved": "the master of a network is a port of a bridge or bond",
    "master-mtu": "a network asks for a greater MTU than its master has",
    "master-shared": "macvlan and ipvlan are asked for on one link",
    "interface-lost": "an interface is gone, or has lost an address that its ADD gave it",
    "address-conflict": "an address of a running interface is somebody else's in the cluster",
    "address-unguarded": "an address of a running interface is nobody's by the allocations",
    "entry-unreadable": "an allocation or a result cannot be decoded",
}
_WARNINGS = {
    "config-key-unknown": "the daemon's configuration has a key that nobody reads",
    "meta-plugin-beside": "another meta-plugin's daemon runs on this node",
    "daemon-unready": "the daemon takes no calls",
    "daemon-version": "another version runs than is installed",
    "daemon-elsewhere": "the daemon lives in another network namespace than this command",
    "clock-skew": "the node's clock and the API server's differ",
    "api-slow": "the API server takes long to answer",
    "journal-unreadable": "a DEL of the journal cannot be read",
    "journal-old": "a DEL waits for long",
    "disk-low": "there is little room for the daemon's state",
    "secret-readable": "others than its owner can read the kubeconfig",
    "file-owner": "a file of the daemon's is not root's",
    "forwarding-off": "a bridge is a gateway, and the kernel forwards nothing",
    "link-half-made": "a link is left from a plugin that was killed",
    "namespace-left": "a pod is gone, and its network namespace is not",
    "result-left": "a pod and its namespace are gone, and no DEL came for it",
    "claim-untold": "the API server has not been told of an address that was let go",
    "allocation-unaccounted": "the cluster says that this node has an address, and it knows nothing of it",
}
_NOTES = {
    "shim-version": "the shim is of another version than is installed",
    "journal-unfinished": "a writer of the journal was killed",
    "rp-filter-strict": "pods drop what comes over a secondary network from beyond its subnet",
    "arp-flux": "two links in one subnet answer ARP for one another",
}

CHECKS = tuple(
    Check(id=id_, severity=severity, summary=summary)
    for severity, checks in ((Severity.ERROR, _ERRORS), (Severity.WARNING, _WARNINGS), (Severity.INFO, _NOTES))
    for id_, summary in checks.items()
)
