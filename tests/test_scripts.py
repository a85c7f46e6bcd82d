from __future__ import annotations

import pytest

from pyinfra_overlaymig.migration.scripts import filled, script

FIELDS = {"SIGNAL": "TERM", "TRIES": "7"}


def test_parts_stay_where_they_are_asked_for() -> None:
    """And what is said to shellcheck, or marks a part, is in no machine's script."""
    both = script("finish.sh", FIELDS, ("stay-down", "sweep"))
    assert "exit 125" in both
    assert "tries=7" in both
    assert "exit 125" not in script("finish.sh", FIELDS, ("sweep",))
    assert script("finish.sh", {}) == "#!/bin/sh\n"
    assert not any(word in both for word in ("#if", "#fi", "shellcheck"))


def test_what_is_shared_is_taken_in() -> None:
    """A directory holds all that it needs: nothing is sourced on a machine."""
    text = script("log-run.sh", FIELDS | {"NAME": "x/log", "WHOM": "", "FOLDER": "/var/log/x"})
    assert "one-instance.sh" not in text
    assert "its process $old of before still runs" in text


def test_mistakes_are_not_shipped() -> None:
    """A field without a value, a part that no script has."""
    with pytest.raises(KeyError):
        script("finish.sh", {"SIGNAL": "TERM"}, ("sweep",))
    with pytest.raises(ValueError, match="sweep-up"):
        script("finish.sh", FIELDS, ("sweep-up",))


def test_a_value_is_not_read_again() -> None:
    """What looks like a field in a value is text."""
    assert filled("a=@A@ b=@B@", {"A": "@B@", "B": "1"}) == "a=@B@ b=1"
