"""The program `overlaymig` beside its commands: how it ends, and what it says of hosts of no lab."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pyinfra_overlaymig.cli import asking
from pyinfra_overlaymig.errors import OverlaymigError

PROGRAM = Path(sys.executable).with_name("overlaymig")
TOP = Path(__file__).parent.parent


@pytest.mark.parametrize(
    "words",
    [
        ("--help",),
        ("lab", "ls"),
        ("lab", "ls", "--json"),
        ("graph", "deploys/migrations"),
        ("graph", "--format", "dot"),
        ("no-such-command",),
        ("graph", "/nowhere"),
    ],
)
def test_a_reader_who_has_seen_enough_is_no_trouble(words: tuple[str, ...], tmp_path: Path) -> None:
    """`… | head`: no word about it, and the exit code of any program that nobody reads any more."""
    read, write = os.pipe()
    os.close(read)
    kept = tmp_path / "said"
    with kept.open("w") as said:
        both = words[-1] in ("no-such-command", "/nowhere")
        done = subprocess.run(
            [PROGRAM, *words], stdout=write, stderr=write if both else said, check=False, timeout=60, cwd=TOP,
            env=os.environ | {"OVERLAYMIG_LAB_DIR": str(tmp_path / "lab")},
        )  # fmt: skip
    os.close(write)
    assert (done.returncode, kept.read_text()) == (141, "")


@pytest.mark.parametrize("words", [("--help",), ("lab", "ls"), ("graph", "deploys/migrations")])
@pytest.mark.parametrize("closed", [(1,), (0, 1, 2)])
def test_without_an_output_it_does_what_it_is_told(
    words: tuple[str, ...], closed: tuple[int, ...], tmp_path: Path
) -> None:
    """`… >&-`, as cron jobs and services may have it: no traceback, and what would be said goes nowhere."""
    line = "".join(f" {number}>&-" for number in closed)
    done = subprocess.run(
        ["/bin/sh", "-c", f'"$@"{line}', "sh", PROGRAM, *words], capture_output=True, check=False, timeout=60, cwd=TOP,
        env=os.environ | {"OVERLAYMIG_LAB_DIR": str(tmp_path / "lab")},
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.parametrize("mode", [0o644, 0o000])
def test_what_the_system_says_is_said_in_words(tmp_path: Path, mode: int) -> None:
    """No number of an error, and which file it is."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "file").chmod(mode)
    argv: list[str | Path] = [PROGRAM, "graph", TOP / "deploys/migrations", "-o", tmp_path / "file/below"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert f"{tmp_path}/file/below: not a directory" in done.stderr
    assert "hint:" in done.stderr
    assert "Errno" not in done.stderr


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program `ssh` that notes its arguments in `said`, and does what the file `does` says."""
    tools = tmp_path / "tools"
    tools.mkdir()
    program = tools / "ssh"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >{tmp_path}/said\n. {tmp_path}/does\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    return tmp_path


@pytest.mark.parametrize(
    ("does", "sudo", "said", "hint"),
    [
        ("echo 'ssh: connect to host db1 port 22: Connection refused' >&2; exit 255", False, "refused", "ssh root@db1"),
        ("echo 'sudo: a password is required' >&2; exit 1", True, "password", "password"),
        ("echo 'sh: 1: /data/…/system-migrate: Permission denied' >&2; exit 126", False, "denied", "--sudo"),
        ("echo 'sh: 1: /data/…/system-migrate: not found' >&2; exit 127", False, "not found", "deploys/prepare.py"),
        ("echo 'sudo: /data/…/system-migrate: command not found' >&2; exit 1", True, "not found", "password"),
        ("printf 'system-migrate: no record\\n  hint: look\\n' >&2; exit 4", False, "root@db1: no record", "look"),
        ("exit 9", False, "as before", "MachineStatus"),
    ],
)  # fmt: skip
def test_what_a_real_host_says_comes_with_what_to_do_there(
    ssh: Path, does: str, sudo: bool, said: str, hint: str
) -> None:
    """The lab is not named: it has nothing to do with it."""
    (ssh / "does").write_text(does)
    with pytest.raises(OverlaymigError) as caught:
        asking.ask("root@db1", "diff", "20240206-001_x", sudo=sudo)
    assert said in str(caught.value)
    assert hint in caught.value.hint
    assert "lab" not in f"{caught.value} {caught.value.hint}".replace("available", "")


def test_a_user_who_is_not_root_asks_by_sudo(ssh: Path) -> None:
    """Which asks for no password, as nobody could type one."""
    (ssh / "does").write_text("echo answer")
    for sudo, words in ((False, ""), (True, "sudo -n -- ")):
        assert asking.ask("admin@db1", "diff", "x y", sudo=sudo) == b"answer\n"
        line = f"{words}/data/system/runner/system-migrate diff 'x y'"
        assert (ssh / "said").read_text().splitlines() == ["--", "admin@db1", line]
    for verb in ("diff", "state"):
        subprocess.run([PROGRAM, verb, "--sudo", "admin@db1", "x"], check=False, capture_output=True, timeout=60)
        assert "sudo -n -- " in (ssh / "said").read_text()


def test_without_ssh_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shutil.which("ssh")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OverlaymigError, match="ssh is not installed here") as caught:
        asking.ask("root@db1", "diff", "x")
    assert "openssh-client" in caught.value.hint
