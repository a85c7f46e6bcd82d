from __future__ import annotations

import pytest

from pyinfra_overlaymig.format.changes import Change, deleted
from pyinfra_overlaymig.runner.overlap import Drifted, meet


def coming(op: str, kind: str, path: str, mode: str = "755") -> Change:
    if op == "D":
        return deleted(path)
    return Change(op, kind, mode, "0", "0", "0", "-", "-", path)


def a_file(path: str) -> Drifted:
    """Or a link, a device, a whiteout, an opaque directory: whatever hides what is below it."""
    return Drifted(path)


def a_directory(path: str, mode: str = "755") -> Drifted:
    return Drifted(path, (mode, "0", "0"))


@pytest.mark.parametrize(
    ("drift", "change", "meets"),
    [
        pytest.param(a_file("x"), coming("A", "f", "x"), True, id="a file where one comes"),
        pytest.param(a_file("x"), coming("C", "f", "x"), True, id="a file that changes"),
        pytest.param(a_file("x"), coming("M", "f", "x"), True, id="a file whose mode changes"),
        pytest.param(a_file("x"), coming("D", "-", "x"), True, id="a file that is deleted"),
        pytest.param(a_file("x"), coming("A", "d", "x"), True, id="a file where a directory comes"),
        pytest.param(a_file("x"), coming("A", "f", "x/y"), True, id="a file above what comes"),
        pytest.param(a_file("x"), coming("A", "f", "xy"), False, id="a file beside it"),
        pytest.param(a_file("x/y"), coming("A", "f", "x/z"), False, id="files in one directory"),
        pytest.param(a_file("x/y"), coming("M", "d", "x"), False, id="a file in a directory whose mode changes"),
        pytest.param(a_file("x/y"), coming("A", "d", "x"), False, id="a file in a directory that both made"),
        pytest.param(a_file("x/y/z"), coming("C", "d", "x"), True, id="a file in a directory that is made anew"),
        pytest.param(a_file("x/y"), coming("D", "-", "x"), True, id="a file in a directory that is deleted"),
        pytest.param(a_file("x/y"), coming("A", "l", "x"), True, id="a file below what becomes a link"),
        pytest.param(a_directory("x"), coming("A", "f", "x"), True, id="a directory where a file comes"),
        pytest.param(a_directory("x"), coming("A", "f", "x/y"), False, id="a directory above what comes"),
        pytest.param(a_directory("x"), coming("A", "d", "x"), False, id="a directory that both made alike"),
        pytest.param(a_directory("x", "700"), coming("A", "d", "x"), True, id="a directory of another mode"),
        pytest.param(a_directory("x", "700"), coming("M", "d", "x"), True, id="two modes of a directory"),
        pytest.param(a_directory("x"), coming("C", "d", "x"), True, id="a directory that is made anew"),
        pytest.param(a_directory("x/y"), coming("C", "d", "x"), True, id="a directory in one that is made anew"),
        pytest.param(a_directory("x"), coming("D", "-", "x"), True, id="a directory that is deleted"),
    ],
)
def test_the_table_of_what_is_there_and_what_comes(drift: Drifted, change: Change, meets: bool) -> None:
    assert meet([drift], [change]) == ([drift.path] if meets else [])


def test_only_what_meets_is_named() -> None:
    drift = [a_directory("etc"), a_file("etc/mine"), a_file("etc/both"), a_file("srv/other")]
    assert meet(drift, [coming("C", "f", "etc/both"), coming("A", "f", "etc/theirs")]) == ["etc/both"]
