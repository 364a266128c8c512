"""The kernel: links, addresses, routes, rules, settings, filters, namespaces. Only this package speaks netlink."""
