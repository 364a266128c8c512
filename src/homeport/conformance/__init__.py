"""The conformance matrix (docs/identity.md) as something to run in one's own cluster."""
