"""FORMAT.md in code: what is on disk and on the wire, defined once for both sides; standard library only."""

from pyinfra_overlaymig.format.errors import FormatError

__all__ = ["FORMAT", "FormatError"]

FORMAT = 1
"""The number of the format that all of this describes; what an older runner would misread raises it."""
