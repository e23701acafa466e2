"""The `speckv` command: a module for each of its commands, listed in `app.COMMANDS`."""

from speckv_pynq.cli.app import main

__all__ = ["main"]
