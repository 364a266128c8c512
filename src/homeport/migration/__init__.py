"""Moving a cluster from another address manager to Homeport."""
