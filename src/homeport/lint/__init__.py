"""Finding what is wrong with a network configuration before anything runs. Pure: documents in, findings out."""
