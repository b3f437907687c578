"""Sfumato's own routes: the page, the pictures, the documentation, health and metrics."""
