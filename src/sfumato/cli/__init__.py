"""The `sfumato` command."""

from sfumato.cli.app import main

__all__ = ["main"]
