"""The kernel, through netlink: links, addresses, routes, rules, namespaces. Only this package imports pyroute2."""
