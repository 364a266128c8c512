"""The CNI protocol as values: invocations, configurations, results of every version. No I/O."""
