"""The kernel: links, addresses, routes, rules and namespaces, by netlink of our own (docs/host.md says why)."""
