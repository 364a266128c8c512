"""What is wrong on a node or in a cluster: facts, findings, repairs."""
