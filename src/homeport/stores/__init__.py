"""Where allocations live. One contract, several implementations."""
