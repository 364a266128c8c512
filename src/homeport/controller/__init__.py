"""The controller, one for the cluster: reconciles on proof, reserves, counts, remembers (docs/controller.md)."""
