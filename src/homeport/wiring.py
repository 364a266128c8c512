"""Where the shells are built: the one place that knows both a port and what stands behind it."""
