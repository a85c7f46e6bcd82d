"""What is wrong with a text that should be in one of these formats; each side makes an error of its own of it."""

from __future__ import annotations


class FormatError(ValueError):
    """A text that came from outside, or from the disk, is not what it has to be; the message says what, and where.

    ``hint``: what to do, where this can be told without knowing who reads it.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
