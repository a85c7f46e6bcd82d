"""Migrations for machines, as transactions on overlayfs; this holds the version and no code."""

__version__ = "0.1.0"
