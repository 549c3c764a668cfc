"""Deploys without fear for services on plain machines."""

__version__ = "0.1.0"
