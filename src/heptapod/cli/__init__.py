"""The command line."""

from heptapod.cli.app import main

__all__ = ["main"]
