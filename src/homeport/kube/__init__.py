"""The Kubernetes API server, as far as a node needs it."""
