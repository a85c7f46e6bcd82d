"""Why a migration failed is said by the part of it that did: the script, what runs it, or the stage around it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyinfra_overlaymig.migration.bundle import pack
from pyinfra_overlaymig.migration.folder import load
from pyinfra_overlaymig.runner import why_failed
from pyinfra_overlaymig.runner.say import Leave
from tests.rig import RUNNER, Rig

ASKED = "no standard input"


def test_what_failed_is_named(fresh: Rig) -> None:
    """The last command of a script that says nothing, what it asked, and why a directory cannot be renamed."""
    cases = [
        ("echo ok; grep -q nothing /etc/hostname; echo on", ("failed with status 1", "grep -q nothing /etc/hostname")),
        ("(cd /etc && ls 'a b' >/dev/null 2>&1); true", ("failed with status 2", r"ls a\040b")),
        ("printf 'Continue? [y/N] '; read answer", ("failed with status 1", ASKED)),
        ("read -r name\necho $name", ("failed with status 1", ASKED)),
        ('echo "*** app.conf (Y/I/N/O/D/Z) [default=N] ?"; exit 1', ("DPKG_FORCE=confold",)),
        ("perl -e 'rename q(/usr/share/doc), q(/usr/share/doc.old) or die $!'", ("/usr/share/doc ", "EXDEV", "cp -a")),
        ("sh -c 'kill -KILL $$'", ("status 137 (as of signal SIGKILL)",)),
    ]
    for number, (script, words) in enumerate(cases, start=1):
        done = fresh.apply(f"20250101-{number:03}_fails", script)
        assert done.code == 9, done.text
        assert all(word in done.text for word in ("the install script failed", *words)), done.text

    fresh.migration("20250101-009_ruby", ":")
    (fresh.folder / "20250101-009_ruby/install.sh").write_text("#!/usr/bin/env ruby3\n:\n")
    done = fresh.run(RUNNER, "apply", "-", stdin=pack(load(fresh.folder / "20250101-009_ruby")))
    assert done.code == 9
    assert "interpreter ruby3 is not here" in done.text
    assert "install script failed" not in done.text

    fresh.migration("20250101-010_kinds", ":")
    (fresh.folder / "20250101-010_kinds/files").mkdir()
    (fresh.folder / "20250101-010_kinds/files/usr").write_text("a file where the machine has a directory")
    done = fresh.run(RUNNER, "apply", "-", stdin=pack(load(fresh.folder / "20250101-010_kinds")))
    assert (done.code, "it is of another kind on this machine" in done.text) == (9, True), done.text


PACKAGED_TWICE = """
deb() {
    d=$(mktemp -d); mkdir -p "$d/DEBIAN" "$d/etc"; chmod 755 "$d"
    printf 'Package: asks\\nVersion: %s\\nArchitecture: all\\nMaintainer: x <x@x>\\nDescription: x\\n' "$1" \\
        >"$d/DEBIAN/control"
    echo /etc/asks.conf >"$d/DEBIAN/conffiles"; echo "$1" >"$d/etc/asks.conf"
    dpkg-deb -b "$d" "/tmp/asks_$1.deb"
}
deb 1; dpkg -i /tmp/asks_1.deb; echo mine >/etc/asks.conf; deb 2; dpkg -i /tmp/asks_2.deb
"""


def test_dpkg_that_asks_for_a_configuration_file_is_answered_by_the_script(fresh: Rig) -> None:
    """By its own prompt, without anybody there: the hint names the answer, which then is one."""
    done = fresh.apply("20250110-001_asks", PACKAGED_TWICE)
    assert done.code == 9
    assert "DPKG_FORCE=confold" in done.text
    done = fresh.apply("20250110-001_asks", f"export DPKG_FORCE=confold\n{PACKAGED_TWICE}")
    assert done.code == 0, done.text
    assert fresh.sh("cat /etc/asks.conf; dpkg-query -W asks") == "mine\nasks\t2\n"


@pytest.mark.parametrize(
    ("first", "missing"),
    [
        ("#!/usr/bin/ruby", "/usr/bin/ruby is not"),
        ("#! /bin/no -e", "/bin/no is not"),
        ("#!/usr/bin/env ruby", "ruby is not"),
        ("#!/usr/bin/env -S A=b ruby -w", "ruby is not"),
        ("#!/bin/sh\r", "is not here"),
        ("#!/bin/data", "/bin/data is not"),
        ("echo x", "no #!"),
        ("#!/bin/sh -eu", ""),
        ("#!/usr/bin/env perl", ""),
        ("#!/usr/bin/env -S perl -w", ""),
        ("#!/bin/linked", ""),
    ],
)
def test_interpreter_that_is_not_there_is_named(tmp_path: Path, first: str, missing: str) -> None:
    """It is sought in the stage's root, whose links stay in it, and by env's rules."""
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "bin").symlink_to("/usr/bin")
    for name in ("sh", "env", "perl", "data"):
        (tmp_path / "usr/bin" / name).write_text("")
        (tmp_path / "usr/bin" / name).chmod(0o644 if name == "data" else 0o755)
    (tmp_path / "usr/bin/linked").symlink_to("/bin/sh")
    (tmp_path / "install.sh").write_text(f"{first}\n:\n", newline="")
    arguments = (str(tmp_path / "install.sh"), str(tmp_path), "/usr/local/bin:/usr/bin")
    if not missing:
        why_failed.check_interpreter(*arguments)
        return
    with pytest.raises(Leave) as left:
        why_failed.check_interpreter(*arguments)
    assert missing in left.value.what
    assert left.value.hint


@pytest.mark.parametrize(
    ("said", "script", "hint"),
    [
        ("Do you want to continue? [Y/n] Abort.\n", "apt-get install x", ASKED),
        ("EOFError: EOF when reading a line\n", "python3 x", ASKED),
        ("Enter new UNIX password: \n", "passwd", ASKED),
        ("Are you sure you want to continue connecting (yes/no/[fingerprint])? ", "ssh x", ASKED),
        ("Overwrite it?\n", "x", ASKED),
        ("", "read -r answer", ASKED),
        ("E: what?! no\n", "x", ""),
        ("it said: [yn]\n", "while read -r line; do :; done </etc/passwd; false", ""),
        ("x\n", "# read this\nreadlink /x; cat /x | read y", ""),
        ("dpkg: error: end of file on stdin at conffile prompt\n", "apt-get -y upgrade", "DPKG_FORCE=confold"),
    ],
)
def test_hint_of_what_was_said(said: str, script: str, hint: str) -> None:
    """A question that nobody answered, of whatever program, and not what looks like one."""
    found = why_failed.asked(said.encode(), script.encode(), 1)
    assert hint in found if hint else not found
