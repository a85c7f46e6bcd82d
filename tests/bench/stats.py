"""What is said of measured figures: medians with quartiles, the ratio pair by pair, and who is first in a round."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Spread:
    """The middle of ``count`` figures, and where the middle half of them lies."""

    median: float
    low: float
    high: float
    count: int


def spread(figures: Sequence[float]) -> Spread:
    """Median and quartiles; of one figure, all three are that figure."""
    if not figures:
        raise ValueError("there is no median of nothing")
    low, middle, high = (figures[0],) * 3 if len(figures) == 1 else quartiles(figures)
    return Spread(middle, low, high, len(figures))


def quartiles(figures: Sequence[float]) -> tuple[float, float, float]:
    """The figures that a quarter, a half and three quarters of them do not exceed, interpolated between neighbours."""
    low, middle, high = statistics.quantiles(figures, n=4, method="inclusive")
    return low, middle, high


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Pair by pair: what disturbs the host for seconds disturbs both. One without a partner counts for nothing."""
    return [one / other for one, other in zip(above, below, strict=False) if other > 0]


def order(items: Sequence[T], number: int) -> list[T]:
    """The order of round ``number``, from 0: which of two is first alternates, of more each is first in its turn."""
    if len(items) > 2:
        turn = number // 2 % len(items)
        items = [*items[turn:], *items[:turn]]
    return list(reversed(items)) if number % 2 else list(items)


def missed_by(figure: float, at_most: float) -> float:
    """By which part of the target it is missed; 0 where it is reached."""
    if figure <= at_most:
        return 0.0
    return figure / at_most - 1 if at_most else float("inf")
