"""A pod's networks: what Multus does, on our own plugins and on any other."""
