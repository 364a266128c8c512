"""`homeport install`."""


def install() -> None:
    """To be built."""
