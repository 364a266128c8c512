"""A real Kubernetes cluster on one machine, for tests and benchmarks: a control plane, nodes and their kubelets."""
