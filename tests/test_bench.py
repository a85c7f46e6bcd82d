"""What the bench says of figures is right. Nothing is measured here: other work on the host would show."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bench import report, stats
from tests.bench.__main__ import chosen, groups
from tests.bench.line import Found, Line, Variant
from tests.bench.session import Bench

MACHINE = {"date": "2026-01-02 03:04 UTC", "checkout": "abc", "cpu": "one"}


def test_the_middle_and_the_middle_half_are_told() -> None:
    assert stats.spread([3.0, 1.0, 2.0, 5.0, 4.0]) == stats.Spread(3.0, 2.0, 4.0, 5)
    assert stats.spread([1.0, 2.0]) == stats.Spread(1.5, 1.25, 1.75, 2)
    assert stats.spread([7.0]) == stats.Spread(7.0, 7.0, 7.0, 1)
    with pytest.raises(ValueError, match="nothing"):
        stats.spread([])


def test_a_ratio_is_of_pairs() -> None:
    """Not of medians: here those say that both are alike. What has no partner counts for nothing."""
    assert stats.ratios([1.0, 20.0, 9.0], [2.0, 10.0]) == [0.5, 2.0]
    assert stats.ratios([1.0], [0.0]) == []


def test_who_is_first_alternates() -> None:
    assert [stats.order("ab", number) for number in range(4)] == [["a", "b"], ["b", "a"]] * 2


def test_each_of_many_is_first_and_last_alike_often() -> None:
    rounds = [stats.order("abcd", number) for number in range(8)]
    assert sorted(one[0] for one in rounds) == sorted(one[-1] for one in rounds) == sorted("abcd" * 2)


def test_a_target_is_reached_or_missed_by_so_much() -> None:
    assert stats.missed_by(0.1, 0.1) == 0
    assert stats.missed_by(0.15, 0.1) == pytest.approx(0.5)
    assert stats.missed_by(1, 0) == float("inf")


def found(**more: object) -> Found:
    line = Line("x.y", "a thing", "s", 0.1, **more)  # type: ignore[arg-type]
    return Found(line, {"now": [0.2, 0.1, 0.3], "sh": [0.4, 0.4, 0.4]})


def test_verdicts_say_what_counts() -> None:
    """The median; the median of the pairs' ratios; the worst; and why nothing was measured."""
    assert found().verdict == "missed by 100%"
    assert found(over="sh").figure == pytest.approx(0.5)
    assert found(over="sh").verdict == "missed by 400%"
    assert found(worst=True).verdict == "missed by 200%"
    assert Found(Line("x", "", "s", 1), trouble="it broke\nlong story").verdict == "not measured: it broke"
    assert Found(Line("x", "", "", 0, worst=True), {"now": [0.0, 0.0, 2.0]}).verdict == "missed by 2"


def test_the_table_of_the_readme_has_a_row_for_each_line(tmp_path: Path) -> None:
    report.write(tmp_path, MACHINE, [found(), Found(Line("z", "nothing | yet", "s", 1))], "make bench")
    rows = (tmp_path / "table.md").read_text().splitlines()
    assert (
        rows[-2] == "| a thing | 0.2 s (0.15 to 0.25) | sh: 0.4 s | 0.5 (0.375 to 0.625) | ≤ 0.1 s | missed by 100% |"
    )
    assert rows[-1] == "| nothing / yet | - | - | - | ≤ 1 s | not measured: no round was finished |"
    told = json.loads((tmp_path / "bench.json").read_text())
    assert (told["command"], told["machine"]) == ("make bench", MACHINE)
    assert told["lines"][0]["series"]["now"]["figures"] == [0.2, 0.1, 0.3]
    assert (told["lines"][0]["held_against_the_target"], told["lines"][1]["held_against_the_target"]) == (0.2, None)


def test_rounds_count_when_they_are_whole(tmp_path: Path) -> None:
    """One that breaks in the middle leaves no half of a pair; figures of a line can belong to another series."""
    bench = Bench(tmp_path, tmp_path, quick=True, rounds=None, say=lambda _: None)
    lines = bench.begin([Line("a", "", "s", 1), Line("b", "", "s", 1)], 60)
    figures = iter(range(9))

    def broken() -> dict[str, float]:
        if next(figures) == 3:
            raise InterruptedError
        return {"a": 2.0}

    variants = [Variant("now", lambda: {"a": 1.0, "b/large": 5.0}), Variant("sh", broken)]
    with pytest.raises(InterruptedError):
        bench.rounds(variants, full=9, quick=5)
    assert lines["a"].series == {"now": [1.0] * 3, "sh": [2.0] * 3}
    assert lines["b"].series == {"large": [5.0] * 3}


def test_lines_have_names_of_their_own() -> None:
    """And a file is enough to have one; who asks for a line gets those that are measured with it."""
    names = [line.name for group in groups() for line in group.lines]
    assert len(names) == len(set(names))
    assert all(name.startswith(group.name) for group in groups() for name in (line.name for line in group.lines))
    assert [group.name for group in chosen(["rollback.large", "status"])] == ["rollback", "status"]
    with pytest.raises(SystemExit, match=r"no line none\.such"):
        chosen(["none.such"])
