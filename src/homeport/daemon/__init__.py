"""The node's daemon: calls from the runtime in, answers out."""
