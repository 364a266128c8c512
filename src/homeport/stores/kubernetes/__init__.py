"""Allocations as objects of the API server: an object an address, whose name is the claim (docs/ipallocation.md)."""
