"""Headway: a self-hosted deployment platform whose every step is a durable workflow."""

__version__ = "0.1.0"
