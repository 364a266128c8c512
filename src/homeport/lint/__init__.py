"""Mistakes in network manifests, found and fixed: texts in, findings out. No I/O."""
