"""Homeport: every StatefulSet replica has its own addresses on secondary networks, and keeps them."""

__version__ = "0.1.0"
