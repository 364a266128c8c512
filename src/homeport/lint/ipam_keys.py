"""The keys of an `ipam` section, by the plugin that reads it. Values only.

As host-local, static and dhcp 1.9 and Whereabouts 0.9 have them; `sticky` as the identity rules do (docs/identity.md).
"""

from __future__ import annotations

from collections.abc import Mapping

from homeport.lint.keywords import Key, flag, free, inside, number, text, words

TYPE = text("The plugin: the name of its program.", required=True)

DNS = inside(
    {
        "nameservers": words("Addresses of name servers, in order of preference."),
        "domain": text("The domain for short names."),
        "search": words("Domains searched for short names, in order."),
        "options": words("Options for the resolver, as in resolv.conf."),
    },
    about="What the result says of DNS. Kubernetes takes a pod's DNS from elsewhere.",
)

_ROUTES = inside(
    {
        "dst": text("The destination, as in 10.0.0.0/8 or 0.0.0.0/0.", required=True),
        "gw": text("The next hop; without it, the section's gateway."),
        "mtu": number("MTU of the route, in bytes (cniVersion 1.1.0)."),
        "advmss": number("Segment size TCP announces on the route, in bytes (cniVersion 1.1.0)."),
        "priority": number("The route's metric: the lowest wins (cniVersion 1.1.0)."),
        "table": number("The routing table it goes into (cniVersion 1.1.0)."),
        "scope": number("0 for global, 253 for link, 254 for host (cniVersion 1.1.0).", 0, 255),
    },
    "array",
    "Routes through this interface.",
)
_ADDRESSES = inside(
    {
        "address": text("An address with its prefix length, as in 10.9.0.5/24.", required=True),
        "gateway": text("The gateway of its subnet."),
    },
    "array",
    "Addresses that the interface always gets.",
)

RETENTION_KEYS: Mapping[str, Key] = {
    "whenScaled": text("What becomes of a replica's address when it is scaled away.", "Retain", "Release"),
    "whenDeleted": text("What becomes of the addresses when the StatefulSet is deleted.", "Retain", "Release"),
    "retainFor": text("How long an address is kept for a replica that is gone: 72h, 7d."),
    "adopt": text("Whether a StatefulSet made anew under the same name gets the addresses back.", "SameName", "Never"),
}
"""R11; also the keys of the annotation homeport.dev/retention."""

_STICKY = inside(
    {
        "order": text("How new addresses are chosen: by ordinal, or the lowest that is free.", "ordinal", "lowest"),
        **RETENTION_KEYS,
        "replicas": free("Addresses by StatefulSet: its name, then a list whose element n is that of replica n."),
        "kinds": inside(
            {
                "apiGroup": text("The group of the owner's API."),
                "kind": text("The owner's kind.", required=True),
                "label": text("The pod label that holds the replica's number."),
            },
            "array",
            "Other owners than StatefulSets whose replicas keep their addresses.",
        ),
    },
    "any",
    "Addresses that belong to a replica and outlive its pods (Homeport); true for the usual rules.",
)

_BOUNDS: Mapping[str, Key] = {
    "range_start": text("The first address handed out; without it, the range's first."),
    "range_end": text("The last address handed out; without it, the range's last."),
    "exclude": words("Addresses and networks never handed out."),
}

WHEREABOUTS: Mapping[str, Key] = {
    "type": TYPE,
    "range": text("The addresses handed out, as in 10.9.0.0/24, or 10.9.0.10-10.9.0.20/24."),
    **_BOUNDS,
    "ipRanges": inside(
        {"range": text("The addresses handed out, as in 10.9.0.0/24.", required=True), **_BOUNDS},
        "array",
        "Further ranges: a pod gets an address of each.",
    ),
    "network_name": text("A scope of its own: the same range under another name is another pool."),
    "enable_overlapping_ranges": flag("Whether ranges that overlap hand an address out once; they do without a word."),
    "node_slice_size": text("Each node hands out of a slice of this size, as in /28."),
    "gateway": text("The gateway told in the result."),
    "routes": _ROUTES,
    "dns": DNS,
    "addresses": _ADDRESSES,
    "kubernetes": inside(
        {"kubeconfig": text("Path of a kubeconfig on the node."), "k8s_api_root": text("URL of the API server.")},
        about="How Whereabouts reaches the API server. Homeport has it from its daemon.",
    ),
    "configuration_path": text("Path of whereabouts.conf on the node, whose values hold where this section has none."),
    "leader_lease_duration": number("Whereabouts' election, in milliseconds."),
    "leader_renew_deadline": number("Whereabouts' election, in milliseconds."),
    "leader_retry_period": number("Whereabouts' election, in milliseconds."),
    "log_file": text("Where Whereabouts logs, on the node."),
    "log_level": text("What Whereabouts logs.", "debug", "verbose", "error", "panic"),
    "reconciler_cron_expression": text("When Whereabouts looks for addresses without pods."),
    "sleep_for_race": number("A delay for Whereabouts' own tests."),
    "datastore": text("Of Whereabouts before 0.7; only Kubernetes is left."),
    "etcd_host": text("Of Whereabouts before 0.7: it has no etcd of its own any more."),
    "etcd_username": text("Of Whereabouts before 0.7."),
    "etcd_password": text("Of Whereabouts before 0.7."),
    "etcd_key_file": text("Of Whereabouts before 0.7."),
    "etcd_cert_file": text("Of Whereabouts before 0.7."),
    "etcd_ca_cert_file": text("Of Whereabouts before 0.7."),
    "exclude_gateway": flag("Whether Whereabouts keeps the gateway free. Homeport always does."),
    "optimistic_ipam": flag("Whether Whereabouts does without its election. Homeport has none."),
    "store": text("A file of allocations on the node, for Homeport without a cluster."),
    "sticky": _STICKY,
}

_HOST_LOCAL_BOUNDS: Mapping[str, Key] = {
    "rangeStart": text("The first address handed out; without it, the subnet's second."),
    "rangeEnd": text("The last address handed out; without it, the subnet's last but the broadcast address."),
    "gateway": text("The gateway; without it, the subnet's first address."),
}
HOST_LOCAL: Mapping[str, Key] = {
    "type": TYPE,
    "subnet": text("The subnet, as in 10.9.0.0/24. Every node hands out of it by itself."),
    **_HOST_LOCAL_BOUNDS,
    "ranges": Key(  # sets of ranges
        type="array",
        of="array",
        about="Sets of ranges: a pod gets one address of each set.",
        inside={"subnet": text("The subnet, as in 10.9.0.0/24.", required=True), **_HOST_LOCAL_BOUNDS},
    ),
    "routes": _ROUTES,
    "dataDir": text("Where it notes, on the node, which addresses are in use."),
    "resolvConf": text("A resolv.conf on the node, which the result tells as DNS."),
}

DHCP: Mapping[str, Key] = {
    "type": TYPE,
    "daemonSocketPath": text("The socket of the DHCP daemon on the node."),
    "provide": inside(
        {
            "option": text("The option's number or name.", required=True),
            "value": Key(type="any", about="Its value."),
            "fromArg": text("The name of the CNI argument that holds its value."),
        },
        "array",
        "Options sent to the server.",
    ),
    "request": inside(
        {
            "option": text("The option's number or name.", required=True),
            "skipDefault": flag("Whether the options requested by themselves are left out."),
        },
        "array",
        "Options asked of the server.",
    ),
    "priority": number("Metric of the routes that the server gives."),
}

STATIC: Mapping[str, Key] = {"type": TYPE, "addresses": _ADDRESSES, "routes": _ROUTES, "dns": DNS}
