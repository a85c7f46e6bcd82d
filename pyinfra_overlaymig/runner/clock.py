"""Time: limits by the monotonic clock, which no step of the wall clock touches, and times for records."""

from __future__ import annotations

import time


class Deadline:
    """A limit of ``seconds`` from now on; None is no limit."""

    def __init__(self, seconds: float | None) -> None:
        self.until = None if seconds is None else time.monotonic() + seconds

    def left(self) -> float:
        """Seconds that are left, never below 0."""
        return float("inf") if self.until is None else max(0.0, self.until - time.monotonic())

    def over(self) -> bool:
        return self.left() == 0.0

    def milliseconds(self) -> int | None:
        """As poll(2) wants it; None is no limit. Rounded up, or a wait would end a little early, again and again."""
        return None if self.until is None else int(self.left() * 1000) + 1


def now() -> str:
    """The time as RFC 3339 in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
