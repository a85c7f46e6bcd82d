"""Migrations for machines, as transactions on overlayfs, driven by pyinfra."""

__version__ = "0.1.0"
