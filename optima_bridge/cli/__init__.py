"""The command line `bridge`: one file per command; a command's module is imported only when it is used."""

from optima_bridge.cli.app import main

__all__ = ["main"]
