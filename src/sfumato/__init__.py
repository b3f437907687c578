"""Sfumato: self-hosted image generation behind the Stablecog and AUTOMATIC1111 APIs."""

from importlib.metadata import version

__version__ = version("sfumato")
