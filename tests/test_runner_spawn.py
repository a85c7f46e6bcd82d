"""Children of the runner: how they end is always known, and none outlives what it belongs to."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from pyinfra_overlaymig.runner import spawn
from pyinfra_overlaymig.runner.clock import Deadline
from pyinfra_overlaymig.runner.follow import Reader, readable
from pyinfra_overlaymig.runner.say import Leave

PATIENCE = 10.0


def gone(pid: int) -> bool:
    """Whether a process ends within the limit; one that nobody waits for counts as ended."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.01)
    return False


def refuse() -> None:
    raise Leave(3, "no", "never")


def break_down() -> None:
    raise OSError(28, "No space left on device", "/data/x")


@pytest.mark.parametrize(
    ("work", "code"),
    [(lambda: None, 0), (lambda: 7, 7), (refuse, 3), (break_down, 111), (lambda: os.kill(os.getpid(), 9), 137)],
)
def test_a_childs_end_is_a_code(work: object, code: int) -> None:
    """What it returns, the code that it leaves with, 111 for what nobody expected, 128 and the signal."""
    assert spawn.wait(spawn.fork(work)) == code  # type: ignore[arg-type] # lambdas of several kinds


def test_a_child_that_takes_longer_is_still_there() -> None:
    """Waiting with a limit says None, and can be gone on with."""
    child = spawn.fork(lambda: time.sleep(0.3))
    assert spawn.wait(child, Deadline(0.01)) is None
    assert spawn.wait(child, Deadline(PATIENCE)) == 0


def test_children_die_with_their_parent() -> None:
    """Also one of a process that is killed in the very moment that it forks."""
    for _ in range(20):
        told, tells = os.pipe()

        def parent(tells: int = tells) -> None:
            def child() -> None:
                os.write(tells, f"{os.getpid()}\n".encode())
                time.sleep(60)

            spawn.wait(spawn.fork(child))

        middle = spawn.fork(parent)
        os.close(tells)
        pid = int(os.read(told, 20))
        os.close(told)
        os.kill(middle.pid, signal.SIGKILL)
        spawn.wait(middle)
        assert gone(pid)


def test_a_program_has_its_signals_and_no_descriptor_of_ours(tmp_path: Path) -> None:
    """What Python ignores is not ignored by what it starts, which reads nothing and holds nothing."""
    mine = os.open("/dev/null", os.O_RDONLY)
    script = f"grep -q 'SigIgn:.*0000$' /proc/self/status; ls /proc/$$/fd >{tmp_path}/open; read x && exit 1; exit 0"
    assert spawn.run(["/bin/sh", "-c", f"set -e; {script}"]) == 0
    assert set((tmp_path / "open").read_text().split()) <= {"0", "1", "2", "255", "10"}
    os.close(mine)


def test_at_its_limit_a_program_ends_with_all_that_it_started(tmp_path: Path) -> None:
    """TERM to its group; what does not listen is killed after the grace."""
    script = f"sleep 1000 & echo $! >{tmp_path}/pid; trap '' TERM; while :; do sleep 0.05; done"
    assert spawn.run(["/bin/sh", "-c", script], seconds=0.3, grace=0.2) == spawn.LATE
    assert gone(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize(("program", "code"), [("/nowhere/at/all", 127), ("/etc/passwd", 126)])
def test_a_program_that_cannot_be_started_says_so(program: str, code: int, capfd: pytest.CaptureFixture[str]) -> None:
    """As a shell would: 127 where there is none, 126 where it may not be run; and which one it is about."""
    assert spawn.run([program]) == code
    assert f"system-migrate: {program}: " in capfd.readouterr().err


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (b"plain\n", "plain\n"),
        ("h\u00e9llo\n".encode(), "h\u00e9llo\n"),
        (b"10%\r50%\r100%\n", "100%\n"),
        (b"carriage\r\n", "carriage\r\n"),
        (b"\x1b[31mred\x1b[0m\n", "?[31mred?[0m\n"),
        (b"caf\xe9\n", "caf\ufffd\n"),
        (b"tab\there\n", "tab\there\n"),
    ],
)
def test_what_is_shown_does_a_terminal_no_harm(line: bytes, shown: str) -> None:
    """Text stays text; escapes are defused; of a line that was drawn over and over the last form is shown."""
    assert readable(line) == shown


def test_who_follows_a_log_sees_no_harm_either(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """Be it one's own run or another's, in whatever pieces it comes; what has no end yet is shown at its end."""
    log = tmp_path / "log"
    log.write_bytes(b"")
    reader = Reader(str(log))
    with log.open("ab", buffering=0) as file:
        for piece in (b"h\xc3", b"\xa9llo \x1b", b"[2J\n10%\r", b"99%\n\xc2\x9b", b"31mno end"):
            file.write(piece)
            assert reader.show()
    assert reader.show(last=True)
    assert capfdbinary.readouterr().out.decode() == "h\u00e9llo ?[2J\n99%\n?31mno end"
