"""A cluster's nodes, workloads and replicas on one machine, with real network namespaces."""
