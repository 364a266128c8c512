"""Running plugins as a container runtime does: chains, caches, foreign executables."""
