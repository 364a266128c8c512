"""Whose address is it: ranges, identities, and the decision. Pure: no I/O, no clock, no randomness."""
