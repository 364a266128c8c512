"""`homeport lint`."""


def lint() -> None:
    """To be built."""
