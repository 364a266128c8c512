"""Values every other room speaks in: addresses, names, results, errors. No I/O, no imports from the rest."""
